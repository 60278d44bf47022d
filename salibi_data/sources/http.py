"""Read byte ranges of files over http(s), with retries, length checks, tokens and deadlines.

GDAL's own client does not retry a truncated body, a stall or a 403, and ignores ``Retry-After``, so
:mod:`salibi_data.sources.gdal` makes GDAL read through this module. ``HTTPS_PROXY``, ``NO_PROXY`` and
``REQUESTS_CA_BUNDLE`` have effect, as in requests.
"""

from __future__ import annotations

import contextvars
import email.utils
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from salibi_data.sources import rate_limits, sas_tokens
from salibi_data.sources.byte_ranges import ByteRange, extract, plan_requests
from salibi_data.sources.rate_limits import HttpSettings, deadline
from salibi_data.store import __version__
from salibi_data.store.errors import ReadError, ReadKind
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from requests import Response, Session

__all__ = ["Counters", "HttpSettings", "RemoteFile", "counters", "deadline", "read_bytes"]

HEADER_BYTES: Final = 32_768
"""Size of the first request: it contains the tag directories of nearly every COG, and its response
states the file's size."""
_MAX_CACHED_CHUNKS: Final = 256
_MIN_DIRECT_BYTES: Final = 8 * HEADER_BYTES
"""Reads from this size on go past the cache of chunks."""
_REFUSED_RETRIES: Final = 2
"""Further attempts after a 403: the token may have expired, and hosts refuse by mistake under load."""

_FINAL: Final = frozenset({"missing", "damaged", "unusable", "token"})
"""Kinds of failure that another attempt cannot mend."""
_CHOKED: Final = frozenset({"throttled", "connection", "timeout"})
"""Kinds of failure that show an overloaded host."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Totals of what this process has read over http(s); ``-`` gives the difference of two."""

    bytes: int = 0
    """Bytes of bodies received."""
    requests: int = 0
    """Requests sent."""
    retries: Mapping[str, int] = field(default_factory=dict)
    """Requests sent again, by the kind of failure."""

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            bytes=self.bytes - earlier.bytes,
            requests=self.requests - earlier.requests,
            retries=dict(Counter(self.retries) - Counter(earlier.retries)),
        )


_counted: Counter[str] = Counter()
_retried: Counter[str] = Counter()
_counting: Final = threading.Lock()


def counters() -> Counters:
    """Return the totals of this process at present."""
    with _counting:
        return Counters(
            bytes=_counted["bytes"], requests=_counted["requests"], retries=dict(_retried)
        )


def _count(**amounts: int) -> None:
    with _counting:
        _counted.update(amounts)


class RemoteFile:
    """One file read by ranges over http(s). The constructor fetches its first 32 KiB.

    Args:
        href: unsigned URL.
        signed: whether to sign requests for blobs of the Planetary Computer with a token.

    Raises:
        ReadError: all attempts failed; from every method.
    """

    def __init__(self, href: str, *, signed: bool = False) -> None:
        self._href = href
        self._container = sas_tokens.container_of(href) if signed else None
        self._host = urlsplit(href).netloc.rpartition("@")[2]
        self._settings = HttpSettings.from_environment()
        self._version: str | None = None
        self._chunks: dict[int, bytes] = {}
        self.size: int = -1
        """Size of the file in bytes."""
        self._header = self._fetch((0, HEADER_BYTES))

    def __repr__(self) -> str:
        return f"RemoteFile({redact(self._href)!r})"

    def read_at(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only at the end of the file."""
        start, stop = min(offset, self.size), min(offset + size, self.size)
        if start == stop:
            return b""
        if stop <= len(self._header):
            return self._header[start:stop]
        if stop - start > _MIN_DIRECT_BYTES:
            return self.read_spans([(start, stop)])[0]
        numbers = range(start // HEADER_BYTES, (stop - 1) // HEADER_BYTES + 1)
        uncached = [number for number in numbers if number not in self._chunks]
        spans = [(n * HEADER_BYTES, min((n + 1) * HEADER_BYTES, self.size)) for n in uncached]
        self._chunks.update(zip(uncached, self.read_spans(spans), strict=True))
        body = b"".join(self._chunks[number] for number in numbers)
        while len(self._chunks) > _MAX_CACHED_CHUNKS:
            del self._chunks[next(iter(self._chunks))]
        return body[start - numbers[0] * HEADER_BYTES :][: stop - start]

    def read_spans(self, spans: Sequence[ByteRange]) -> list[bytes]:
        """Return the bytes of several spans; near ones share a request, and requests run in parallel."""
        if any(stop > self.size for _, stop in spans):
            raise ReadError(f"it ends at byte {self.size}, and refers to later ones")
        ranges = plan_requests(spans)
        bodies = dict(zip(ranges, self._fetch_all(ranges), strict=True))
        return [extract(span, bodies) for span in spans]

    def _fetch_all(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        if len(ranges) <= 1:
            return [self._fetch(span) for span in ranges]
        pool = _pool(os.getpid(), self._settings.parallel)
        # Deadlines are context variables, which threads of a pool do not inherit.
        futures = [
            pool.submit(contextvars.copy_context().run, self._fetch, span) for span in ranges
        ]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _fetch(self, span: ByteRange) -> bytes:
        """Fetch one range, with retries."""
        failures: Counter[ReadKind] = Counter()
        token: sas_tokens.Token | None = None
        while True:
            rate_limits.check_deadline()
            token = self._token(token if failures["forbidden"] else None)
            answer = self._request(span, token)
            if isinstance(answer, bytes):
                return answer
            failures[answer.kind] += 1
            self._wait_or_raise(answer, failures)

    def _token(self, rejected: sas_tokens.Token | None) -> sas_tokens.Token | None:
        if self._container is None:
            return None
        return sas_tokens.get_token(*self._container, rejected.digest if rejected else None)

    def _wait_or_raise(self, failure: _Failure, failures: Counter[ReadKind]) -> None:
        """Wait until the next attempt may start, or raise if there is to be none."""
        num, settings = failures.total(), self._settings
        pause_s = failure.retry_after_s
        exhausted = num >= settings.attempts or failures["forbidden"] > _REFUSED_RETRIES
        if failure.kind in _FINAL or exhausted or (pause_s or 0) > settings.retry_after_max_s:
            times = f" ({num} attempts)" if num > 1 else ""
            raise ReadError(f"{failure.reason}{times}", kind=failure.kind)
        with _counting:
            _retried[failure.kind] += 1
        if pause_s is not None:
            rate_limits.check_deadline(pause_s, after=failure.reason)
            rate_limits.pause_everywhere(self._host, pause_s)
        rate_limits.sleep(settings.backoff(num), after=failure.reason)

    @property
    def _limit(self) -> rate_limits.HostLimit:
        return rate_limits.host_limit(self._host, int(self._settings.parallel))

    def _request(self, span: ByteRange, token: sas_tokens.Token | None) -> bytes | _Failure:
        """Send one request under the host's limit; return the body, or a failure.

        The libraries' exceptions must not leave this method, not even as the cause of another one:
        their messages contain the signed URL.
        """
        import requests
        import urllib3

        since, choked = self._limit.acquire(), False
        answer: bytes | _Failure
        try:
            answer = self._ask(span, token)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            answer = _Failure(kind="unusable", reason="its address is not one")
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            answer = _Failure(kind="timeout", reason="the host stalled")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            reason = f"the connection failed ({type(error).__name__})"
            answer = _Failure(kind="connection", reason=reason)
        except BaseException:
            choked = True
            raise
        finally:
            # Even KeyboardInterrupt must release the slot, or the host's limit would shrink for good.
            choked = choked or (isinstance(answer, _Failure) and answer.kind in _CHOKED)
            self._limit.release(since, choked=choked)
        return answer

    def _ask(self, span: ByteRange, token: sas_tokens.Token | None) -> bytes | _Failure:
        settings = self._settings
        _count(requests=1)
        response = _session(os.getpid()).get(
            sas_tokens.sign(self._href, token) if token else self._href,
            headers={"Range": f"bytes={span[0]}-{span[1] - 1}"},
            stream=True,
            timeout=(
                max(0.001, min(settings.connect_timeout_s, rate_limits.remaining_s())),
                max(0.001, min(settings.timeout_s, rate_limits.remaining_s())),
            ),
        )
        try:
            if response.status_code != 206:  # noqa: PLR2004
                return _status_failure(response)
            return self._body(span, response)
        finally:
            response.close()

    def _body(self, span: ByteRange, response: Response) -> bytes | _Failure:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if match is None:
            return _Failure(kind="unusable", reason="the host does not state the file's size")
        first, last, size = (int(group) for group in match.groups())
        version = response.headers.get("ETag")
        if self.size < 0:
            self.size, self._version = size, version
        elif (size, version) != (self.size, self._version):
            return _Failure(kind="damaged", reason="it was replaced while it was being read")
        expected = min(span[1], self.size) - span[0]
        if (first, last + 1) != (span[0], span[0] + expected):
            return _Failure(kind="connection", reason="the host sent another range")
        body = bytearray()
        while len(body) < expected:
            rate_limits.check_deadline()
            chunk = response.raw.read(min(expected - len(body), 262_144), decode_content=False)
            if not chunk:
                return _Failure(kind="connection", reason="the body was cut short")
            body += chunk
            _count(bytes=len(chunk))
        return bytes(body)


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Outcome of a request without a usable body."""

    kind: ReadKind
    reason: str
    retry_after_s: float | None = None


_KINDS: Final[Mapping[int, ReadKind]] = {
    401: "forbidden",
    403: "forbidden",
    404: "missing",
    408: "timeout",
    410: "missing",
    416: "damaged",
    429: "throttled",
    503: "throttled",
}


def classify_status(status: int) -> ReadKind:
    """Return the kind of failure that an HTTP status of 400 or more means."""
    return _KINDS.get(status, "server" if status >= 500 else "unusable")  # noqa: PLR2004


def _status_failure(response: Response) -> _Failure:
    """Return the failure that a status other than 206 means."""
    status = response.status_code
    if status == 200:  # noqa: PLR2004
        return _Failure(kind="unusable", reason="the host serves whole files only, not ranges")
    kind = classify_status(status)
    return _Failure(kind=kind, reason=f"HTTP {status}", retry_after_s=_retry_after(response))


def _retry_after(response: Response) -> float | None:
    """Return the seconds of pause that the host asks for, as a number or a date; RFC 9110, 10.2.3."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    until = _date(text)
    if until is None:
        return None
    # Measured by the host's own clock where it sends one: this machine's may be wrong.
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # The zone "-0000" means UTC (RFC 5322, 3.3); the parser returns it without a zone.
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def read_bytes(href: str, *, signed: bool = False) -> bytes:
    """Return the content of a small file, such as an item's metadata.

    Raises:
        ReadError: all attempts failed.
    """
    file = RemoteFile(href, signed=signed)
    return file.read_at(0, file.size)


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    del pid  # part of the key only: threads do not survive a fork
    return ThreadPoolExecutor(int(threads), thread_name_prefix="salibi-http")


@cache
def _session(pid: int) -> Session:
    del pid  # part of the key only: two processes must not share a connection
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=64, pool_maxsize=64, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": f"salibi/{__version__}", "Accept-Encoding": "identity"})
    # urllib3 logs the path of every request at level DEBUG, with its signature.
    logging.getLogger("urllib3.connectionpool").addFilter(_unsigned)
    return session


def _unsigned(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, int | float) else redact(str(argument))
            for argument in record.args
        )
    return True
