"""A small web server of one page, on this machine."""

from __future__ import annotations

import hashlib
import ipaddress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote, urlsplit

from salibi_data.store.errors import SalibiError, UsageError

if TYPE_CHECKING:
    from salibi_data.viewer.site import Site


class Server(ThreadingHTTPServer):
    """Serves a site until :meth:`shutdown`; one thread per connection."""

    daemon_threads = True
    block_on_close = False  # a browser holds connections open for as long as it likes
    request_queue_size = 64

    def __init__(self, site: Site, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen at ``host`` and ``port``; 0 is any free port.

        Raises:
            UsageError: the port is taken or not allowed, or the host is not this machine's.
        """
        self.site = site
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"cannot listen at {host}:{port} ({reason}); choose another --port, or 0 for a free "
                "one."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return _is_loopback(str(self.server_address[0]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what fails for a browser that went away is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the site; never reads a path of the disk."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "salibi"
    sys_version = ""
    timeout: ClassVar[float] = 60
    """Seconds a silent connection may hold a thread."""

    def do_GET(self) -> None:
        """Give what is at a path."""
        if not self._is_for_us():
            self._answer(HTTPStatus.FORBIDDEN)
            return
        path = unquote(urlsplit(self.path).path).lstrip("/")
        site = self.server.site
        of_the_store = site.is_of_the_store(path)
        etag = f'"{site.digest}"'
        # Tiles need not be drawn to know that they are the same.
        if of_the_store and self._is_known(etag):
            self._answer(HTTPStatus.NOT_MODIFIED, etag=etag)
            return
        try:
            found = site.get(path)
        except (SalibiError, OSError, ValueError) as error:
            self.log_error("%s", error)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if found is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        if not of_the_store:
            etag = f'"{hashlib.sha256(found.body).hexdigest()[:24]}"'
            if self._is_known(etag):
                self._answer(HTTPStatus.NOT_MODIFIED, etag=etag)
                return
        self._answer(HTTPStatus.OK, found.body, found.content_type, etag)

    do_HEAD = do_GET  # noqa: N815 - the base's name

    def _is_known(self, etag: str) -> bool:
        return etag in self.headers.get("If-None-Match", "")

    def _is_for_us(self) -> bool:
        """Whether the browser means this server: a foreign name that points here is turned away."""
        if not self.server.is_local:
            return True
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        return name == "localhost" or _is_loopback(name)

    def _answer(
        self, status: HTTPStatus, body: bytes = b"", content_type: str = "", etag: str = ""
    ) -> None:
        if status >= HTTPStatus.BAD_REQUEST:
            body, content_type = f"{status} {status.phrase}\n".encode(), "text/plain"
        self.send_response(status)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Cache-Control", "no-cache")  # keep it, and ask whether it is the same
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command == "GET" and status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """Requests are not logged."""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
