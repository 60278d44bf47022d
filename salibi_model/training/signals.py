"""Signals by which schedulers ask a run to stop: noted, for it to end where nothing is lost."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM ends a job; Slurm announces the end of its time with SIGUSR1, as ``--signal`` asks."""

_SAME_REQUEST_S: Final = 5.0
"""SIGTERMs this close together are one: who ends a whole job reaches each process both by itself
and through ``torchrun``, which hands the signal on."""


class StopSignals:
    """Notes SIGTERM and SIGUSR1 while it is open, instead of dying of them.

    Another SIGTERM, five seconds later or more, acts as it would outside: who sends it does not
    want to wait. Signals can be noted in the main thread only
    (https://docs.python.org/3/library/signal.html); in another, nothing is noted and nothing changes.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        """Number of the first signal that came, ``None`` as long as none has."""
        self._before: dict[int, Any] = {}
        self._first_term_s: float | None = None
        self._pid = 0

    def __enter__(self) -> "StopSignals":  # noqa: PYI034 - the tests' type checks know no Self
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: a handler that was not set from Python, and cannot be set from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # A forked child has this handler, too, but nothing there asks what was noted. Slurm sends
        # SIGUSR1 to all processes of a job: a child goes on until its parent ends it.
        is_child = os.getpid() != self._pid
        if number == signal.SIGTERM and (is_child or self._is_impatient()):
            self.__exit__()
            os.kill(os.getpid(), number)
        elif self.requested is None:
            self.requested = number

    def _is_impatient(self) -> bool:
        """Whether a SIGTERM that came now is more than the first one over again."""
        now_s = time.monotonic()
        if self._first_term_s is None:
            self._first_term_s = now_s
        return now_s - self._first_term_s >= _SAME_REQUEST_S
