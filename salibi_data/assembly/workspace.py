"""The folder beside a store in which it is made: its lock, its plan, its parts, its failures.

``X.zarr.building/`` holds ``plan.parquet``, a part per finished block, a note per failed block, and the
store as it is put together. Every file in it appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.filesystem import hold_lock, write_atomically
from salibi_data.store.validation import read_record

SEEN_WITHIN_S: Final = 10.0
"""Longer than network file systems keep in mind that a file was not there."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A block that could not be made."""

    tile: str
    """Its first tile, ``zoom/column/row``."""
    kind: str
    """As of :class:`~salibi_data.store.errors.ReadError`, or ``killed``."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """The folder in which a store is made."""

    folder: Path

    @classmethod
    def of(cls, store: Path) -> Workshop:
        """The workshop of ``store``.

        Raises:
            UsageError: the path has no last part to name a store by.
        """
        if not store.name:
            raise UsageError(f"{str(store)!r} names no store; give a path such as data/micro.zarr.")
        return cls(folder=store.with_name(f"{store.name}.building"))

    @property
    def plan(self) -> Path:
        """The plan being built."""
        return self.folder / "plan.parquet"

    @property
    def parts(self) -> Path:
        """Folder of finished blocks."""
        return self.folder / "parts"

    @property
    def failures(self) -> Path:
        """Folder of notes on failed blocks."""
        return self.folder / "failures"

    def part(self, digest: str) -> Path:
        """File of a finished block."""
        return self.parts / f"{digest}.arrow"

    def failure(self, digest: str) -> Path:
        """File of a failed block's reason."""
        return self.failures / f"{digest}.json"

    def touched(self, digest: str) -> bool:
        """Whether a block was made, or failed."""
        return self.part(digest).exists() or self.failure(digest).exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workshop; the lock goes with the process, however it ends.

        Raises:
            StoreError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        busy = StoreError(
            f"another build is at work in {self.folder}; wait for it, or stop it first."
        )
        with hold_lock(self.folder / "lock", busy=busy):
            yield

    def read_failures(self) -> list[Failure]:
        """Failed blocks, in order of their tiles."""
        notes = (_failure(path) for path in self.failures.glob("[!.]*.json"))
        return sorted(filter(None, notes), key=lambda failure: failure.tile)

    def clear(self, store: Path) -> None:
        """Remove all that building ``store`` left; renamed first, so that no half is found."""
        self.folder.replace(self.folder.with_name(f".{self.folder.name}.{os.getpid()}.old"))
        retired = (f".{store.name}.", f".{self.folder.name}.")
        for old in store.parent.iterdir():
            if old.name.startswith(retired) and old.suffix == ".old":
                shutil.rmtree(old, ignore_errors=True)


def _failure(path: Path) -> Failure | None:
    """The note at a path; None for a file that is none of ours."""
    try:
        return read_record(Failure, json.loads(path.read_text()))
    except ValueError:
        return None


def seen(path: Path) -> Path:
    """``path``, once this machine sees it: another one has just written it to a shared disk.

    A network file system may answer from memory that a file is not there; looking at the whole
    folder makes it ask again. After :data:`SEEN_WITHIN_S` the path is given back all the same.
    """
    end = time.monotonic() + SEEN_WITHIN_S
    while not path.exists() and time.monotonic() < end:
        any(path.parent.iterdir())
        time.sleep(0.2)
    return path


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; the file appears whole or not at all."""
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(content))
