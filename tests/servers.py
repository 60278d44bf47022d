"""Real servers on 127.0.0.1 for the tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from shapely import box
from shapely.geometry import shape

PAGE = 3


@dataclass
class StacServer:
    """A small STAC API: POST search with bbox, datetime, collections, and paging by token."""

    items: list[dict[str, Any]]
    url: str = ""
    failures: list[int] = field(default_factory=list)
    """Statuses to answer with before searching works."""
    requests: int = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self.landing)
        app.router.add_post("/search", self.search)
        return app

    async def landing(self, _request: web.Request) -> web.Response:
        links = [
            {"rel": rel, "href": f"{self.url}{path}", "type": "application/json", **more}
            for rel, path, more in (
                ("self", "/", {}),
                ("root", "/", {}),
                ("search", "/search", {"method": "POST", "type": "application/geo+json"}),
            )
        ]
        return web.json_response(
            {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "test",
                "description": "test",
                "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"],
                "links": links,
            }
        )

    async def search(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.failures:
            return web.Response(status=self.failures.pop(0), headers={"Retry-After": "0"})
        body = await request.json()
        found = [item for item in self.items if matches(item, body)]
        start = int(body.get("token", 0))
        page: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": found[start : start + PAGE],
            "links": [],
        }
        if start + PAGE < len(found):
            following = {**body, "token": str(start + PAGE)}
            href = f"{self.url}/search"
            page["links"].append({"rel": "next", "href": href, "method": "POST", "body": following})
        return web.json_response(page)


def matches(item: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether an item answers a search: the brute-force oracle, too."""
    if "collections" in body and item["collection"] not in body["collections"]:
        return False
    if "bbox" in body and not shape(item["geometry"]).intersects(box(*body["bbox"])):
        return False
    if "datetime" in body:
        first, last = (datetime.fromisoformat(part) for part in body["datetime"].split("/"))
        time = datetime.fromisoformat(item["properties"]["datetime"])
        return first <= time.astimezone(UTC) <= last
    return True


@contextmanager
def serve(server: StacServer) -> Iterator[StacServer]:
    """Serve in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.application())

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
