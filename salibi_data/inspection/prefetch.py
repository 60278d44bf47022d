"""Zarr storage that has some files in memory: read once, for their checksums and their arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from salibi_data.store.open import ManifestEntry, StoreFiles


class HeldFiles(WrapperStore[Store]):
    """Storage of which the files last taken are answered from memory, and all others as usual."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._held = MemoryStore()

    def take(self, files: StoreFiles, wanted: Mapping[str, ManifestEntry | None]) -> list[str]:
        """Read files whole, in place of those held before; tell which are not as promised.

        Args:
            files: where they are read.
            wanted: their names, and what the manifest says of each; None: it does not list it.

        Raises:
            StoreError: one cannot be read.
        """
        listed = {name: entry for name, entry in wanted.items() if entry is not None}
        with ThreadPoolExecutor(len(wanted)) as pool:
            content = dict(zip(listed, pool.map(files.read, listed), strict=True))
        buffer = default_buffer_prototype().buffer
        self._held = MemoryStore({name: buffer.from_bytes(b) for name, b in content.items()})
        return [f"file {name} is missing" for name in wanted if name not in listed] + [
            f"file {name} differs from its checksum"
            for name, entry in listed.items()
            if hashlib.sha256(content[name]).hexdigest() != entry.sha256
        ]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file, from memory if it was taken."""
        found = await self._held.get(key, prototype, byte_range)
        return await super().get(key, prototype, byte_range) if found is None else found
