"""Connections of a process to web servers, and a time limit for whole requests.

The timeouts of requests and urllib3 limit the wait for the next bytes: a host that sends a byte every
few seconds never exceeds them. :func:`cut_off` limits the request from its first byte to its last.
"""

from __future__ import annotations

import math
import socket
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from salibi_data.store import __version__
from salibi_data.store.redaction import redact_requests_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Session
    from requests.adapters import HTTPAdapter


class _Watch:
    """Sockets of one request, shut down when its time is over."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self.is_over = False
        self._lock = threading.Lock()

    def add(self, connection: socket.socket | None) -> None:
        with self._lock:
            if connection is not None:
                self._sockets.append(connection)
        if self.is_over:
            self.end()

    def end(self) -> None:
        with self._lock:
            self.is_over = True
            for connection in self._sockets:
                with suppress(OSError):
                    # Closing would not wake a thread that waits for bytes; this does.
                    connection.shutdown(socket.SHUT_RDWR)


_WATCH: ContextVar[_Watch | None] = ContextVar("salibi_watched_request", default=None)


@contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """End the connections of all requests in the block after some time.

    Raises:
        OSError: the time was over.
    """
    if math.isinf(seconds):
        yield
        return
    watch = _Watch()
    timer = threading.Timer(max(0.0, seconds), watch.end)
    timer.daemon = True
    reset = _WATCH.set(watch)
    timer.start()
    try:
        yield
        if watch.is_over:  # headers that end early are headers to http.client
            raise TimeoutError
    finally:
        timer.cancel()
        _WATCH.reset(reset)


def _watched_adapter() -> HTTPAdapter:
    """Return an adapter whose connections :func:`cut_off` can end, through a proxy or not."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class WatchedConnection(HTTPConnection):
        def getresponse(self) -> Any:
            watch(self)
            return super().getresponse()

    class WatchedTlsConnection(HTTPSConnection):
        def getresponse(self) -> Any:
            watch(self)
            return super().getresponse()

    def watch(connection: HTTPConnection) -> None:
        request = _WATCH.get()
        if request is not None:
            request.add(connection.sock)

    class WatchedPool(HTTPConnectionPool):
        ConnectionCls = WatchedConnection

    class WatchedTlsPool(HTTPSConnectionPool):
        ConnectionCls = WatchedTlsConnection

    def use_watched_pools(manager: Any) -> None:
        manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedTlsPool}

    class WatchedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            use_watched_pools(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **options)
            use_watched_pools(manager)
            return manager

    return WatchedAdapter(pool_connections=64, pool_maxsize=64, max_retries=0)


@cache
def session(pid: int) -> Session:
    """Return the session of a process, given its id: processes must not share a connection."""
    from requests import Session

    del pid  # part of the key only
    made = Session()
    adapter = _watched_adapter()
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    # Ranges of a compressed body are no ranges of the file.
    made.headers.update({"User-Agent": f"salibi/{__version__}", "Accept-Encoding": "identity"})
    redact_requests_log()
    return made
