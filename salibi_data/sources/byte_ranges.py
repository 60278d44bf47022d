"""Byte ranges of a file to request: near spans are joined, long ones split."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ByteRange = tuple[int, int]
"""Offsets (start, stop) of bytes in a file."""

MAX_GAP_BYTES: Final = 65_536
"""Longest gap between two spans fetched by one request; a second request would cost more."""
MAX_REQUEST_BYTES: Final = 2_097_152
"""Longest range of one request; longer ones are split and fetched in parallel."""


def plan_requests(spans: Sequence[ByteRange]) -> list[ByteRange]:
    """Return ranges that contain all of these spans, in the file's order and without overlap."""
    runs: list[ByteRange] = []
    for start, stop in sorted(spans):
        if runs and start - runs[-1][1] <= MAX_GAP_BYTES:
            runs[-1] = (runs[-1][0], max(runs[-1][1], stop))
        else:
            runs.append((start, stop))
    return [request for run in runs for request in _split(run)]


def _split(run: ByteRange) -> list[ByteRange]:
    """Split a range into parts of about equal length, none longer than the limit."""
    start, stop = run
    num = max(1, -(-(stop - start) // MAX_REQUEST_BYTES))
    edges = [start + (stop - start) * i // num for i in range(num + 1)]
    return list(pairwise(edges))


def extract(span: ByteRange, bodies: Mapping[ByteRange, bytes]) -> bytes:
    """Cut the bytes of ``span`` out of the requested ranges' bodies, which are in the file's order."""
    start, stop = span
    return b"".join(
        body[max(0, start - requested[0]) : stop - requested[0]]
        for requested, body in bodies.items()
        if requested[0] < stop and start < requested[1]
    )
