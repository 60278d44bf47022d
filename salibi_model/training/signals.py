"""Record the signals by which schedulers ask a run to stop, so that it ends between steps."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Final

import torch

from salibi_model import distributed

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM ends a job; Slurm announces the end of a job's time with SIGUSR1 (``--signal``)."""

_REPEAT_WINDOW_S: Final = 5.0
"""SIGTERMs within this time count as one: a scheduler that ends a job reaches each process
directly, and again through ``torchrun``, which passes the signal on."""


class StopSignals:
    """Context that records SIGTERM and SIGUSR1 instead of ending the process.

    Another SIGTERM, five seconds later or more, ends the process as usual: its sender does not
    want to wait. Python handles signals in the main thread only
    (https://docs.python.org/3/library/signal.html); in another thread the context has no effect.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        """Number of the first signal received; ``None`` before any."""
        self._old_handlers: dict[int, Any] = {}
        self._first_term_s: float | None = None
        self._pid = 0

    def __enter__(self) -> "StopSignals":  # noqa: PYI034 - the tests' type checks know no Self
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._old_handlers = {
                number: signal.signal(number, self._record) for number in STOP_SIGNALS
            }
        return self

    def __exit__(self, *_: object) -> None:
        while self._old_handlers:
            number, handler = self._old_handlers.popitem()
            # None is a handler that was not set from Python; Python cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        # A forked child inherits this handler, but never reads `requested`. Slurm sends SIGUSR1 to
        # all processes of a job: a child ignores it, and continues until its parent ends it.
        is_child = os.getpid() != self._pid
        if number == signal.SIGTERM and (is_child or self._is_impatient()):
            self.__exit__()
            os.kill(os.getpid(), number)
        elif self.requested is None:
            self.requested = number

    def _is_impatient(self) -> bool:
        """Tell whether a SIGTERM now is a second request, not a copy of the first."""
        now_s = time.monotonic()
        if self._first_term_s is None:
            self._first_term_s = now_s
        return now_s - self._first_term_s >= _REPEAT_WINDOW_S


def agree_on_signal(requested: int | None, device: torch.device) -> int:
    """Give the signal that any process of the group received; 0 for none.

    All processes call it, and all get the same answer.
    """
    received = torch.tensor([float(requested == number) for number in STOP_SIGNALS], device=device)
    shares = distributed.mean_over_ranks(received).tolist()
    return next((int(n) for n, share in zip(STOP_SIGNALS, shares, strict=True) if share), 0)
