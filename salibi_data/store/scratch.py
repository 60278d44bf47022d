"""Folders for what nobody asked to keep."""

from __future__ import annotations

import secrets
import shutil
import weakref
from pathlib import Path
from tempfile import gettempdir
from typing import Self


class ScratchFolder:
    """A folder among the temporary files that goes with the object, or at the end of a ``with``.

    Its removal is arranged before it is made: an interrupt at any moment leaves nothing behind.

    Args:
        prefix: how its name begins.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()
