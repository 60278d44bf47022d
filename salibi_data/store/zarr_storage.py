"""Zarr storage of finished stores, in which a missing shard is an error, never nodata."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import numpy as np
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from salibi_data.store.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_SHARD: Final = re.compile(r"[^/]+/c/\d+/\d+/\d+/\d+")
"""Keys of shards of image arrays (sample, band, row, column); index arrays have fewer dimensions."""


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
