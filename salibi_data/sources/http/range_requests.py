"""Requests for byte ranges of one file, and what their answers are worth."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from salibi_data.sources import rate_limits
from salibi_data.sources.http import traffic
from salibi_data.sources.http.address import Address
from salibi_data.sources.http.answers import (
    Failure,
    FileVersion,
    content_coding,
    content_length,
    content_range,
    decompress,
    is_compressed,
    status_failure,
    unsatisfied_size,
)

if TYPE_CHECKING:
    from requests import Response

    from salibi_data.sources.byte_ranges import ByteRange
    from salibi_data.sources.rate_limits import HttpSettings
    from salibi_data.sources.sas_tokens import Token

WHOLE_FILE_BYTES: Final = 8 << 20
"""Largest file that is taken whole from a host that does not send ranges."""
_MAX_SKIPPED_BYTES: Final = 1 << 20
"""Most bytes before the range asked for that are read over."""
_CHOKED: Final = frozenset({"throttled", "connection", "timeout"})
"""Kinds of failure that show an overloaded host."""

_EMPTY: Final = Failure(kind="damaged", reason="it is empty")
_CUT_SHORT: Final = Failure(kind="connection", reason="the body was cut short")
_REPLACED: Final = Failure(kind="damaged", reason="it was replaced while it was being read")
_UNPROVEN: Final = Failure(
    kind="connection", reason="the host does not state the file's version", is_unproven=True
)
_LATE_VERSION: Final = Failure(
    kind="damaged", reason="the host stated the file's version only after a part had been read"
)

_stating_hosts: Final[set[str]] = set()
"""Hosts that have stated versions of files: an answer of theirs without one is asked for again."""


class RangeRequests:
    """Requests for ranges of one file. All bodies are of one version, as far as the host states it.

    Args:
        href: unsigned http(s) URL.
        signed: whether to sign requests for blobs of the Planetary Computer with a token.
        settings: time limits and parallel requests.
    """

    def __init__(self, href: str, *, signed: bool, settings: HttpSettings) -> None:
        self.host = urlsplit(href).netloc.rpartition("@")[2]
        """Host and port of the file, which limits of requests are for."""
        self.address = Address(href, signed=signed, settings=settings)
        self.size: int = -1
        """Size of the file in bytes; negative until the first answer."""
        self._max_parallel = int(settings.parallel)
        self._version = FileVersion()
        self._version_lock = threading.Lock()
        self._takes_unproven = False
        self._whole: bytes | None = None

    def request(
        self, span: ByteRange, token: Token | None, *, takes_unproven: bool
    ) -> bytes | Failure:
        """Send one request under the host's limit; return the body, or a failure.

        Args:
            span: range to ask for; the body may be its beginning only.
            token: token for the address's container.
            takes_unproven: whether to use this and later answers even if they do not state the
                file's version.

        The libraries' exceptions must not leave this method, not even as the cause of another one:
        their messages contain the signed URL.
        """
        import requests
        import urllib3

        from salibi_data.sources.http.session import cut_off

        if self._whole is not None:
            return self._whole[span[0] : span[1]]
        self._takes_unproven = self._takes_unproven or takes_unproven
        limit = rate_limits.host_limit(self.host, self._max_parallel)
        since, choked = limit.acquire(), False
        answer: bytes | Failure
        try:
            with cut_off(rate_limits.remaining_s()):
                answer = self._ask(span, token)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            answer = Failure(kind="timeout", reason="the host stalled")
        except ValueError:  # requests.exceptions.InvalidURL and others, which are of OSError too
            answer = Failure(kind="unusable", reason="its address is not one")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            reason = f"the connection failed ({type(error).__name__})"
            answer = Failure(kind="connection", reason=reason)
        except BaseException:
            choked = True
            raise
        finally:
            # Even KeyboardInterrupt must release the slot, or the host's limit would shrink for good.
            if not choked and isinstance(answer, Failure):
                choked = answer.kind in _CHOKED and not answer.is_unproven
            limit.release(since, choked=choked)
        return answer

    def _ask(self, span: ByteRange, token: Token | None) -> bytes | Failure:
        """Send one request for a range and interpret the answer."""
        byte_range: str | None = f"bytes={span[0]}-{span[1] - 1}"
        while True:
            exchange = self.address.get(byte_range, token)
            if isinstance(exchange, Failure):
                return exchange
            url, response = exchange
            try:
                if response.status_code == 416 and byte_range is not None:  # noqa: PLR2004
                    size = unsatisfied_size(response.headers)
                    if self.size >= 0 and size not in (None, self.size):
                        return _REPLACED
                    if self.size >= 0:
                        return status_failure(416, response.headers)
                    if size == 0:
                        return _EMPTY
                    # Some hosts refuse a range that ends after the file, against RFC 9110, 14.1.2.
                    clipped = f"bytes={span[0]}-{size - 1}" if size and size < span[1] else None
                    byte_range = None if byte_range == clipped else clipped
                    continue
                answer = self._interpret(span, response, token)
            finally:
                response.close()
            if isinstance(answer, bytes):
                self.address.keep(url)
            return answer

    def _interpret(
        self, span: ByteRange, response: Response, token: Token | None
    ) -> bytes | Failure:
        if response.status_code == 206:  # noqa: PLR2004
            return self._part(span, response, token)
        if response.status_code == 200:  # noqa: PLR2004
            return self._whole_file(span, response)
        return status_failure(response.status_code, response.headers)

    def _part(self, span: ByteRange, response: Response, token: Token | None) -> bytes | Failure:
        """Return the first bytes of the range from a 206."""
        stated = content_range(response.headers)
        if stated is None:
            reason = "the host does not state the range that it sends"
            return Failure(kind="unusable", reason=reason, may_pass=True)
        start, stop, size = stated
        if not start <= span[0] < stop or span[0] - start > _MAX_SKIPPED_BYTES:
            return Failure(kind="connection", reason="the host sent another range")
        coding = content_coding(response.headers)
        if coding and size not in (None, self.size) and self.size >= 0:
            return _compressed(coding)
        if size is None and self.size < 0:
            size = self._ask_size(token) or (stop if stop < span[1] else None)
            if size is None:
                return Failure(kind="unusable", reason="the host does not state the file's size")
        if coding:
            body = self._decoded(start, stop, coding, response)
        else:
            body = self._read(response, min(stop, span[1]) - start)
        if isinstance(body, Failure):
            return body
        failure = self._check_version(size, FileVersion.of(response.headers))
        return failure or body[span[0] - start : span[1] - start]

    def _ask_size(self, token: Token | None) -> int | None:
        """Ask for the last byte, whose range tells the size of the file."""
        exchange = self.address.get("bytes=-1", token)
        if isinstance(exchange, Failure):
            return None
        _, response = exchange
        response.close()
        if response.status_code == 200 and not content_coding(response.headers):  # noqa: PLR2004
            return content_length(response.headers)
        stated = content_range(response.headers)
        return stated[1] if stated is not None and stated[1] - stated[0] == 1 else None

    def _decoded(self, start: int, stop: int, coding: str, response: Response) -> bytes | Failure:
        """Return bytes ``start`` to ``stop`` of an answer that is said to be compressed.

        The host was asked not to compress. If it did so to the range on its way, the range is
        what its stream contains; if the file itself was compressed, no range of it can be used; and
        files are also labelled so by mistake.
        """
        # Streams of what is compressed already are some bytes longer than it.
        limit = (stop - start) + (stop - start) // 1000 + 1024
        body = self._read(response, limit, may_be_shorter=True)
        if isinstance(body, Failure):
            return body
        content = decompress(body, stop - start)
        if content is not None and len(content) == stop - start:
            return content
        is_part = len(body) == stop - start and not (start == 0 and is_compressed(body))
        return body if is_part else _compressed(coding)

    def _whole_file(self, span: ByteRange, response: Response) -> bytes | Failure:
        """Take the whole file, if it is small, from a host that ignored the range."""
        length = content_length(response.headers)
        stated = length if self.size < 0 else self.size
        if stated is not None and stated > WHOLE_FILE_BYTES:
            return _too_large(stated)
        body = self._read(response, WHOLE_FILE_BYTES + 1, may_be_shorter=True)
        if isinstance(body, Failure):
            return body
        if len(body) > WHOLE_FILE_BYTES:
            return _too_large(length)
        if length is not None and len(body) < length:
            return _CUT_SHORT
        coding = content_coding(response.headers)
        if coding and is_compressed(body):  # else the file is only labelled so
            content = decompress(body, WHOLE_FILE_BYTES)
            if content is None:
                return _compressed(coding)
            body = content
        failure = _EMPTY if not body else _page(body, response)
        failure = failure or self._check_version(len(body), FileVersion.of(response.headers))
        if failure is None:
            self._whole = body
        return failure or body[span[0] : span[1]]

    def _read(
        self, response: Response, num_bytes: int, *, may_be_shorter: bool = False
    ) -> bytes | Failure:
        """Read a body, or its first bytes, as they are sent."""
        body = bytearray()
        while len(body) < num_bytes:
            rate_limits.check_deadline()
            # `read` would wait for all of the bytes, however slowly they come.
            chunk = response.raw.read1(min(num_bytes - len(body), 262_144), decode_content=False)
            if not chunk:
                return bytes(body) if may_be_shorter else _CUT_SHORT
            body += chunk
            traffic.count(bytes=len(chunk))
        return bytes(body)

    def _check_version(self, size: int | None, version: FileVersion) -> Failure | None:
        """Compare what an answer states about the file with the answers before, and keep it."""
        with self._version_lock:
            is_first = self.size < 0
            is_same = self._version.is_same(version)
            if is_same is False or not (is_first or size in (None, self.size)):
                return _REPLACED
            if is_same is None and not self._takes_unproven:
                is_expected = self._version.is_known or (is_first and self.host in _stating_hosts)
                if is_expected and not (is_first and version.is_known):
                    return _UNPROVEN
            if version.is_known:
                _stating_hosts.add(self.host)
                if not (is_first or self._version.is_known or self._takes_unproven):
                    return _LATE_VERSION
            self._version = self._version.merged(version)
            if size is not None:
                self.size = size
        return None


def _page(body: bytes, response: Response) -> Failure | None:
    """Return the failure that a web page in place of a file means."""
    is_page = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if not (is_page and body.lstrip()[:1] == b"<"):
        return None
    reason = "the host sent a web page and not the file, which may need a login"
    return Failure(kind="forbidden", reason=reason)


def _compressed(coding: str) -> Failure:
    reason = (
        f"the host compresses it ({coding}), though asked not to, so that its ranges are useless"
    )
    return Failure(kind="unusable", reason=reason, may_pass=True)


def _too_large(num_bytes: int | None) -> Failure:
    size = "more" if num_bytes is None else f"{num_bytes / 1e6:.0f} MB"
    reason = (
        f"the host serves whole files only, not ranges; it takes files of up to "
        f"{WHOLE_FILE_BYTES / 1e6:.0f} MB whole, and this one has {size}"
    )
    return Failure(kind="unusable", reason=reason, may_pass=True)
