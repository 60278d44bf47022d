"""Serves whole files to Zarr from memory, so that one read gives their checksums and their arrays."""

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

    from salibi_data.store.manifest import ManifestEntry
    from salibi_data.store.open import StoreFiles


class PrefetchedStorage(WrapperStore[Store]):
    """Zarr storage that serves the files prefetched last from memory, and all others as usual."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._prefetched = MemoryStore()

    def prefetch(self, files: StoreFiles, entries: Mapping[str, ManifestEntry | None]) -> list[str]:
        """Read whole files into memory, in place of those prefetched before.

        Args:
            files: store to read from.
            entries: manifest entries of the files by name; None for a file without an entry.

        Returns:
            Problems: files without an entry, and files that differ from their checksums.

        Raises:
            StoreError: a file cannot be read.
        """
        listed = {name: entry for name, entry in entries.items() if entry is not None}
        with ThreadPoolExecutor(len(entries)) as pool:
            contents = dict(zip(listed, pool.map(files.read, listed), strict=True))
        buffer = default_buffer_prototype().buffer
        self._prefetched = MemoryStore(
            {name: buffer.from_bytes(content) for name, content in contents.items()}
        )
        return [f"file {name} is missing" for name in entries if name not in listed] + [
            f"file {name} differs from its checksum"
            for name, entry in listed.items()
            if hashlib.sha256(contents[name]).hexdigest() != entry.sha256
        ]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a file or of a part of it, from memory if it was prefetched."""
        buffer = await self._prefetched.get(key, prototype, byte_range)
        return await super().get(key, prototype, byte_range) if buffer is None else buffer
