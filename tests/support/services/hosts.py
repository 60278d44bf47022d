"""A web server on 127.0.0.1 that answers as a function of the test says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from shapely import box
from shapely.geometry import mapping, shape


@dataclass
class Host:
    """Answers every request by ``answer(number, request)``; numbers count from 1."""

    answer: Callable[[int, web.Request], Awaitable[web.StreamResponse] | web.StreamResponse]
    url: str = ""
    requests: list[web.Request] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    @property
    def paths(self) -> list[str]:
        """Paths with queries, as asked."""
        return [request.raw_path for request in self.requests]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answer(len(self.requests), request)
        return answer if isinstance(answer, web.StreamResponse) else await answer


def asked_range(request: web.Request, size: int) -> tuple[int, int] | None:
    """Start and stop of the range that a request asks for, cut at the end of the file."""
    first, dash, last = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
    if not dash:
        return None
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)


def part_of(request: web.Request, content: bytes, **headers: str) -> web.Response:
    """The range of a content that a request asks for, or all of it."""
    span = asked_range(request, len(content))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if span is None:
        return web.Response(body=content, headers=named)
    content_range = f"bytes {span[0]}-{span[1] - 1}/{len(content)}"
    return web.Response(
        status=206, body=content[slice(*span)], headers={"Content-Range": content_range} | named
    )


Query = dict[str, Any]


@dataclass
class OddApi:
    """A STAC API over items, by POST and GET, whose habits are functions of the test."""

    items: list[Any]
    page_items: int = 3
    """Items of a page at most, whatever the limit."""
    url: str = ""
    searches: list[tuple[str, Query]] = field(default_factory=list)
    """Method and query of every search."""
    answer: Callable[[web.Request, Query], Awaitable[web.StreamResponse | None]] | None = None
    """Answers in place of a page, unless by None."""
    change: Callable[[dict[str, Any], Query], None] | None = None
    """Alters a page before it is sent."""
    search_path: str = "/search"
    """Path of the search that the landing page names."""
    filters: bool = True
    """Whether items are filtered by collection and box."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/":
            return web.json_response(self._landing())
        text = await request.text()
        query: Query = {**request.query}
        if request.method == "POST":
            query = json.loads(text or "{}") | query
        self.searches.append((request.method, query))
        reply = None if self.answer is None else await self.answer(request, query)
        if reply is not None:
            return reply
        found = [one for one in self.items if not self.filters or answers(one, query)]
        start = int(query.get("token", 0))
        stop = start + min(self.page_items, int(query.get("limit", 10)))
        page = {
            "type": "FeatureCollection",
            "features": found[start:stop],
            "numberMatched": len(found),
            "links": [self.next(query, stop)] if stop < len(found) else [],
        }
        if self.change is not None:
            self.change(page, query)
        return web.json_response(page)

    def next(self, query: Query, token: object) -> dict[str, Any]:
        """A link to a further page; by POST, even where the query came by GET."""
        body = {**query, "token": str(token)}
        return {"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": body}

    def _landing(self) -> dict[str, Any]:
        search = {"rel": "search", "href": f"{self.url}{self.search_path}", "method": "POST"}
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "odd",
            "description": "odd",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"],
            "links": [{**search, "type": "application/geo+json"}],
        }


def answers(item: Any, query: Query) -> bool:
    """Whether an item is of the collections and in the box of a query, of either method."""
    collections, bounds = query.get("collections"), query.get("bbox")
    names = collections.split(",") if isinstance(collections, str) else collections
    edges = bounds.split(",") if isinstance(bounds, str) else bounds
    if names and item["collection"] not in names:
        return False
    return not edges or bool(shape(item["geometry"]).intersects(box(*map(float, edges))))


BOUNDS = (-92.5, 41.9, -92.4, 42.0)
"""(west, south, east, north) in degrees, in Iowa."""


def naip_item(
    name: str, number: int = 0, *, collection: str = "naip", **properties: Any
) -> dict[str, Any]:
    """A NAIP item over a tenth of :data:`BOUNDS`, from the west."""
    west, south, _, north = BOUNDS
    outline = box(west + 0.01 * number, south, west + 0.01 * (number + 1), north)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {"datetime": "2022-07-15T16:00:00Z", "naip:year": "2022"} | properties,
        "links": [],
        "assets": {"image": {"href": f"https://example.com/{name}.tif"}},
    }
