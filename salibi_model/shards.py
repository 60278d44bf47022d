"""Shards of image arrays: each one's index is fetched once, and none may be missing."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from salibi_data.store.errors import StoreError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_IMAGES = re.compile(r"[^/]+/c/\d+/\d+/\d+/\d+")
"""Keys of shards of arrays (sample, band, row, column); index arrays have fewer dimensions."""


class Shards(WrapperStore[Store]):
    """Storage as zarr reads it, for stores that do not change while they are read.

    Zarr asks for a shard's index with each chunk, which doubles the requests for scattered
    samples: here it is kept, about a kilobyte per shard. And zarr takes a shard that is not there
    for one of nodata, while a Salibi store has all of them (``docs/format.md``): here it is an error.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._indexes: dict[tuple[str, int], Buffer] = {}
        self._folder = store.root if isinstance(store, LocalStore) else None

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Give bytes of a file; ``None`` where there is none and need not be one.

        Raises:
            StoreError: a shard of images is missing.
        """
        if not _IMAGES.fullmatch(key):
            return await super().get(key, prototype, byte_range)
        is_index = isinstance(byte_range, SuffixByteRequest)
        place = (key, byte_range.suffix) if isinstance(byte_range, SuffixByteRequest) else (key, 0)
        if is_index and place in self._indexes:
            return self._indexes[place]
        found = await super().get(key, prototype, byte_range)
        if found is None:
            raise StoreError(f"its file {key} is missing")
        if is_index:
            self._indexes[place] = found
        return found

    def read_range(self, key: str, start: int, stop: int) -> UInt8[np.ndarray, " bytes"]:
        """Give bytes ``start`` to ``stop`` of a shard, read by the calling thread.

        Raises:
            StoreError: the shard is missing.
            ValueError: it is cut short.
        """
        if self._folder is None:
            piece = self._fetched(key, RangeByteRequest(start, stop))
        else:
            piece = self._read(key, start, stop - start)
        if len(piece) != stop - start:
            raise ValueError(f"its file {key} is cut short")
        return piece

    def read_end(self, key: str, length: int) -> UInt8[np.ndarray, " bytes"]:
        """Give the last ``length`` bytes of a shard; errors as in :meth:`read_range`."""
        if self._folder is None:
            piece = self._fetched(key, SuffixByteRequest(length))
        else:
            piece = self._read(key, -length, length)
        if len(piece) != length:
            raise ValueError(f"its file {key} is cut short")
        return piece

    def _read(self, key: str, start: int, length: int) -> UInt8[np.ndarray, " bytes"]:
        """Bytes of a local file; a negative ``start`` counts from its end."""
        try:
            file = os.open(f"{self._folder}/{key}", os.O_RDONLY)
        except FileNotFoundError as error:
            raise StoreError(f"its file {key} is missing") from error
        try:
            begin = start if start >= 0 else max(os.fstat(file).st_size + start, 0)
            return np.frombuffer(os.pread(file, length, begin), np.uint8)
        finally:
            os.close(file)

    def _fetched(self, key: str, byte_range: ByteRequest) -> UInt8[np.ndarray, " bytes"]:
        found = sync(self.get(key, default_buffer_prototype(), byte_range))
        return np.frombuffer(found.to_bytes() if found else b"", np.uint8)
