"""Zarr storage in which a shard of images that is missing is an error, never nodata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from salibi_data.store.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_IMAGES: Final = re.compile(r"[^/]+/c/\d+/\d+/\d+/\d+")
"""Keys of shards of arrays (sample, band, row, column); index arrays have fewer dimensions."""


class WithAllShards(WrapperStore[Store]):
    """Storage of a finished store, which has all of its shards (``docs/format.md``).

    Args:
        store: Zarr's storage of it.
        where: its path or URL, for messages.
    """

    def __init__(self, store: Store, where: str) -> None:
        super().__init__(store)
        self._where = where

    def _with_store(self, store: Store) -> WithAllShards:
        return type(self)(store, self._where)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file; None where there is none and need not be one.

        Raises:
            StoreError: a shard of images is missing.
        """
        found = await super().get(key, prototype, byte_range)
        if found is None and _IMAGES.fullmatch(key):
            raise StoreError(
                f"{self._where} is damaged: its file {key} is missing. Build, pull or publish it again."
            )
        return found
