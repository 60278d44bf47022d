"""Files that appear whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; it becomes ``path`` when the block ends well.

    Otherwise it is removed; a kill leaves it behind as ``.NAME.*.partial``.
    """
    # Not the process id: workers on two machines may share one, and a folder.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name and no content
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
