"""Zarr storage in which a shard of images that is missing is an error, never nodata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from salibi_data.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_IMAGES: Final = re.compile(r"[^/]+/c/\d+/\d+/\d+/\d+")
"""Keys of shards of arrays (sample, band, row, column); index arrays have fewer dimensions."""


class WithAllShards(WrapperStore[Store]):
    """Storage of a finished store, which has all of its shards (``docs/format.md``)."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where there is none and need not be one.

        Raises:
            StoreError: a shard of images is missing.
        """
        found = await super().get(key, prototype, byte_range)
        if found is None and _IMAGES.fullmatch(key):
            raise StoreError(f"its file {key} is missing")
        return found
