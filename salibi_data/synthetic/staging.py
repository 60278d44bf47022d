"""Gives a new folder its content in one step, through a locked sibling folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import hold_lock


@contextlib.contextmanager
def staging_folder(directory: Path) -> Iterator[Path]:
    """Yield an empty, hidden sibling of ``directory``; remove it unless the caller renames it.

    The operating system releases the lock when the process ends. The next run can therefore clear
    what a killed run left, but never the files of a run that is still working.

    Raises:
        UsageError: another run holds the folder.
    """
    target = directory.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.partial"
    staging.mkdir(exist_ok=True)
    busy = UsageError(f"another run is writing {directory}; wait for it, or give another folder.")
    with hold_lock(staging, busy=busy):
        try:
            _clear(staging)
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
