"""Interpret answers of web servers: the version of a file, the range sent, and failures."""

from __future__ import annotations

import email.utils
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from salibi_data.store.errors import ReadKind

Headers = Mapping[str, str]
"""Headers of an answer, by names in any case."""

_CODING_SUFFIX: Final = re.compile(r"[-;:]{1,2}(x-)?(gzip|gz|br|deflate|zstd)$", re.IGNORECASE)
"""What servers append to an entity tag when they compress: Apache ``-gzip``, Jetty ``--gzip``."""
_CONTENT_RANGE: Final = re.compile(
    r"\s*bytes\s*[ =:]\s*(\d+)\s*-\s*(\d+)\s*/\s*(\d+|\*)\s*", re.IGNORECASE
)
_UNSATISFIED_RANGE: Final = re.compile(r"\s*bytes\s*[ =:]\s*\*\s*/\s*(\d+)\s*", re.IGNORECASE)
_ZLIB_GZIP: Final = 32 + zlib.MAX_WBITS
"""Argument of ``zlib.decompressobj``: a gzip or zlib header, whichever is there."""


@dataclass(frozen=True, kw_only=True)
class FileVersion:
    """What an answer states about the version of a file, apart from its size."""

    tag: str = ""
    """Entity tag without quotes, weakness and suffix of a content coding; empty if unknown."""
    is_weak: bool = False
    """Whether equal tags promise equal content, not equal bytes; RFC 9110, 8.8.1."""
    modified: str = ""
    """Time of the last modification as sent; empty if unknown."""

    @classmethod
    def of(cls, headers: Headers) -> FileVersion:
        """Read the version from an answer's headers."""
        tag, is_weak = parse_tag(headers.get("ETag", ""))
        return cls(tag=tag, is_weak=is_weak, modified=headers.get("Last-Modified", "").strip())

    @property
    def is_known(self) -> bool:
        """Whether there is any evidence."""
        return bool(self.tag or self.modified)

    def is_same(self, other: FileVersion) -> bool | None:
        """Compare with the version in another answer; None where nothing can be compared.

        Tags are compared weakly (RFC 9110, 8.8.3.2): caches and compressing proxies turn the tag of
        an unchanged file from strong to weak. Where one is weak, the times must agree as well.
        """
        times_differ = bool(
            self.modified and other.modified and not _same_time(self.modified, other.modified)
        )
        if self.tag and other.tag:
            is_strong = not (self.is_weak or other.is_weak)
            return self.tag == other.tag and (is_strong or not times_differ)
        if self.modified and other.modified:
            return not times_differ
        return None

    def merged(self, other: FileVersion) -> FileVersion:
        """Add what another answer about the same version states."""
        return FileVersion(
            tag=self.tag or other.tag,
            is_weak=self.is_weak if self.tag else other.is_weak,
            modified=self.modified or other.modified,
        )


def parse_tag(text: str) -> tuple[str, bool]:
    """Return what identifies the content in an entity tag, and whether it is weak.

    ``"x"``, ``W/"x"``, ``"x-gzip"``, ``W/"x--gzip"`` and ``"x"-gzip`` identify the same content.
    """
    tag = text.strip()
    is_weak = tag[:2].upper() == "W/"
    tag = tag[2:].strip() if is_weak else tag
    while True:
        shorter = _CODING_SUFFIX.sub("", tag)
        if len(shorter) > 1 and shorter[0] == shorter[-1] == '"':
            shorter = shorter[1:-1]
        elif shorter == tag:
            return tag, is_weak
        is_weak = is_weak or bool(_CODING_SUFFIX.search(tag))
        tag = shorter


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Outcome of a request without a usable body."""

    kind: ReadKind
    reason: str
    retry_after_s: float | None = None
    may_pass: bool = False
    """Whether a few further attempts are worth it, though the kind is one that stays."""
    is_unproven: bool = False
    """Whether the body would be usable, if the answer stated its version."""


def content_range(headers: Headers) -> tuple[int, int, int | None] | None:
    """Return (start, stop, size of the file) of a 206; the size is None where it is not stated.

    None where the header is missing, or contradicts itself.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    size = None if match[3] == "*" else int(match[3])
    if stop <= start or (size is not None and size < stop):
        return None
    return start, stop, size


def unsatisfied_size(headers: Headers) -> int | None:
    """Return the size of the file that a 416 states."""
    match = _UNSATISFIED_RANGE.fullmatch(headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def content_length(headers: Headers) -> int | None:
    """Return the length of the body in bytes, as sent."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if text.isdigit() else None


def content_coding(headers: Headers) -> str:
    """Return the coding of the body, such as ``gzip``; empty where it is sent as it is."""
    coding = headers.get("Content-Encoding", "").strip().lower()
    return "" if coding in ("identity", "binary", "none") else coding


def is_compressed(body: bytes) -> bool:
    """Return whether a body begins like a gzip or zlib stream."""
    return body[:2] in (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")


def decompress(body: bytes, max_bytes: int) -> bytes | None:
    """Return the content of a whole gzip or zlib stream; None for anything else, or a longer one."""
    decoder = zlib.decompressobj(_ZLIB_GZIP)
    try:
        content = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        return None
    return content if decoder.eof and len(content) <= max_bytes else None


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
    """Return the kind of failure that an HTTP status of 300 or more means."""
    return _KINDS.get(status, "server" if status >= 500 else "unusable")  # noqa: PLR2004


def status_failure(status: int, headers: Headers) -> Failure:
    """Return the failure that a status without the file means."""
    is_redirect = 300 <= status < 400  # noqa: PLR2004
    reason = f"HTTP {status}" + (", which names no other address" if is_redirect else "")
    return Failure(
        kind=classify_status(status), reason=reason, retry_after_s=_retry_after_s(headers)
    )


def _retry_after_s(headers: Headers) -> float | None:
    """Return the seconds of pause that the host asks for, as a number or a date; RFC 9110, 10.2.3."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    until = _date(text)
    if until is None:
        return None
    # Measured by the host's own clock where it sends one: this machine's may be wrong.
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _same_time(text: str, other: str) -> bool:
    """Return whether two dates are equal, in whichever of HTTP's formats they are."""
    time, other_time = _date(text), _date(other)
    return text == other if time is None or other_time is None else time == other_time


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    # The zone "-0000" means UTC (RFC 5322, 3.3); the parser returns it without a zone.
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
