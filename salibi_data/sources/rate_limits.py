"""Bounds on asking other people's servers: settings, deadlines, and how many requests at a time."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PREFIX: Final = "SALIBI_HTTP_"


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How remote files are asked for. ``SALIBI_HTTP_<FIELD>`` in the environment overrides each."""

    attempts: int = 8
    """Requests for one range until it is given up."""
    backoff_s: float = 0.5
    """Mean of the first wait is half of this; every further one is twice as long."""
    backoff_max_s: float = 60.0
    connect_timeout_s: float = 15.0
    timeout_s: float = 30.0
    """A connection that brings nothing for so long has stalled."""
    parallel: int = 16
    """At most so many requests at a time to one host, by all workers of a cluster together; but
    every process may have one."""
    retry_after_max_s: float = 900.0
    """A host that asks to be left alone for longer is given up."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"{_PREFIX}{field.name.upper()} is {value}; expected a number above 0."
                )

    @classmethod
    def from_environment(cls) -> HttpSettings:
        """The defaults, with what the environment overrides.

        Raises:
            UsageError: a variable is not a number above 0.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            name = f"{_PREFIX}{field.name.upper()}"
            text = os.environ.get(name)
            if text is None:
                continue
            try:
                found[field.name] = int(text) if isinstance(field.default, int) else float(text)
            except ValueError:
                raise UsageError(f"{name} is {text!r}; expected a number above 0.") from None
        return cls(**found)

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures: exponential with full jitter.

        Workers that failed together must not come back together; see Brooker, "Exponential
        Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        return random.uniform(0, min(self.backoff_max_s, self.backoff_s * 2.0 ** (failures - 1)))


_END: ContextVar[tuple[float, float] | None] = ContextVar("salibi_deadline", default=None)
"""(moment on the monotonic clock, seconds that were given) of the innermost deadline."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound all reading inside, waits and retries included; of nested ones the earliest counts.

    A body that trickles in is left within one stall time-out after the deadline.

    Raises:
        ReadError: of kind ``timeout``, by whatever is being read when it passes.
    """
    end = (time.monotonic() + seconds, seconds)
    outer = _END.get()
    reset = _END.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _END.reset(reset)


def remaining_s() -> float:
    """Seconds until the deadline; infinite where there is none."""
    end = _END.get()
    return math.inf if end is None else end[0] - time.monotonic()


def check(wait_s: float = 0.0, *, after: str = "") -> None:
    """Raise if the deadline has passed, or will have after a wait of ``wait_s``."""
    end = _END.get()
    if end is not None and time.monotonic() + wait_s >= end[0]:
        reason = f" (last: {after})" if after else ""
        raise ReadError(f"not done within its {end[1]:g} s{reason}", kind="timeout")


def sleep(seconds: float, *, after: str = "") -> None:
    """Sleep, or raise at once if the deadline would pass meanwhile."""
    check(seconds, after=after)
    time.sleep(seconds)


class HostLimit:
    """How many requests one process has at one host at a time: its share of the cluster's.

    One more per round while all goes well, half as many when the host chokes: additive increase,
    multiplicative decrease, as TCP does (Chiu and Jain, 1989).
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._allowed = max(1.0, most / 2)
        self._active = 0
        self._resumes_at = 0.0
        self._halved_at = 0.0
        self._changed = threading.Condition()

    @property
    def allowed(self) -> int:
        """Requests allowed at a time at present."""
        return int(min(self._allowed, self.most))

    def pause(self, seconds: float) -> None:
        """Begin no request for so long, as the host asked."""
        with self._changed:
            self._resumes_at = max(self._resumes_at, time.monotonic() + seconds)

    def acquire(self) -> float:
        """Wait for a place; the moment it was given, for :meth:`release`."""
        with self._changed:
            while True:
                pause_s = self._resumes_at - time.monotonic()
                if pause_s <= 0 and self._active < self.allowed:
                    self._active += 1
                    return time.monotonic()
                check(max(0.0, pause_s), after="waiting for the host")
                wait_s = min(remaining_s(), pause_s if pause_s > 0 else math.inf)
                self._changed.wait(wait_s if math.isfinite(wait_s) else None)

    def release(self, since: float, *, choked: bool) -> None:
        """Give the place back; ``choked``: the host refused, broke off or stalled."""
        with self._changed:
            self._active -= 1
            if not choked:
                self._allowed = min(float(self.most), self._allowed + 1 / self._allowed)
            elif since >= self._halved_at:
                # Requests that were under way together fail together: that is one sign, not many.
                self._allowed = max(1.0, self._allowed / 2)
                self._halved_at = time.monotonic()
            self._changed.notify_all()


_limits: dict[str, HostLimit] = {}
_shares: dict[str, float] = {}
_tell: dict[str, Callable[[str, float], None]] = {}
_limits_lock: Final = threading.Lock()


def host_limit(host: str, most: int) -> HostLimit:
    """The limit that all requests of this process to one host share.

    Args:
        host: its name, with the port if it has one.
        most: requests at a time by all processes that work together.
    """
    with _limits_lock:
        own = max(1, int(most * min(1.0, sum(_shares.values())))) if _shares else most
        limit = _limits.setdefault(host, HostLimit(own))
        limit.most = own
        return limit


def set_share(who: str, share: float | None) -> None:
    """Let this process have a share (0..1) of the requests, for a worker in it; None: it ended."""
    with _limits_lock:
        if share is None:
            _shares.pop(who, None)
        else:
            _shares[who] = share


def tell_pauses(who: str, tell: Callable[[str, float], None] | None) -> None:
    """Call ``tell`` with (host, seconds) for every pause that a host asks for; None: no longer."""
    with _limits_lock:
        if tell is None:
            _tell.pop(who, None)
        else:
            _tell[who] = tell


def hold(host: str, seconds: float) -> None:
    """Begin no request to a host for so long, in this process."""
    host_limit(host, HttpSettings.from_environment().parallel).pause(seconds)


def pause(host: str, seconds: float) -> None:
    """As :func:`hold`, and in all processes that work together."""
    hold(host, seconds)
    with _limits_lock:
        listeners = list(_tell.values())
    for tell in listeners:
        tell(host, seconds)
