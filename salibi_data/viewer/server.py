"""Serves the page from a small web server on this machine."""

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
    """Web server of a site, with one thread per connection.

    Args:
        site: site to serve.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.

    Raises:
        UsageError: the port is taken or not allowed, or the host is not this machine's.
    """

    daemon_threads = True
    # Do not wait for connections at the end: browsers keep them open.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, site: Site, *, host: str = "127.0.0.1", port: int = 0) -> None:
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
        """Address of the page."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(str(self.server_address[0]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: browsers often close a connection before the answer is complete."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from the site; no request is turned into a path on disk."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "salibi"
    sys_version = ""
    timeout: ClassVar[float] = 60
    """Seconds after which a silent connection is closed, so that its thread ends."""

    def do_GET(self) -> None:
        """Answer with the content of a path."""
        if not self._names_this_server():
            self._answer(HTTPStatus.FORBIDDEN)
            return
        path = unquote(urlsplit(self.path).path).lstrip("/")
        site = self.server.site
        is_fixed = site.is_fixed_by_digest(path)
        etag = f'"{site.digest}"'
        # Checked first: an unchanged tile need not be drawn.
        if is_fixed and self._is_cached(etag):
            self._answer(HTTPStatus.NOT_MODIFIED, etag=etag)
            return
        try:
            resource = site.get(path)
        except (SalibiError, OSError, ValueError) as error:
            self.log_error("%s", error)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if resource is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        if not is_fixed:
            etag = f'"{hashlib.sha256(resource.body).hexdigest()[:24]}"'
            if self._is_cached(etag):
                self._answer(HTTPStatus.NOT_MODIFIED, etag=etag)
                return
        self._answer(HTTPStatus.OK, resource.body, resource.content_type, etag)

    do_HEAD = do_GET  # noqa: N815 - the base's name

    def _is_cached(self, etag: str) -> bool:
        """Whether the browser already has the content with this tag."""
        return etag in self.headers.get("If-None-Match", "")

    def _names_this_server(self) -> bool:
        """Whether the Host header names this machine."""
        if not self.server.is_local:
            return True
        # DNS rebinding: a foreign site can point its own name at 127.0.0.1 to read the store.
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
        # "no-cache" lets browsers keep the content, but they must ask whether it has changed.
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command == "GET" and status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
