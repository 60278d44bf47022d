"""Builds from an API: the pixels are those of the item asked for, wherever links and hrefs point."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from salibi_data.builds.build import build
from salibi_data.plans.planner import plan
from salibi_data.store.errors import SelectionError
from tests.support.catalogs import made_catalogs as made
from tests.support.services.hosts import OddApi, Query, part_of
from tests.support.services.servers import serve


def api_of(folder: Path, *items: dict[str, Any], moved: int = 0) -> tuple[OddApi, dict[str, Any]]:
    """An API of the items whose files lie in ``folder``; its search has moved by a status, if any."""
    options = made.write_catalog(folder, *items[:1], group_by="[]", rank="newest")

    async def answer(request: web.Request, query: Query) -> web.StreamResponse | None:
        del query
        if request.path == "/old":
            return web.Response(status=moved, headers={"Location": "/search"})
        if request.path == "/search":
            return None
        return part_of(request, (folder / request.path.lstrip("/")).read_bytes())

    return OddApi(list(items), answer=answer, search_path="/old" if moved else "/search"), options


def at(api: OddApi, folder: Path) -> None:
    """Makes the catalog's file name the API."""
    path = folder / "provider.toml"
    text = path.read_text().replace('kind = "static"', 'kind = "api"')
    path.write_text(text.replace('url = "catalog.json"', f'url = "{api.url}/"'))


def test_relative_hrefs_are_read_from_the_server_and_never_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    right = made.values(1)
    made.write_tif(tmp_path / "data" / "a b.tif", right)
    made.write_tif(tmp_path / "here" / "a b.tif", np.full_like(right, 77))
    monkeypatch.chdir(tmp_path / "here")
    one = made.item("a", Path("a%20b.tif"))
    api, options = api_of(tmp_path, one)
    with serve(api):
        one["links"] = [{"rel": "self", "href": f"{api.url}/data/a.json"}]
        at(api, tmp_path)
        build(tmp_path / "out.zarr", **options)
    assert np.array_equal(made.square_of(tmp_path / "out.zarr"), right)


def test_a_local_file_of_a_remote_item_is_never_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made.write_tif(tmp_path / "a.tif", made.values(1))
    one = made.item("a", path)
    one["assets"]["image"]["href"] = path.as_uri()
    api, options = api_of(tmp_path, one)
    with serve(api):
        at(api, tmp_path)
        with pytest.raises(SelectionError, match="0 one"):
            plan(**options)
    assert "with an href that is no address at a server" in caplog.text


@pytest.mark.parametrize("status", [301, 307])
def test_a_moved_search_uses_no_item_of_another_collection(tmp_path: Path, status: int) -> None:
    right = made.values(1)
    made.write_tif(tmp_path / "right.tif", right)
    made.write_tif(tmp_path / "other.tif", np.full_like(right, 200))
    items = [
        made.item("right", Path("/right.tif")),
        made.item("other", Path("/other.tif"), day="2023-06-01", sensor="commercial"),
    ]
    api, options = api_of(tmp_path, *items, moved=status)
    with serve(api):
        at(api, tmp_path)
        build(tmp_path / "out.zarr", **options)
    assert np.array_equal(made.square_of(tmp_path / "out.zarr"), right)
    assert {tuple(row["one_items"]) for row in made.rows_of(tmp_path / "out.zarr")} == {("right",)}


@pytest.mark.parametrize("unknown", [math.nan, None, "n/a", -1], ids=repr)
def test_a_plan_has_the_clearest_scene_in_any_order_of_items(tmp_path: Path, unknown: Any) -> None:
    path = made.write_tif(tmp_path / "a.tif", made.values(1))
    clouds = {"a": unknown, "b": 100, "c": "99.5"}
    digests = set()
    for number, order in enumerate(itertools.permutations(clouds)):
        folder = tmp_path / str(number)
        folder.mkdir()
        items = [made.item(name, path, scene=name, cloud=clouds[name]) for name in order]
        planned = plan(**made.write_catalog(folder, *items))
        digests.add(planned.digest)
        assert list(planned.scenes["one"]) == ["c"]
    assert len(digests) == 1
