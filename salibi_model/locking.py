"""One process at a time in a folder that is being written."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from salibi_model.errors import UsageError

_NOT_OFFERED = (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL, errno.ENOSYS)
"""What file systems say that have no locks: nothing is held there, and nobody is kept away."""


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder``, which is made if need be, until the end; the lock goes with the process.

    Args:
        folder: where ``what`` writes.
        what: what is done there, for the message: ``training``.

    Raises:
        UsageError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process is {what} in {folder}; wait for it or stop it, or give another "
                "--out."
            ) from error
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        yield
    finally:
        os.close(handle)
