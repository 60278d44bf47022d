"""Sends files to a bucket: finds those that are there already by checksum, and sends the others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import StoreError
from salibi_data.store.filesystem import file_sha256
from salibi_data.store.manifest import ManifestEntry
from salibi_data.store.storage import (
    BLOCK_BYTES,
    list_sizes_if_allowed,
    parallel_map,
    read_blocks,
    sizes_of,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PARTS_AT_ONCE: Final = 4
"""Number of blocks of one file sent in parallel; with 8 files in parallel, 256 MB of memory."""

_CHECKSUM: Final = "sha256"
"""Key of the checksum in an object's metadata, sent as ``x-amz-meta-sha256``."""

_TYPES: Final = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".jpg": "image/jpeg",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Object to be sent: a file, or bytes."""

    key: str
    entry: ManifestEntry
    source: Path | bytes

    @classmethod
    def of_bytes(cls, content: bytes, key: str) -> Upload:
        """Make an upload of bytes."""
        entry = ManifestEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        return cls(key=key, entry=entry, source=content)

    def is_there(self, target: ObjectStore) -> bool:
        """Whether an object of the right size has the right content.

        The checksum is in the object's metadata. Folders have no metadata, and copies made with
        other tools may have lost them: then the content is read.
        """
        import obstore

        checksum = obstore.get(target, self.key, options={"head": True}).attributes.get(_CHECKSUM)
        if checksum is None:
            digest = hashlib.sha256()
            for block in read_blocks(target, self.key, self.entry.bytes):
                digest.update(block)
            checksum = digest.hexdigest()
        return checksum == self.entry.sha256

    def send(self, target: ObjectStore) -> None:
        """Send the object, in blocks if it is large; it appears whole or not at all.

        Raises:
            StoreError: the file is not what the manifest says.
        """
        import obstore

        self._check_source()
        obstore.put(
            target,
            self.key,
            self.source,
            attributes=self._attributes(target),
            chunk_size=BLOCK_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )

    def _check_source(self) -> None:
        if isinstance(self.source, bytes):
            return
        if not self.source.is_file() or file_sha256(self.source) != self.entry.sha256:
            raise StoreError(
                f"{self.source} is not as its store's manifest says; `salibi-data verify` tells "
                "more. Nothing was published. Build or pull the store again."
            )

    def _attributes(self, target: ObjectStore) -> Any:
        from obstore.store import LocalStore

        if isinstance(target, LocalStore):
            return None
        kind = _TYPES.get(Path(self.key).suffix)
        return {_CHECKSUM: self.entry.sha256} | ({"Content-Type": kind} if kind else {})


def uploads_of(folder: Path, manifest: Mapping[str, ManifestEntry], prefix: str) -> list[Upload]:
    """Make an upload per file of a store, to objects below ``prefix``."""
    return [
        Upload(key=f"{prefix}/{name}", entry=entry, source=folder / name)
        for name, entry in manifest.items()
    ]


def missing(
    target: ObjectStore, prefix: str, uploads: Sequence[Upload], *, workers: int
) -> list[Upload]:
    """Uploads whose objects are missing below ``prefix``, or have another content."""
    sizes = list_sizes_if_allowed(target, prefix)
    if sizes is None:
        sizes = sizes_of(target, [upload.key for upload in uploads], workers=workers)
    same_size = [upload for upload in uploads if sizes.get(upload.key) == upload.entry.bytes]
    present = parallel_map(lambda upload: upload.is_there(target), same_size, workers=workers)
    done = {upload.key for upload, is_there in zip(same_size, present, strict=True) if is_there}
    return [upload for upload in uploads if upload.key not in done]
