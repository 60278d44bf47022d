"""Limits on requests to other people's servers: settings, deadlines, and parallel requests per host."""

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
    """Settings of requests for remote files; ``SALIBI_HTTP_<FIELD>`` in the environment overrides."""

    attempts: int = 8
    """Attempts to fetch one range before it is given up."""
    backoff_s: float = 0.5
    """Longest first wait after a failure; it doubles with every further one."""
    backoff_max_s: float = 60.0
    """Longest wait after a failure."""
    connect_timeout_s: float = 15.0
    """Seconds to establish a connection."""
    timeout_s: float = 30.0
    """Seconds without any data after which a connection counts as stalled."""
    total_s: float = 1800.0
    """Seconds to fetch one range, with all attempts and pauses."""
    parallel: int = 16
    """Maximum of parallel requests to one host by all workers of a cluster; each process may always
    have one."""
    retry_after_max_s: float = 900.0
    """Longest pause that a host may ask for (``Retry-After``) before it is given up."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"{_PREFIX}{field.name.upper()} is {value}; expected a number above 0."
                )

    @classmethod
    def from_environment(cls) -> HttpSettings:
        """Return the defaults with the environment's overrides.

        Raises:
            UsageError: a variable is not a number above 0.
        """
        overrides: dict[str, Any] = {}
        for field in fields(cls):
            name = f"{_PREFIX}{field.name.upper()}"
            text = os.environ.get(name)
            if text is None:
                continue
            try:
                overrides[field.name] = int(text) if isinstance(field.default, int) else float(text)
            except ValueError:
                raise UsageError(f"{name} is {text!r}; expected a number above 0.") from None
        return cls(**overrides)

    def backoff(self, failures: int) -> float:
        """Return the seconds to wait after a number of failures: exponential with full jitter.

        Workers that failed together must not retry together; see Brooker, "Exponential
        Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        return random.uniform(0, min(self.backoff_max_s, self.backoff_s * 2.0 ** (failures - 1)))


_END: ContextVar[tuple[float, float] | None] = ContextVar("salibi_deadline", default=None)
"""Earliest deadline in force: (moment on the monotonic clock, its seconds, for messages)."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit the time of all reading in the block, waits and retries included.

    Of nested deadlines the earliest counts. It also ends a request whose answer arrives slowly.

    Raises:
        ReadError: the deadline passed during a read; of kind ``timeout``.
    """
    end = (time.monotonic() + seconds, seconds)
    outer = _END.get()
    reset = _END.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _END.reset(reset)


def remaining_s() -> float:
    """Return the seconds until the deadline; infinite where there is none."""
    end = _END.get()
    return math.inf if end is None else end[0] - time.monotonic()


def check_deadline(wait_s: float = 0.0, *, after: str = "") -> None:
    """Raise if the deadline has passed, or will have passed after a wait.

    Args:
        wait_s: seconds of the wait that is about to begin.
        after: last failure, for the message.

    Raises:
        ReadError: of kind ``timeout``.
    """
    end = _END.get()
    if end is not None and time.monotonic() + wait_s >= end[0]:
        reason = f" (last: {after})" if after else ""
        raise ReadError(f"not done within its {end[1]:g} s{reason}", kind="timeout")


def sleep(seconds: float, *, after: str = "") -> None:
    """Sleep, or raise at once if the deadline would pass before the end."""
    check_deadline(seconds, after=after)
    time.sleep(seconds)


class HostLimit:
    """Limit of one process's parallel requests to one host, adapted to how the host answers.

    It grows by one per round of successes and halves when the host is overloaded: additive
    increase, multiplicative decrease, as in TCP. Source: Chiu and Jain, "Analysis of the increase
    and decrease algorithms for congestion avoidance in computer networks" (1989).
    """

    def __init__(self, max_requests: int) -> None:
        self.max_requests = max_requests
        # Half of the limit to begin with: a host that is already busy is not hit by all of it.
        self._allowed = max(1.0, max_requests / 2)
        self._active = 0
        self._resumes_at = 0.0
        self._halved_at = 0.0
        self._changed = threading.Condition()

    @property
    def allowed(self) -> int:
        """Parallel requests allowed at present."""
        return int(min(self._allowed, self.max_requests))

    def pause(self, seconds: float) -> None:
        """Start no request for a number of seconds."""
        with self._changed:
            self._resumes_at = max(self._resumes_at, time.monotonic() + seconds)

    def acquire(self) -> float:
        """Wait until a request may start; return the moment, for :meth:`release`."""
        with self._changed:
            while True:
                pause_s = self._resumes_at - time.monotonic()
                if pause_s <= 0 and self._active < self.allowed:
                    self._active += 1
                    return time.monotonic()
                check_deadline(max(0.0, pause_s), after="waiting for the host")
                wait_s = min(remaining_s(), pause_s if pause_s > 0 else math.inf)
                self._changed.wait(wait_s if math.isfinite(wait_s) else None)

    def release(self, since: float, *, choked: bool) -> None:
        """Report the end of a request.

        Args:
            since: what :meth:`acquire` returned.
            choked: whether the host refused, broke off or stalled.
        """
        with self._changed:
            self._active -= 1
            if not choked:
                self._allowed = min(float(self.max_requests), self._allowed + 1 / self._allowed)
            elif since >= self._halved_at:
                # Requests in flight at the same time fail together: they count as one failure.
                self._allowed = max(1.0, self._allowed / 2)
                self._halved_at = time.monotonic()
            self._changed.notify_all()


_limits: dict[str, HostLimit] = {}
_shares: dict[str, float] = {}
_pause_listeners: dict[str, Callable[[str, float], None]] = {}
_limits_lock: Final = threading.Lock()


def host_limit(host: str, max_requests: int) -> HostLimit:
    """Return the limit that all requests of this process to one host share.

    Args:
        host: name of the host, with the port if it has one.
        max_requests: parallel requests by all processes of a cluster.
    """
    with _limits_lock:
        own = max_requests
        if _shares:
            # At least one, since a process without any request would never finish its block.
            own = max(1, int(max_requests * min(1.0, sum(_shares.values()))))
        limit = _limits.setdefault(host, HostLimit(own))
        limit.max_requests = own
        return limit


def set_share(worker: str, share: float | None) -> None:
    """Give this process a share of the cluster's requests on behalf of a worker in it.

    Args:
        worker: address of the worker; the shares of several workers add up.
        share: between 0 and 1; None when the worker ends.
    """
    with _limits_lock:
        if share is None:
            _shares.pop(worker, None)
        else:
            _shares[worker] = share


def set_pause_listener(worker: str, listener: Callable[[str, float], None] | None) -> None:
    """Call a function with (host, seconds) for every pause that a host asks for.

    Args:
        worker: address of the worker that listens.
        listener: function that may be called from any thread; None removes it.
    """
    with _limits_lock:
        if listener is None:
            _pause_listeners.pop(worker, None)
        else:
            _pause_listeners[worker] = listener


def pause_here(host: str, seconds: float) -> None:
    """Start no request to a host for a number of seconds, in this process."""
    host_limit(host, HttpSettings.from_environment().parallel).pause(seconds)


def pause_everywhere(host: str, seconds: float) -> None:
    """Start no request to a host for a number of seconds, in all processes of a cluster."""
    pause_here(host, seconds)
    with _limits_lock:
        # Listeners are called outside the lock: they may wait for the scheduler.
        listeners = list(_pause_listeners.values())
    for listener in listeners:
        listener(host, seconds)
