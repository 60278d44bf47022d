"""Shards of image arrays: each one's index is fetched once, and none may be missing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zarr.abc.store import Store, SuffixByteRequest
from zarr.storage import WrapperStore

from salibi_model.errors import StoreError

if TYPE_CHECKING:
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
