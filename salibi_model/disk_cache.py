"""Bytes of published datasets kept on this machine, up to a bound, for the epochs to come.

Only releases are kept: they never change, so nothing here can be out of date. Processes may share a
folder. Set ``SALIBI_CACHE`` to a folder, and ``SALIBI_CACHE_GB`` to its bound (default 50).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

DEFAULT_GB = 50.0

_KEPT = 0.9
"""Share of the bound that is left after the oldest were removed."""
_CHECKED = 0.05
"""After so much of the bound was added by a process, it looks whether there is too much."""
_DIGEST_BYTES = hashlib.sha256().digest_size


class DiskCache:
    """Pieces of files in a folder, by name; those not used for longest are removed."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._added = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._shrink()

    def read(self, name: str) -> bytes | None:
        """Give what is kept by a name; ``None`` where nothing whole is."""
        path = self._path(name)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, piece = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return piece if hashlib.sha256(piece).digest() == digest else None

    def write(self, name: str, piece: bytes) -> None:
        """Keep a piece; a full disk keeps none, and is no error."""
        path = self._path(name)
        partial = path.with_name(f".{uuid4().hex}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(hashlib.sha256(piece).digest() + piece)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            return
        self._added += len(piece) + _DIGEST_BYTES
        if self._added > _CHECKED * self._max_bytes:
            self._shrink()

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / digest[:2] / digest

    def _shrink(self) -> None:
        """Remove the pieces that were not used for longest, if there are too many."""
        self._added = 0
        found = []
        for path in self._folder.glob("??/*"):
            try:
                stat = path.stat()
            except OSError:  # another process removed it
                continue
            found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        # Each process may add as much as it does not look after.
        if total <= (1 - _CHECKED) * self._max_bytes:
            return
        for _, size, path in sorted(found):
            if total <= _KEPT * self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


class CachedRelease(WrapperStore[Store]):
    """Storage of a release of which what was read once is kept on disk."""

    def __init__(self, store: Store, cache: DiskCache, release: str) -> None:
        """Set up.

        Args:
            store: where the release is.
            cache: where pieces are kept.
            release: SHA-256 of its manifest: equal ones are equal bytes.
        """
        super().__init__(store)
        self._cache, self._release = cache, release

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Give bytes of a file; ``None`` where there is none."""
        name = f"{self._release} {key} {byte_range}"
        kept = await asyncio.to_thread(self._cache.read, name)
        if kept is not None:
            return prototype.buffer.from_bytes(kept)
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            await asyncio.to_thread(self._cache.write, name, found.to_bytes())
        return found


def cache_of_environment() -> DiskCache | None:
    """Give the cache that the environment asks for; ``None`` if it asks for none.

    Raises:
        UsageError: its bound is no number of gigabytes, or its folder cannot be made.
    """
    folder = os.environ.get("SALIBI_CACHE")
    if not folder:
        return None
    text = os.environ.get("SALIBI_CACHE_GB", str(DEFAULT_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise UsageError(f"SALIBI_CACHE_GB is {text!r}; give gigabytes, as 50.")
    try:
        return DiskCache(Path(folder), int(gigabytes * 1e9))
    except OSError as error:
        raise UsageError(
            f"SALIBI_CACHE is {folder}, where no folder can be made ({error.strerror}); name another."
        ) from error
