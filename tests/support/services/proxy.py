"""The Planetary Computer behind a local proxy, so that its real hosts lead to local servers.

A client that obeys HTTPS_PROXY asks for a tunnel to ``ACCOUNT.blob.core.windows.net:443``. The
tunnel ends at a gateway of ours that holds a certificate for that name and hands the request on:
blobs to Azurite, tokens to an issuer that signs with the account's key, searches to a STAC API.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yarl
from aiohttp import web

from tests.support.services.servers import StacServer

if TYPE_CHECKING:
    from tests.support.services.azurite import BlobStorage

BLOB_DOMAIN = ".blob.core.windows.net"
PORTAL = "planetarycomputer.microsoft.com"
STAC_PATH = "/api/stac/v1"
ISSUER_PATH = "/api/sas/v1/token"
_PASSED_ON = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified")


@dataclass(frozen=True, kw_only=True)
class Issued:
    """One answer of the token issuer."""

    container: str
    """``ACCOUNT/CONTAINER``."""
    at_s: float
    """Monotonic clock."""
    token: str = field(repr=False)


@dataclass(kw_only=True)
class PlanetaryComputer:
    """Services behind the proxy; their settings may be changed between requests."""

    storage: BlobStorage
    items: list[dict[str, Any]]
    life: timedelta = timedelta(hours=1)
    """Validity of tokens."""
    promise: timedelta | None = None
    """Stated validity of tokens, if it differs."""
    latency_s: float = 0.0
    """Delay of every request for a blob, in seconds."""
    issued: list[Issued] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    """Number of answers to requests for blobs, by HTTP status."""
    refused: list[str] = field(default_factory=list)
    """Hosts that a tunnel was asked for and that are none of ours."""
    port: int = 0
    gateway_port: int = 0
    authority: Path = Path()
    """PEM file of the certificate that signed the gateway's."""

    def environment(self) -> dict[str, str]:
        """Environment in which a process takes this for the Planetary Computer."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.port}",
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self.authority),
            "GDAL_CURL_CA_BUNDLE": str(self.authority),
        }

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get(ISSUER_PATH + "/{account}/{container}", self._issue)
        stac = StacServer(self.items, url=f"https://{PORTAL}{STAC_PATH}")
        app.router.add_get(STAC_PATH, stac.landing)
        app.add_subapp(STAC_PATH, stac.application())
        app.router.add_get("/{blob:.*}", self._blob)
        app.cleanup_ctx.append(self._session)
        return app

    async def _session(self, _app: web.Application) -> AsyncIterator[None]:
        self._upstream = aiohttp.ClientSession(auto_decompress=False)
        yield
        await self._upstream.close()

    async def _issue(self, request: web.Request) -> web.Response:
        container = "{account}/{container}".format_map(request.match_info)
        if container.partition("/")[0] not in self.storage.keys:
            raise web.HTTPNotFound
        token, expiry = self.storage.token(container, self.life)
        expiry += (self.promise or self.life) - self.life
        self.issued.append(Issued(container=container, at_s=time.monotonic(), token=token))
        return web.json_response({"msft:expiry": expiry.isoformat(), "token": token})

    async def _blob(self, request: web.Request) -> web.Response:
        if not request.host.endswith(BLOB_DOMAIN):
            raise web.HTTPNotFound
        await asyncio.sleep(self.latency_s)
        # Azurite finds the account in the host's name; the query is signed, so not a byte changes.
        url = yarl.URL(f"http://127.0.0.1:{self.storage.port}{request.raw_path}", encoded=True)
        headers = {"Host": request.host}
        headers.update(
            {name: request.headers[name] for name in ("Range",) if name in request.headers}
        )
        async with self._upstream.request(request.method, url, headers=headers) as answer:
            body = await answer.read()
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        passed_headers = {
            name: answer.headers[name] for name in _PASSED_ON if name in answer.headers
        }
        if request.method == "HEAD" and "Content-Length" in answer.headers:
            passed_headers["Content-Length"] = answer.headers["Content-Length"]
        return web.Response(status=answer.status, headers=passed_headers, body=body)

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer CONNECT, then carry bytes between the client and the gateway."""
        try:
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(maxsplit=2)
            host = target.rpartition(":")[0]
            if method != "CONNECT" or not (host == PORTAL or host.endswith(BLOB_DOMAIN)):
                self.refused.append(target)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            inner, outer = await asyncio.open_connection("127.0.0.1", self.gateway_port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_carry(reader, outer), _carry(inner, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # one side is gone; closing the other ends its loop, too
    finally:
        writer.close()


@contextmanager
def planetary_computer(
    storage: BlobStorage, items: list[dict[str, Any]], folder: Path
) -> Iterator[PlanetaryComputer]:
    """Serve in a thread until the block ends."""
    trustme = pytest.importorskip("trustme", reason="pip install -e '.[integration]'")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(f"*{BLOB_DOMAIN}", PORTAL).configure_cert(context)
    service = PlanetaryComputer(storage=storage, items=items, authority=folder / "authority.pem")
    authority.cert_pem.write_to_path(str(service.authority))
    with _running(service, context):
        yield service


@contextmanager
def _running(service: PlanetaryComputer, context: ssl.SSLContext) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(service.application(), shutdown_timeout=1)

    async def start() -> asyncio.Server:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        service.gateway_port = runner.addresses[0][1]
        proxy = await asyncio.start_server(service.tunnel, "127.0.0.1", 0)
        service.port = proxy.sockets[0].getsockname()[1]
        return proxy

    async def stop() -> None:
        proxy.close()
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    proxy = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
