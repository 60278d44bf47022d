"""Totals of what this process has read over http(s)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


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


def count(*, bytes: int = 0, requests: int = 0) -> None:  # noqa: A002
    """Add to the totals."""
    with _counting:
        _counted.update(bytes=bytes, requests=requests)


def count_retry(kind: str) -> None:
    """Count a request that is sent again after a failure of some kind."""
    with _counting:
        _retried[kind] += 1
