"""Zarr storage of finished stores: missing shards are errors, releases are cached on disk.

Only releases are cached: they never change, so nothing in the cache can be out of date. Processes
may share its folder. Set ``SALIBI_CACHE`` to a folder, and ``SALIBI_CACHE_GB`` to a bound on its size
(default 50).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import numpy as np
from obstore.exceptions import BaseError
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.storage import failure_reason, is_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_SHARD: Final = re.compile(r"[^/]+/c/\d+/\d+/\d+/\d+")
"""Keys of shards of image arrays (sample, band, row, column); index arrays have fewer dimensions."""

DEFAULT_GB: Final = 50.0
"""Bound in gigabytes (10^9 bytes) where the environment sets none."""

_SHARE_AFTER_CLEANING: Final = 0.9
"""Share of the bound that is left after the oldest entries were removed."""
_SHARE_BETWEEN_CHECKS: Final = 0.05
"""Share of the bound that one process adds before it checks the size of the folder again."""
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


class UnlistedStorage(WrapperStore[Store]):
    """Storage of a store where access to a missing file may be refused.

    Buckets that may be read but not listed answer 403 for a missing file, and Zarr asks for files
    that need not be there. The manifest tells whether a file is one of those.

    Args:
        store: Zarr's storage of the group.
        where: path or URL of the store, for messages.
        read_names: function that reads the names of the store's files; called when access is refused.
    """

    def __init__(self, store: Store, where: str, read_names: Callable[[], frozenset[str]]) -> None:
        super().__init__(store)
        self._where, self._read_names = where, read_names
        self._names: frozenset[str] | None = None

    def _with_store(self, store: Store) -> UnlistedStorage:
        return type(self)(store, self._where, self._read_names)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where there is none.

        Raises:
            StoreError: access to a file of the store is refused.
        """
        try:
            return await super().get(key, prototype, byte_range)
        except BaseError as error:
            if not is_refusal(error):
                raise
            if self._names is None:
                try:
                    self._names = await asyncio.to_thread(self._read_names)
                except StoreError:
                    raise error from None
            if key not in self._names:
                return None
            raise StoreError(
                f"file {key} of {self._where} cannot be read: {failure_reason(error)}."
            ) from error


class ShardStorage(WrapperStore[Store]):
    """Storage of a store that has all of its shards and does not change while it is read.

    Zarr reads a missing shard as nodata, while a finished Salibi store has every shard
    (``docs/format.md``): here it is an error. Zarr also asks for a shard's index with each chunk,
    which doubles the requests for scattered samples: here the index is kept, about a kilobyte a shard.

    Args:
        store: Zarr's storage of the group.
        where: path or URL of the store, for messages.
    """

    def __init__(self, store: Store, where: str) -> None:
        super().__init__(store)
        self._where = where
        self._indexes: dict[tuple[str, int], Buffer] = {}
        self._folder = store.root if isinstance(store, LocalStore) else None

    def _with_store(self, store: Store) -> ShardStorage:
        return type(self)(store, self._where)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where the format allows it to be absent.

        Raises:
            StoreError: a shard of images is missing.
        """
        if not _SHARD.fullmatch(key):
            return await super().get(key, prototype, byte_range)
        index = (key, byte_range.suffix) if isinstance(byte_range, SuffixByteRequest) else None
        if index in self._indexes:
            return self._indexes[index]
        content = await super().get(key, prototype, byte_range)
        if content is None:
            raise self._missing(key)
        if index is not None:
            self._indexes[index] = content
        return content

    def read_range(self, key: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes ``start`` to ``stop`` of a shard, shape (stop - start,), read by the calling thread.

        Raises:
            StoreError: the shard is missing.
            ValueError: it is cut short.
        """
        if self._folder is None:
            content = self._fetch(key, RangeByteRequest(start, stop))
        else:
            content = self._read_local(key, start, stop - start)
        return self._checked(content, key, stop - start)

    def read_end(self, key: str, length: int) -> NDArray[np.uint8]:
        """Last ``length`` bytes of a shard, shape (length,); raises as :meth:`read_range`."""
        if self._folder is None:
            content = self._fetch(key, SuffixByteRequest(length))
        else:
            content = self._read_local(key, -length, length)
        return self._checked(content, key, length)

    def _read_local(self, key: str, start: int, length: int) -> NDArray[np.uint8]:
        """Bytes of a file on this machine; a negative ``start`` counts from its end."""
        try:
            file = os.open(f"{self._folder}/{key}", os.O_RDONLY)
        except FileNotFoundError as error:
            raise self._missing(key) from error
        try:
            begin = start if start >= 0 else max(os.fstat(file).st_size + start, 0)
            # pread, as many threads read at once and must not share a file position.
            return np.frombuffer(os.pread(file, length, begin), np.uint8)
        finally:
            os.close(file)

    def _fetch(self, key: str, byte_range: ByteRequest) -> NDArray[np.uint8]:
        content = sync(self.get(key, default_buffer_prototype(), byte_range))
        return np.frombuffer(content.to_bytes() if content else b"", np.uint8)

    def _checked(self, content: NDArray[np.uint8], key: str, length: int) -> NDArray[np.uint8]:
        if len(content) != length:
            raise ValueError(f"its file {key} is cut short")
        return content

    def _missing(self, key: str) -> StoreError:
        return StoreError(
            f"{self._where} is damaged: its file {key} is missing. Build, pull or publish it again."
        )


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
