"""Which ranges of a file to ask for: near ones together, long ones in pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ByteRange = tuple[int, int]
"""Offsets (start, stop) of bytes in a file."""

GAP_BYTES: Final = 65_536
"""Spans no further apart are fetched as one: a request costs more than so many bytes."""
PIECE_BYTES: Final = 2_097_152
"""Longer ones are fetched in pieces, side by side."""


def to_fetch(spans: Sequence[ByteRange]) -> list[ByteRange]:
    """Pieces that hold all of these spans, in the file's order and without overlap."""
    runs: list[ByteRange] = []
    for start, stop in sorted(spans):
        if runs and start - runs[-1][1] <= GAP_BYTES:
            runs[-1] = (runs[-1][0], max(runs[-1][1], stop))
        else:
            runs.append((start, stop))
    return [piece for run in runs for piece in _split(run)]


def _split(run: ByteRange) -> list[ByteRange]:
    """Pieces of about equal length, none longer than the limit."""
    start, stop = run
    num = max(1, -(-(stop - start) // PIECE_BYTES))
    edges = [start + (stop - start) * i // num for i in range(num + 1)]
    return list(pairwise(edges))


def cut(span: ByteRange, got: Mapping[ByteRange, bytes]) -> bytes:
    """The bytes of ``span`` out of the pieces that hold it, which are in the file's order."""
    start, stop = span
    return b"".join(
        got[piece][max(0, start - piece[0]) : stop - piece[0]]
        for piece in got
        if piece[0] < stop and start < piece[1]
    )
