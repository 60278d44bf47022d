"""Disk cache of published datasets, with a bound on its size.

Only releases are cached: they never change, so nothing here can be out of date. Processes may share
a folder. Set ``SALIBI_CACHE`` to a folder, and ``SALIBI_CACHE_GB`` to its bound (default 50).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

DEFAULT_GB: Final = 50.0
"""Bound in gigabytes (10^9 bytes) where the environment sets none."""

_SHARE_AFTER_CLEANING: Final = 0.9
"""Share of the bound that is left after the oldest entries were removed."""
_SHARE_BETWEEN_CHECKS: Final = 0.05
"""Share of the bound that one process adds before it checks the size of the folder again."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


class DiskCache:
    """Entries in a folder, by name; the least recently used are removed.

    Args:
        folder: where the entries are; made if need be.
        max_bytes: bound on their size together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._num_added = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._shrink()

    def read(self, name: str) -> bytes | None:
        """Content of an entry; None where there is none, or it is damaged."""
        path = self._path(name)
        try:
            entry = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, content = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, name: str, content: bytes) -> None:
        """Add an entry; where the disk is full nothing is added, and that is no error."""
        path = self._path(name)
        # Not write_atomically: syncing each entry to the disk is slow, and the digest finds damage.
        partial = path.with_name(f".{uuid4().hex}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(hashlib.sha256(content).digest() + content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            return
        self._num_added += len(content) + _DIGEST_BYTES
        if self._num_added > _SHARE_BETWEEN_CHECKS * self._max_bytes:
            self._shrink()

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / digest[:2] / digest

    def _shrink(self) -> None:
        """Remove the least recently used entries where the folder is too large."""
        self._num_added = 0
        entries = []
        for path in self._folder.glob("??/*"):
            try:
                stat = path.stat()
            except OSError:  # another process removed it
                continue
            entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        # Every process that shares the folder may add this much before it checks.
        if total <= (1 - _SHARE_BETWEEN_CHECKS) * self._max_bytes:
            return
        for _, size, path in sorted(entries):
            if total <= _SHARE_AFTER_CLEANING * self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


class CachedRelease(WrapperStore[Store]):
    """Zarr's storage of a release that keeps on disk what it has read.

    Args:
        store: storage of the release.
        cache: where content is kept.
        release: SHA-256 of its manifest; equal checksums mean equal bytes.
    """

    def __init__(self, store: Store, cache: DiskCache, release: str) -> None:
        super().__init__(store)
        self._cache, self._release = cache, release

    def _with_store(self, store: Store) -> CachedRelease:
        return type(self)(store, self._cache, self._release)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where there is none."""
        name = f"{self._release} {key} {byte_range}"
        cached = await asyncio.to_thread(self._cache.read, name)
        if cached is not None:
            return prototype.buffer.from_bytes(cached)
        content = await super().get(key, prototype, byte_range)
        if content is not None:
            await asyncio.to_thread(self._cache.write, name, content.to_bytes())
        return content


def cache_from_environment() -> DiskCache | None:
    """Open the cache that the environment asks for; None if it asks for none.

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
