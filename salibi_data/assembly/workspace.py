"""The folder beside a store in which it is made, with its lock, plan, parts and failures.

``X.zarr.building/`` contains ``plan.parquet``, a part per finished block, a JSON file per failed block,
and the unfinished store. Every file is written atomically.
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

VISIBLE_WITHIN_S: Final = 10.0
"""Longest wait for a file, longer than network file systems cache that it did not exist."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A block that could not be made."""

    tile: str
    """First tile of the block, ``zoom/column/row``."""
    kind: str
    """Kind of a :class:`~salibi_data.store.errors.ReadError`, or ``killed``, or ``lost``."""
    reason: str
    """Message for people."""


@dataclass(frozen=True, kw_only=True)
class BuildWorkspace:
    """The folder in which a store is made."""

    folder: Path
    """Path of the folder."""

    @classmethod
    def of(cls, store: Path) -> BuildWorkspace:
        """Return the workspace of the store at a path; neither needs to exist.

        Raises:
            UsageError: the path has no last part to name a store by.
        """
        if not store.name:
            raise UsageError(f"{str(store)!r} names no store; give a path such as data/micro.zarr.")
        return cls(folder=store.with_name(f"{store.name}.building"))

    @property
    def plan(self) -> Path:
        """File of the plan that is being built."""
        return self.folder / "plan.parquet"

    @property
    def parts(self) -> Path:
        """Folder of the parts, which are finished blocks."""
        return self.folder / "parts"

    @property
    def failures(self) -> Path:
        """Folder of the failed blocks' files."""
        return self.folder / "failures"

    def part(self, digest: str) -> Path:
        """Return the file of a finished block."""
        return self.parts / f"{digest}.arrow"

    def failure(self, digest: str) -> Path:
        """Return the file of a failed block."""
        return self.failures / f"{digest}.json"

    def was_tried(self, digest: str) -> bool:
        """Return whether a block was made or has failed."""
        return self.part(digest).exists() or self.failure(digest).exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace's lock, which ends with the process, however that ends.

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
        """Return the failed blocks, in order of their tiles."""
        failures = (_read_failure(path) for path in self.failures.glob("[!.]*.json"))
        return sorted(filter(None, failures), key=lambda failure: failure.tile)

    def remove(self, store: Path) -> None:
        """Remove all temporary files of the store's builds.

        The folder is renamed first, so that no build finds it half removed.
        """
        self.folder.replace(self.folder.with_name(f".{self.folder.name}.{os.getpid()}.old"))
        retired = (f".{store.name}.", f".{self.folder.name}.")
        for old in store.parent.iterdir():
            if old.name.startswith(retired) and old.suffix == ".old":
                shutil.rmtree(old, ignore_errors=True)


def _read_failure(path: Path) -> Failure | None:
    """Read a failure; return None for a file that this software did not write."""
    try:
        return read_record(Failure, json.loads(path.read_text()))
    except ValueError:
        return None


def wait_until_visible(path: Path) -> Path:
    """Wait until this machine sees a file that another one has written to a shared disk; return it.

    A network file system may answer from its cache that a file does not exist; listing the folder
    makes it ask the server again. After :data:`VISIBLE_WITHIN_S` the path is returned anyway.
    """
    end = time.monotonic() + VISIBLE_WITHIN_S
    while not path.exists() and time.monotonic() < end:
        any(path.parent.iterdir())
        time.sleep(0.2)
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(content))
