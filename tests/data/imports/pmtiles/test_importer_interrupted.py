"""Imports of the same archives: stopped, killed, by more workers, with the same bytes."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import pytest

from salibi_data.imports.pmtiles.importer import ImportReport, import_pmtiles
from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError
from salibi_data.store.schema import SAMPLES_NAME
from tests.support.data.imported import damaged
from tests.support.data.released_archives import (
    LEFT,
    TOP,
    ZOOM,
    flat_release,
    square,
    write_archive,
)
from tests.support.data.samples import command, environment, tree


def test_the_same_archives_give_the_same_bytes(
    released: dict[str, Path], imported: tuple[Path, ImportReport], tmp_path: Path
) -> None:
    assert not imported[1].was_complete
    import_pmtiles(tmp_path / "x.zarr", **released)
    assert tree(tmp_path / "x.zarr") == tree(imported[0])
    again = import_pmtiles(imported[0], **released)
    assert again.was_complete
    with pytest.raises(StoreError, match="holds something else"):
        import_pmtiles(imported[0], **{**released, "sar": None})


@pytest.mark.slow
def test_workers_give_the_same_bytes(tmp_path: Path) -> None:
    made = flat_release(square(12))
    made.sar[ZOOM, LEFT + 8, TOP + 8] = damaged("cut")
    paths = made.write(tmp_path)
    del paths["hires"]
    import_pmtiles(tmp_path / "one.zarr", **paths, skip_damaged=True)
    import_pmtiles(tmp_path / "two.zarr", **paths, skip_damaged=True, workers=2)
    assert tree(tmp_path / "two.zarr") == tree(tmp_path / "one.zarr")


def test_an_archive_that_was_mended_is_another(tmp_path: Path) -> None:
    lores = flat_release(square(2)).lores
    lores[ZOOM, LEFT, TOP] += b"1"
    path = write_archive(tmp_path / "a", lores)
    import_pmtiles(tmp_path / "x.zarr", lores=path)
    about = geoparquet.read(tmp_path / "x.zarr" / SAMPLES_NAME, ["z"])[1]
    assert about["archives"] == {"lores": hashlib.sha256(path.read_bytes()).hexdigest()}
    size = path.stat().st_size
    lores[ZOOM, LEFT, TOP] = lores[ZOOM, LEFT, TOP][:-1] + b"2"
    write_archive(path, lores)
    assert path.stat().st_size == size
    with pytest.raises(StoreError, match="holds something else"):
        import_pmtiles(tmp_path / "x.zarr", lores=path)


def test_stopped_and_begun_again_equals_never_stopped(tmp_path: Path) -> None:
    lores = write_archive(tmp_path / "lores", flat_release(square(12)).lores)
    import_pmtiles(tmp_path / "whole.zarr", lores=lores)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    store = tmp_path / "x.zarr"
    with pytest.raises(KeyboardInterrupt):
        import_pmtiles(store, lores=lores, progress=stop)
    assert not store.exists()
    started: list[int] = []
    import_pmtiles(store, lores=lores, progress=lambda done, _: started.append(done))
    assert started == [2, 3]
    assert tree(store) == tree(tmp_path / "whole.zarr")


def test_killed_and_run_again_equals_never_killed(tmp_path: Path) -> None:
    lores = write_archive(tmp_path / "lores", flat_release(square(14)).lores)
    import_pmtiles(tmp_path / "whole.zarr", lores=lores)
    store = tmp_path / "x.zarr"
    process = subprocess.Popen(
        command("import-pmtiles", "--lores", str(lores), "-o", str(store)), env=environment()
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("x.zarr.building/store-*/shards/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not store.exists()
    import_pmtiles(store, lores=lores)
    assert tree(store) == tree(tmp_path / "whole.zarr")
    assert not (tmp_path / "x.zarr.building").exists()
