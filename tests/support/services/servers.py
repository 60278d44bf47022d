"""Real servers on 127.0.0.1 for the tests."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

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
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the searches, pages included."""
    extra: list[Any] = field(default_factory=list)
    """Features that every answer has beside those that were found."""
    bodies: list[str] = field(default_factory=list)
    """Answers of status 200 to give before searching works."""
    fail_from: int | None = None
    """Number of the first search that fails, and all after it."""
    lost_pages: bool = False
    """Whether pages after the first are never given, as some servers stop in the middle."""

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
        if self.fail_from is not None and self.requests > self.fail_from:
            return web.Response(status=503, headers={"Retry-After": "0"})
        body = await request.json()
        if self.bodies:
            return web.Response(text=self.bodies.pop(0), content_type="application/json")
        self.asked.append(body)
        matching = [item for item in self.items if matches(item, body)]
        start = int(body.get("token", 0))
        page: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": [*matching[start : start + PAGE], *self.extra],
            "links": [],
            "numberMatched": len(matching),
        }
        if start + PAGE < len(matching) and not self.lost_pages:
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


FAULTS = ("503", "429", "reset", "stall", "truncated", "403")
"""Faults of a :class:`RangeServer`; ``corrupted`` only where asked for."""


@dataclass(frozen=True)
class Answered:
    """One request to a :class:`RangeServer`."""

    path: str
    span: tuple[int, int] | None
    at: float
    """Time on the monotonic clock, in seconds."""
    status: int
    """0 where the connection was reset."""
    fault: str
    query: str
    headers: Mapping[str, str]


@dataclass
class RangeServer:
    """The files of a folder by byte ranges, and all that goes wrong with real ones.

    It also answers as an HTTP proxy: then every host has this folder.
    """

    folder: Path
    url: str = ""
    latency_s: float = 0.0
    fault_rate: float = 0.0
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    plan: list[str] = field(default_factory=list)
    """Faults of the next requests, in order; "" for none. The rate counts when it is used up."""
    retry_after: str = "1"
    """Header of a 429."""
    gone: set[str] = field(default_factory=set)
    """Paths from the folder that are 404, though the files be there."""
    signature: Callable[[str], bool] | None = None
    """Whether a query lets its bearer in; the others are 403."""
    ranges: bool = True
    """Whether it answers with the range only, or the whole file, whatever was asked."""
    log: list[Answered] = field(default_factory=list)
    active: int = 0
    most_active: int = 0
    """Most requests that were under way at a time."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._deck: list[str] = []

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        return app

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.log)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            return await self._answer(request)
        finally:
            self.active -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.match_info["path"], request.rel_url.raw_query_string
        file = self.folder / path
        span = self._span(request, file)
        fault, status = self._fault(path, span, query)
        if status == 206 and not (self.ranges and "Range" in request.headers):
            status = 200
        self.log.append(
            Answered(path, span, time.monotonic(), status, fault, query, dict(request.headers))
        )
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if fault == "reset":
            return await self._reset(request)
        if status not in (200, 206) or span is None:
            headers = {"Retry-After": self.retry_after} if status == 429 else {}
            return web.Response(status=status, headers=headers)
        return await self._send(request, file, span, fault, status)

    def _span(self, request: web.Request, file: Path) -> tuple[int, int] | None:
        if not file.is_file():
            return None
        size = file.stat().st_size
        byte_range = request.headers.get("Range", "")
        if not (self.ranges and byte_range.startswith("bytes=")):
            return (0, size)
        first, _, last = byte_range.removeprefix("bytes=").partition("-")
        return (int(first), min(size, int(last) + 1 if last else size))

    def _fault(self, path: str, span: tuple[int, int] | None, query: str) -> tuple[str, int]:
        if span is None or path in self.gone:
            return "", 404
        if self.signature is not None and not self.signature(query):
            return "", 403
        if span[0] >= span[1]:
            return "", 416
        fault = ""
        if self.plan:
            fault = self.plan.pop(0)
        elif self._random.random() < self.fault_rate:
            fault = self._deal()
        if fault == "corrupted" and span[0] < 32_768:
            fault = ""  # a wrong header may still be a header: nobody could tell
        if fault.isdigit():
            return fault, int(fault)
        return fault, 0 if fault == "reset" else 206

    def _deal(self) -> str:
        """The next fault at random, but every one before any comes again."""
        if not self._deck:
            self._deck = self._random.sample(self.faults, len(self.faults))
        return self._deck.pop()

    @staticmethod
    async def _reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        raw: socket.socket = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return web.Response()

    @staticmethod
    async def _send(
        request: web.Request, file: Path, span: tuple[int, int], fault: str, status: int
    ) -> web.StreamResponse:
        body, about = read(file, span)
        if fault == "corrupted":
            third = slice(len(body) // 3, len(body) // 3 + 64)  # the middle may be a block's edge
            body[third] = bytes(255 - byte for byte in body[third])
        headers = {
            "Content-Length": str(len(body)),
            "Accept-Ranges": "bytes",
            "ETag": f'"{about.st_mtime_ns:x}-{about.st_size:x}"',
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{about.st_size}"
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if fault not in ("stall", "truncated"):
            await response.write(body)
            return response
        await response.write(body[: len(body) // 2])
        transport = request.transport
        while fault == "stall" and transport and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if transport is not None:
            transport.close()
        return response


def read(file: Path, span: tuple[int, int]) -> tuple[bytearray, os.stat_result]:
    """Bytes of a file, and what the file is."""
    with file.open("rb") as source:
        source.seek(span[0])
        return bytearray(source.read(span[1] - span[0])), file.stat()


@dataclass
class TokenServer:
    """Gives SAS tokens as the Planetary Computer does; ``PC_SDK_SAS_URL`` is ``url`` + ``/token``."""

    life_s: float = 20.0
    latency_s: float = 0.0
    failures: list[int] = field(default_factory=list)
    """Statuses to answer with first; 200 is an answer that is no token."""
    url: str = ""
    log: list[tuple[float, str]] = field(default_factory=list)
    """(moment on the monotonic clock, account/container)."""
    revoked: set[str] = field(default_factory=set)
    clock: Callable[[], float] = time.monotonic

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/token/{account}/{container}", self.give)
        return app

    async def give(self, request: web.Request) -> web.Response:
        name = "{account}/{container}".format(**request.match_info)
        self.log.append((self.clock(), name))
        await asyncio.sleep(self.latency_s)
        if self.failures:
            body = {"token": "sig=secret-0", "said": "no expiry"}
            return web.json_response(body, status=self.failures.pop(0))
        expiry = (datetime.now(UTC) + timedelta(seconds=self.life_s)).isoformat()
        token = f"st=x&se={self.clock() + self.life_s}&sp=r&sig=secret-{len(self.log)}"
        return web.json_response({"token": token, "msft:expiry": expiry})

    def accepts(self, query: str) -> bool:
        """Whether a blob server lets the bearer of this query in."""
        fields = {key: values[0] for key, values in parse_qs(query).items()}
        return (
            fields.get("sig", "").startswith("secret-")
            and fields["sig"] not in self.revoked
            and self.clock() < float(fields["se"])
        )


class Served(Protocol):
    """Application that :func:`serve` can run."""

    url: str

    def application(self) -> web.Application: ...


Server = TypeVar("Server", bound=Served)


@contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Serve in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    # Request lines hold signatures, and a test may read the logs.
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.2)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.url.rsplit(":", 1)[1]
    with warnings.catch_warnings():
        # The server breaks connections on purpose; what is left of its side is no leak of ours.
        warnings.filterwarnings("ignore", "unclosed transport", ResourceWarning)
        ours = rf"unclosed <socket.*laddr=\('127.0.0.1', {port}\)"
        warnings.filterwarnings("ignore", ours, ResourceWarning)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            # Transports close in the loop's next turns.
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
            gc.collect()  # what is still open is found here, not in another test
