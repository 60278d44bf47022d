"""Ranges of files behind http(s): retried, checked for length, renewed tokens, bounded in time.

GDAL's own client does not retry a truncated body, a stall or a 403, and does not obey Retry-After;
so :mod:`salibi_data.sources.gdal` has GDAL read through this one. ``HTTPS_PROXY``, ``NO_PROXY`` and
``REQUESTS_CA_BUNDLE`` are obeyed, as requests does.
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

from salibi_data.sources import rate_limits as limits
from salibi_data.sources import sas_tokens as tokens
from salibi_data.sources.byte_ranges import ByteRange, cut, to_fetch
from salibi_data.sources.rate_limits import HttpSettings, deadline
from salibi_data.store import __version__
from salibi_data.store.errors import ReadError, ReadKind
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from requests import Response, Session

__all__ = ["Counters", "HttpSettings", "RemoteFile", "counters", "deadline", "read_bytes"]

HEADER_BYTES: Final = 32_768
"""Fetched first: the directories of nearly every COG, and the file's size by the way."""
_KEPT_CHUNKS: Final = 256
_DIRECT_BYTES: Final = 8 * HEADER_BYTES
_REFUSALS: Final = 2
"""A 403 is tried again so often: with a new token, or because hosts do err."""

_FINAL: Final = frozenset({"missing", "damaged", "unusable", "token"})
_CHOKED: Final = frozenset({"throttled", "connection", "timeout"})


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What this process has had from http(s) hosts so far; differences by ``-``."""

    bytes: int = 0
    requests: int = 0
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
    """A snapshot of what this process has read."""
    with _counting:
        return Counters(
            bytes=_counted["bytes"], requests=_counted["requests"], retries=dict(_retried)
        )


def _count(**amounts: int) -> None:
    with _counting:
        _counted.update(amounts)


class RemoteFile:
    """One file behind http(s), read by ranges. Opening it asks for its first 32 KiB.

    Args:
        href: unsigned.
        signed: whether blobs of the Planetary Computer get a token.

    Raises:
        ReadError: with the kind of what went wrong, after all attempts; from every method.
    """

    def __init__(self, href: str, *, signed: bool = False) -> None:
        self._href = href
        self._container = tokens.container_of(href) if signed else None
        self._host = urlsplit(href).netloc.rpartition("@")[2]
        self._settings = HttpSettings.from_environment()
        self._version: str | None = None
        self._chunks: dict[int, bytes] = {}
        self.size: int = -1
        """Bytes in the file."""
        self._header = self._fetch((0, HEADER_BYTES))

    def __repr__(self) -> str:
        return f"RemoteFile({redact(self._href)!r})"

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; less only at the end of the file."""
        start, stop = min(offset, self.size), min(offset + size, self.size)
        if start == stop:
            return b""
        if stop <= len(self._header):
            return self._header[start:stop]
        if stop - start > _DIRECT_BYTES:
            return self.read_spans([(start, stop)])[0]
        numbers = range(start // HEADER_BYTES, (stop - 1) // HEADER_BYTES + 1)
        absent = [number for number in numbers if number not in self._chunks]
        spans = [(n * HEADER_BYTES, min((n + 1) * HEADER_BYTES, self.size)) for n in absent]
        self._chunks.update(zip(absent, self.read_spans(spans), strict=True))
        found = b"".join(self._chunks[number] for number in numbers)
        while len(self._chunks) > _KEPT_CHUNKS:
            del self._chunks[next(iter(self._chunks))]
        return found[start - numbers[0] * HEADER_BYTES :][: stop - start]

    def read_spans(self, spans: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of several spans: near ones together, several requests at a time."""
        if any(stop > self.size for _, stop in spans):
            raise ReadError(f"it ends at byte {self.size}, and refers to later ones")
        pieces = to_fetch(spans)
        got = dict(zip(pieces, self._fetch_all(pieces), strict=True))
        return [cut(span, got) for span in spans]

    def _fetch_all(self, pieces: Sequence[ByteRange]) -> list[bytes]:
        if len(pieces) <= 1:
            return [self._fetch(piece) for piece in pieces]
        pool = _pool(os.getpid(), self._settings.parallel)
        # Deadlines are context variables, which threads of a pool do not inherit.
        waiting = [
            pool.submit(contextvars.copy_context().run, self._fetch, piece) for piece in pieces
        ]
        try:
            return [future.result() for future in waiting]
        finally:
            for future in waiting:
                future.cancel()

    def _fetch(self, span: ByteRange) -> bytes:
        """One range, as often as it takes."""
        failures: Counter[ReadKind] = Counter()
        token: tokens.Token | None = None
        while True:
            limits.check()
            token = self._token(token if failures["forbidden"] else None)
            answer = self._request(span, token)
            if isinstance(answer, bytes):
                return answer
            failures[answer.kind] += 1
            self._go_on_after(answer, failures)

    def _token(self, rejected: tokens.Token | None) -> tokens.Token | None:
        if self._container is None:
            return None
        return tokens.token(*self._container, rejected.digest if rejected else None)

    def _go_on_after(self, failure: _Failure, failures: Counter[ReadKind]) -> None:
        """Wait as long as is fit before the next attempt, or raise."""
        num, settings = failures.total(), self._settings
        pause_s = failure.retry_after_s
        tired = num >= settings.attempts or failures["forbidden"] > _REFUSALS
        if failure.kind in _FINAL or tired or (pause_s or 0) > settings.retry_after_max_s:
            times = f" ({num} attempts)" if num > 1 else ""
            raise ReadError(f"{failure.reason}{times}", kind=failure.kind)
        with _counting:
            _retried[failure.kind] += 1
        if pause_s is not None:
            limits.check(pause_s, after=failure.reason)
            limits.pause(self._host, pause_s)
        limits.sleep(settings.backoff(num), after=failure.reason)

    @property
    def _limit(self) -> limits.HostLimit:
        return limits.host_limit(self._host, int(self._settings.parallel))

    def _request(self, span: ByteRange, token: tokens.Token | None) -> bytes | _Failure:
        """One request under the host's limit. Nothing of the libraries' errors leaves this.

        Their messages hold the signed URL, and so would the chain of whatever is raised here.
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
            # Whatever else breaks in must not keep the place for ever.
            choked = choked or (isinstance(answer, _Failure) and answer.kind in _CHOKED)
            self._limit.release(since, choked=choked)
        return answer

    def _ask(self, span: ByteRange, token: tokens.Token | None) -> bytes | _Failure:
        settings = self._settings
        _count(requests=1)
        response = _session(os.getpid()).get(
            tokens.sign(self._href, token) if token else self._href,
            headers={"Range": f"bytes={span[0]}-{span[1] - 1}"},
            stream=True,
            timeout=(
                max(0.001, min(settings.connect_timeout_s, limits.remaining_s())),
                max(0.001, min(settings.timeout_s, limits.remaining_s())),
            ),
        )
        try:
            if response.status_code != 206:  # noqa: PLR2004
                return _refused(response)
            return self._body(span, response)
        finally:
            response.close()

    def _body(self, span: ByteRange, response: Response) -> bytes | _Failure:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if match is None:
            return _Failure(kind="unusable", reason="the host does not tell the file's size")
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
            limits.check()
            part = response.raw.read(min(expected - len(body), 262_144), decode_content=False)
            if not part:
                return _Failure(kind="connection", reason="the body was cut short")
            body += part
            _count(bytes=len(part))
        return bytes(body)


@dataclass(frozen=True, kw_only=True)
class _Failure:
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


def kind_of_status(status: int) -> ReadKind:
    """What an HTTP status of 400 or more says of a file."""
    return _KINDS.get(status, "server" if status >= 500 else "unusable")  # noqa: PLR2004


def _refused(response: Response) -> _Failure:
    """What a status other than 206 means."""
    status = response.status_code
    if status == 200:  # noqa: PLR2004
        return _Failure(kind="unusable", reason="the host serves whole files only, not ranges")
    kind = kind_of_status(status)
    return _Failure(kind=kind, reason=f"HTTP {status}", retry_after_s=_retry_after(response))


def _retry_after(response: Response) -> float | None:
    """Seconds the host asks to be left alone, from a number or a date; RFC 9110, 10.2.3."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    until = _date(text)
    if until is None:
        return None
    # By the host's own clock, if it tells: this machine's may be wrong.
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # The zone -0000 is UTC of a place unknown, which the parser gives without a zone.
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def read_bytes(href: str, *, signed: bool = False) -> bytes:
    """A whole small file, such as an item's metadata; Raises as :class:`RemoteFile` does."""
    file = RemoteFile(href, signed=signed)
    return file.read_at(0, file.size)


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    del pid  # threads do not survive a fork, so every process has a pool of its own
    return ThreadPoolExecutor(int(threads), thread_name_prefix="salibi-http")


@cache
def _session(pid: int) -> Session:
    del pid  # nor may two processes share a connection
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=64, pool_maxsize=64, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": f"salibi/{__version__}", "Accept-Encoding": "identity"})
    # urllib3 logs every request's path at level DEBUG, signature and all.
    logging.getLogger("urllib3.connectionpool").addFilter(_unsigned)
    return session


def _unsigned(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, int | float) else redact(str(argument))
            for argument in record.args
        )
    return True
