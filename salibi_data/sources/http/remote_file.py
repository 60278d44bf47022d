"""Read one file by byte ranges over http(s), with retries, tokens and deadlines."""

from __future__ import annotations

import contextvars
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final

from salibi_data.sources import rate_limits, sas_tokens
from salibi_data.sources.byte_ranges import ByteRange, extract, plan_requests
from salibi_data.sources.http import traffic
from salibi_data.sources.http.range_requests import RangeRequests
from salibi_data.sources.rate_limits import HttpSettings
from salibi_data.store.errors import ReadError, ReadKind
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from salibi_data.sources.http.answers import Failure

HEADER_BYTES: Final = 32_768
"""Size of the first request: it contains the tag directories of nearly every COG, and its response
states the file's size."""
_MAX_CACHED_CHUNKS: Final = 256
_MIN_DIRECT_BYTES: Final = 8 * HEADER_BYTES
"""Reads from this size on go past the cache of chunks."""
_FEW_RETRIES: Final = 2
"""Further attempts after a 403, as the token may have expired and hosts refuse by mistake under load;
and after other answers of which caches and proxies give single ones."""
_UNPROVEN_RETRIES: Final = 4
"""Further attempts to get an answer that states the file's version."""

_FINAL: Final = frozenset({"missing", "damaged", "unusable", "token"})
"""Kinds of failure that another attempt cannot mend."""
_EXPIRED: Final = frozenset({"forbidden", "missing", "unusable"})
"""Kinds of failure that a signed address gives when its time is over."""


class RemoteFile:
    """One file read by ranges over http(s). The constructor fetches its first 32 KiB.

    All bytes are of one version of the file, as far as the host states versions; see
    :class:`~salibi_data.sources.http.answers.FileVersion`. A small file is taken whole where the host
    sends no ranges.

    Args:
        href: unsigned URL.
        signed: whether to sign requests for blobs of the Planetary Computer with a token.

    Raises:
        ReadError: all attempts failed; from every method.
    """

    def __init__(self, href: str, *, signed: bool = False) -> None:
        self._href = href
        self._settings = HttpSettings.from_environment()
        self._requests = RangeRequests(href, signed=signed, settings=self._settings)
        self._chunks: dict[int, bytes] = {}
        self._header = self._fetch((0, HEADER_BYTES))

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._requests.size

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
        """Fetch one range, with retries; a host may send it in several parts."""
        with rate_limits.deadline(self._settings.total_s):
            body = self._fetch_part(span)
            while len(body) < min(span[1], self.size) - span[0]:
                body += self._fetch_part((span[0] + len(body), span[1]))
        return body

    def _fetch_part(self, span: ByteRange) -> bytes:
        """Fetch the first bytes of a range, at least one, with retries."""
        failures: Counter[ReadKind] = Counter()
        num_unproven, may_have_expired = 0, True
        token: sas_tokens.Token | None = None
        address = self._requests.address
        while True:
            rate_limits.check_deadline()
            token = self._token(token if failures["forbidden"] else None)
            redirected = address.redirected
            is_last = num_unproven >= _UNPROVEN_RETRIES
            answer = self._requests.request(span, token, takes_unproven=is_last)
            if isinstance(answer, bytes):
                return answer
            if answer.is_unproven:
                num_unproven += 1
                continue
            if redirected is not None and address.redirected == redirected:
                # A signed address may have expired: the original redirects to a new one.
                address.redirected = None
                if answer.kind in _EXPIRED and may_have_expired:
                    may_have_expired = False
                    continue
            failures[answer.kind] += 1
            self._wait_or_raise(answer, failures)

    def _token(self, rejected: sas_tokens.Token | None) -> sas_tokens.Token | None:
        if self._requests.address.container is None:
            return None
        return sas_tokens.get_token(
            *self._requests.address.container, rejected.digest if rejected else None
        )

    def _wait_or_raise(self, failure: Failure, failures: Counter[ReadKind]) -> None:
        """Wait until the next attempt may start, or raise if there is to be none."""
        num, settings = failures.total(), self._settings
        pause_s = failure.retry_after_s
        is_final = failure.kind in _FINAL and not failure.may_pass
        if failure.kind == "forbidden" or failure.may_pass:
            is_final = is_final or failures[failure.kind] > _FEW_RETRIES
        if (
            is_final
            or num >= settings.attempts
            or (pause_s is not None and pause_s > settings.retry_after_max_s)
        ):
            times = f" ({num} attempts)" if num > 1 else ""
            raise ReadError(f"{failure.reason}{times}", kind=failure.kind)
        traffic.count_retry(failure.kind)
        if pause_s is not None:
            rate_limits.check_deadline(pause_s, after=failure.reason)
            rate_limits.pause_everywhere(self._requests.host, pause_s)
        rate_limits.sleep(settings.backoff(num), after=failure.reason)


def read_bytes(href: str, *, signed: bool = False) -> bytes:
    """Return the content of a small file, such as an item's metadata.

    Raises:
        ReadError: all attempts failed.
    """
    for num_retries in range(_FEW_RETRIES + 1):
        try:
            file = RemoteFile(href, signed=signed)
            return file.read_at(0, file.size)
        except ReadError as error:
            # It may have been replaced while it was being read.
            if error.kind != "damaged" or num_retries == _FEW_RETRIES:
                raise
    raise AssertionError


@cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    del pid  # part of the key only: threads do not survive a fork
    return ThreadPoolExecutor(int(threads), thread_name_prefix="salibi-http")
