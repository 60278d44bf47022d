"""Searches of STAC APIs that page, count, limit and redirect as real ones do."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from salibi_data.catalog.api_client import query_of
from salibi_data.catalog.providers import Catalog, load_catalog
from salibi_data.catalog.search import CatalogSearch, search
from salibi_data.store.errors import CatalogError, UsageError
from tests.support.services.hosts import BOUNDS, OddApi, Query, answers, naip_item
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("no_pauses")

ITEMS = [naip_item(f"scene-{number}", number) for number in range(7)]
IDS = [one["id"] for one in ITEMS]


def catalog(api: OddApi, **fields: Any) -> Catalog:
    return replace(load_catalog("planetary-computer"), url=api.url, signing="none", **fields)


def found(api: OddApi, **fields: Any) -> list[str]:
    """Ids of the scenes that a search finds."""
    return [scene.id for scene in search(catalog(api, **fields), "naip", BOUNDS, None)]


def refusing(status: int, when: Callable[[str, int], bool], **headers: str) -> Any:
    """Answers with a status where the method and the limit of a search are as given."""

    async def answer(request: web.Request, query: Query) -> web.StreamResponse | None:
        if when(request.method, int(query.get("limit", 10))):
            return web.json_response({"detail": "not so"}, status=status, headers=headers)
        return None

    return answer


def page_number(query: Query) -> int:
    return int(query.get("token", 0)) // 3


def links_to(*tokens: int | None) -> Callable[[OddApi], Callable[[dict[str, Any], Query], None]]:
    """Each page links to the start of a given one, the last of which counts for all further ones."""

    def of(api: OddApi) -> Callable[[dict[str, Any], Query], None]:
        def change(page: dict[str, Any], query: Query) -> None:
            token = tokens[min(page_number(query), len(tokens) - 1)]
            page["links"] = [] if token is None else [api.next(query, token)]

        return change

    return of


@pytest.mark.parametrize("count", ["exact", None, 1200])
@pytest.mark.parametrize("last", [6, 3, 0], ids=["itself", "the page before", "the first"])
def test_a_next_link_that_was_followed_ends_the_search(last: int, count: Any, caplog: Any) -> None:
    with serve(OddApi(ITEMS)) as api:
        of_links = links_to(3, 6, last)(api)

        def change(page: dict[str, Any], query: Query) -> None:
            of_links(page, query)
            if count != "exact":
                page["numberMatched"] = count

        api.change = change
        assert found(api) == IDS
    assert "a link to the next page repeats" in caplog.text
    assert len(api.searches) <= 12


def next_link(form: str, url: str, query: Query, token: int) -> dict[str, Any]:
    """A link to a further page, in one of the forms that the standard allows."""
    text = urlencode(query_of(query) | {"token": token})
    forms: dict[str, dict[str, Any]] = {
        "a whole body": {
            "href": f"{url}/search",
            "method": "POST",
            "body": {**query, "token": token},
        },
        "a body to merge": {
            "href": f"{url}/search",
            "method": "post",
            "merge": True,
            "body": {"token": token},
        },
        "no body": {"href": f"/search?token={token}", "method": "POST"},
        "a relative address": {"href": f"search?{text}"},
        "an absolute address": {"href": f"{url}/search?{text}", "method": "GET"},
    }
    return {"rel": "next"} | forms[form]


@pytest.mark.parametrize(
    "form",
    ["a whole body", "a body to merge", "no body", "a relative address", "an absolute address"],
)
def test_next_links_of_every_form_are_followed(form: str) -> None:
    with serve(OddApi(ITEMS)) as api:

        def change(page: dict[str, Any], query: Query) -> None:
            if page["links"]:
                token = int(query.get("token", 0)) + 3
                link = next_link(form, api.url, query, token)
                page["links"] = [None, {"rel": "self"}, link]

        api.change = change
        assert found(api) == IDS
    assert len(api.searches) == 3


@pytest.mark.parametrize("count", ["exact", None])
def test_paging_that_never_leaves_its_first_page_is_an_error(count: Any) -> None:
    with serve(OddApi(ITEMS)) as api:

        def change(page: dict[str, Any], query: Query) -> None:
            page["links"] = [api.next(query, 0)]
            page["numberMatched"] = page["numberMatched"] if count else None

        api.change = change
        with pytest.raises(CatalogError, match=r"repeats after 3.* half the area gives others"):
            found(api)


def test_tokens_that_an_api_ignores_are_an_error() -> None:
    with serve(OddApi(ITEMS)) as api:
        fresh = itertools.count(1)

        def change(page: dict[str, Any], query: Query) -> None:
            page["links"] = [api.next(query | {"cursor": next(fresh)}, 0)]

        api.change = change
        with pytest.raises(CatalogError, match="bring no new item after 3 of 7 items"):
            found(api)


@pytest.mark.parametrize("count", ["exact", None, 0, "many"])
def test_empty_pages_are_followed_and_not_without_end(count: Any) -> None:
    with serve(OddApi(ITEMS)) as api:
        pages = {2: ITEMS[:3], 4: ITEMS[3:6], 5: ITEMS[6:]}  # the others are empty, without end

        def change(page: dict[str, Any], query: Query) -> None:
            step = int(query.get("step", 0))
            inside = [one for one in pages.get(step, []) if answers(one, query)]
            page |= {"features": inside, "links": [api.next(query | {"step": step + 1}, 0)]}
            if count != "exact":
                page["numberMatched"] = count

        api.change = change
        assert found(api) == IDS
    assert len(api.searches) < 60


@pytest.mark.parametrize("count", [1200, "1200", 1200.0, None, "unknown", True, -1, 3, 0])
@pytest.mark.parametrize(("place", "number"), [("numberMatched", 7), ("context", 6)])
def test_a_count_may_be_an_estimate(place: str, number: int, count: Any) -> None:
    with serve(OddApi(ITEMS[:number])) as api:

        def change(page: dict[str, Any], query: Query) -> None:
            del query, page["numberMatched"]
            page |= {"context": {"matched": count}} if place == "context" else {place: count}

        api.change = change
        assert found(api) == IDS[:number]


def test_an_answer_that_was_cut_short_is_asked_for_again() -> None:
    with serve(OddApi(ITEMS)) as api:

        def change(page: dict[str, Any], query: Query) -> None:
            if len(api.searches) == 2:
                page["links"] = []

        api.change = change
        assert found(api) == IDS


@pytest.mark.parametrize("status", [400, 413, 422, 500, 502, 504])
def test_smaller_pages_are_asked_for_and_their_size_is_kept(status: int) -> None:
    limits = []
    with serve(OddApi(ITEMS, answer=refusing(status, lambda _, limit: limit > 100))) as api:
        finder = CatalogSearch(catalog(api))
        for _ in range(2):
            assert [scene.id for scene in finder.find("naip", BOUNDS, None)] == IDS
            limits.append([int(query["limit"]) for _, query in api.searches])
            api.searches.clear()
    assert limits[0][0] > 100 >= limits[0][-1] > 50
    assert set(limits[1]) == {limits[0][-1]}


def test_a_gateway_may_be_too_slow_for_more_than_a_few_items() -> None:
    with serve(OddApi(ITEMS, answer=refusing(502, lambda _, limit: limit > 5))) as api:
        assert found(api) == IDS


def test_a_page_may_have_one_item_only() -> None:
    with serve(OddApi(ITEMS, answer=refusing(400, lambda _, limit: limit > 1))) as api:
        assert found(api) == IDS


def test_what_is_refused_at_any_size_is_an_error_with_the_reason() -> None:
    with (
        serve(OddApi(ITEMS, answer=refusing(400, lambda *_: True))) as api,
        pytest.raises(CatalogError, match=r"answers HTTP 400 \(not so\)"),
    ):
        found(api)


def test_the_environment_gives_the_size_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIBI_SEARCH_PAGE_ITEMS", "2")
    with serve(OddApi(ITEMS)) as api:
        assert found(api) == IDS
    assert {query["limit"] for _, query in api.searches} == {2}
    monkeypatch.setenv("SALIBI_SEARCH_PAGE_ITEMS", "none")
    with pytest.raises(UsageError, match="SALIBI_SEARCH_PAGE_ITEMS is 'none'"):
        found(api)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 501, 500, 502])
def test_get_is_used_where_post_is_not_served_and_from_then_on(status: int) -> None:
    with serve(OddApi(ITEMS, answer=refusing(status, lambda method, _: method == "POST"))) as api:
        finder = CatalogSearch(catalog(api))
        assert [scene.id for scene in finder.find("naip", BOUNDS, None)] == IDS
        api.searches.clear()
        assert [scene.id for scene in finder.find("naip", BOUNDS, None)] == IDS
    assert {method for method, _ in api.searches} == {"GET"}


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_search_that_moved_keeps_its_query(status: int, method: Any) -> None:
    others = [naip_item(f"other-{n}", n, collection="commercial") for n in range(4)]

    async def move(request: web.Request, query: Query) -> web.StreamResponse | None:
        del query
        if request.path != "/old":
            return None
        return web.Response(status=status, headers={"Location": "/search"})

    with serve(OddApi([*others, *ITEMS], search_path="/old", answer=move)) as api:
        assert found(api, search_method=method) == IDS
    asked = [query for sent, query in api.searches if sent == method]
    assert all(query.get("collections") in (["naip"], "naip") for query in asked)


def test_a_search_that_moves_in_a_circle_is_an_error() -> None:
    async def move(request: web.Request, query: Query) -> web.StreamResponse:
        del request, query
        return web.Response(status=302, headers={"Location": "/search"})

    with (
        serve(OddApi(ITEMS, answer=move)) as api,
        pytest.raises(CatalogError, match="redirects more"),
    ):
        found(api)


def test_a_password_is_for_the_host_it_was_given_for() -> None:
    given: dict[str, bool] = {}

    async def move(request: web.Request, query: Query) -> web.StreamResponse | None:
        del query
        given[request.path] = "Authorization" in request.headers
        elsewhere = plain.replace("127.0.0.1", "localhost")
        target = {"/search": "/moved", "/moved": f"{elsewhere}/away"}.get(request.path)
        return None if target is None else web.Response(status=307, headers={"Location": target})

    with serve(OddApi(ITEMS[:1], answer=move)) as api:
        plain = api.url
        api.url = plain.replace("//", "//user:word@")  # the landing page names the search so
        assert found(api) == IDS[:1]
    assert given == {"/search": True, "/moved": True, "/away": False}


def test_no_query_of_a_search_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Catalogs that need a key, and links to next pages, have secrets there."""
    caplog.set_level("DEBUG")
    with serve(OddApi(ITEMS)) as api:
        assert found(api, search_method="GET") == IDS
        assert "token" in api.searches[-1][1]
    assert '"GET /search HTTP' in caplog.text
    assert "?" not in caplog.text


def dripping(body: bytes = b" ") -> Callable[[web.Request, Query], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request, query: Query) -> web.StreamResponse:
        del query
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        transport = request.transport
        while transport is not None and not transport.is_closing():
            await response.write(body)
            await asyncio.sleep(0.02)
        return response

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (dripping(), r"not answered within 0.5 s \(SALIBI_SEARCH_TIMEOUT_S\)"),
        (refusing(429, lambda *_: True, **{"Retry-After": "3600"}), "pause of 3600 s would exceed"),
        (refusing(503, lambda *_: True, **{"Retry-After": "3600"}), "pause of 3600 s would exceed"),
    ],
    ids=["drips", "429", "503"],
)
def test_a_search_has_a_time_limit_in_all(
    answer: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_SEARCH_TIMEOUT_S", "0.5")
    with serve(OddApi(ITEMS, answer=answer)) as api:
        began = time.monotonic()
        with pytest.raises(CatalogError, match=reason):
            found(api)
        assert time.monotonic() - began < 3


def test_a_page_that_drips_after_others_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIBI_SEARCH_TIMEOUT_S", "0.5")
    drip = dripping()

    async def answer(request: web.Request, query: Query) -> web.StreamResponse | None:
        return await drip(request, query) if "token" in query else None

    with serve(OddApi(ITEMS, answer=answer)) as api:
        began = time.monotonic()
        with pytest.raises(CatalogError, match="not answered within"):
            found(api)
        assert time.monotonic() - began < 4


def test_an_answer_that_failed_is_not_kept(tmp_path: Any) -> None:
    with serve(OddApi(ITEMS, answer=refusing(500, lambda *_: True))) as api:
        finder = CatalogSearch(catalog(api), tmp_path / "kept")
        with pytest.raises(CatalogError):
            finder.find("naip", BOUNDS, None)
        assert not (tmp_path / "kept").exists()
        api.answer = None
        assert [scene.id for scene in finder.find("naip", BOUNDS, None)] == IDS
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"message": "timed out"}', "without a list of items"),
        ('{"features": null}', "without a list of items"),
        ("[]", "without a list of items"),
        ("<html>busy</html>", "what is no JSON"),
        ("", "what is no JSON"),
    ],
)
def test_an_answer_that_is_no_page_is_said_so(body: str, reason: str) -> None:
    async def answer(request: web.Request, query: Query) -> web.StreamResponse:
        del request, query
        return web.Response(text=body, content_type="application/json")

    with serve(OddApi(ITEMS, answer=answer)) as api, pytest.raises(CatalogError, match=reason):
        found(api)


@pytest.mark.parametrize("conforms", [[], ["https://api.stacspec.org/v1.0.0/core"]])
def test_an_api_without_a_search_is_one_clear_error(conforms: list[str]) -> None:
    class NoSearch(OddApi):
        def _landing(self) -> dict[str, Any]:
            return super()._landing() | {"conformsTo": conforms}

    with serve(NoSearch(ITEMS)) as api, pytest.raises(CatalogError, match="ITEM_SEARCH"):
        found(api)
