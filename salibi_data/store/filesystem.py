"""Files and folders on disk: atomic writes, scratch folders, locks, checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

if TYPE_CHECKING:
    from salibi_data.store.errors import SalibiError

_PARTIAL: Final = ".partial"
"""Suffix of files that are being written."""

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL, errno.ENOSYS)
"""Errors of file systems without locks. NFS also answers EBADF for a file opened read-only."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    A reader sees the old file or the complete new one. If the block raises, the temporary file is
    removed; a killed process leaves it behind as ``.NAME.*.partial``, for :func:`remove_partials`.
    The new file has the mode that the process's umask gives.
    """
    # A random name, not the process id: workers on two machines may share both id and folder.
    partial = path.with_name(f".{path.name}.{uuid4().hex}{_PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as file:
            # Without it a power cut could leave the new name with no content.
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left of :func:`write_atomically` in a folder and below it.

    Only for a folder that no other process is writing to.
    """
    for path in folder.rglob(f"*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Tell whether a file is one that :func:`write_atomically` has not finished."""
    return path.suffix == _PARTIAL


@contextmanager
def hold_lock(path: Path, *, busy: SalibiError) -> Iterator[None]:
    """Hold an exclusive lock until the block ends, or the process, however it ends.

    File systems without locks (some NFS and Lustre mounts) let every process through: refusing to
    work there would help nobody.

    Args:
        path: an existing folder, or a file to lock, which is made if need be.
        busy: error to raise where another process holds the lock.
    """
    import fcntl

    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


class ScratchFolder:
    """A temporary folder that is removed with the object, or at the end of a ``with`` block.

    Args:
        prefix: beginning of the folder's name.
    """

    path: Path

    def __init__(self, prefix: str) -> None:
        self.path = Path(gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
        # Registered before the folder exists: an interrupt at any moment leaves nothing behind.
        self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
