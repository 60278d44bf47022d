"""Build slow fixtures once for all processes of a test run."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills once in a run; whoever comes later waits and shares it.

    Workers of pytest-xdist have temporary folders beside each other. A failed ``make`` leaves
    nothing behind, so that the next one who asks meets the same failure.

    Args:
        factory: the session's.
        name: of the folder, unlike all others of the run.
        make: writes into the empty folder that it is given. Nobody writes to it afterwards.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "once" / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.parent / f"{name}.done"
        if not done.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
            done.touch()
    return folder
