"""Reads samples out of shards, each decoded by the thread that asks for it.

Zarr reads a chunk by way of an event loop that all threads share, which for one sample of a local
store takes longer than reading and decoding it. Here a sample is one range of a file, its checksum
and its decoder, all outside of Python's lock; ``benchmarks/model/scattered.py`` has the figures.

Source: the sharding codec of Zarr v3, version 1.0
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/). Arrays that are laid out
otherwise than Salibi's image arrays are left to Zarr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.store.zarr_storage import ShardStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr
    from jaxtyping import UInt8, UInt64

    _Bytes = UInt8[np.ndarray, " bytes"]

_NOT_WRITTEN = np.iinfo(np.uint64).max
"""Offset and length of a chunk that a shard does not have: all of it is the fill value."""
_CHECKSUM_BYTES = 4
_ENTRY_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class ChunkReader:
    """Reads the samples of an image array whose shards hold one chunk per sample."""

    storage: ShardStorage
    path: str
    """Path of the array within the storage."""
    shape: tuple[int, ...]
    """Shape of a sample, (C, H, W)."""
    samples_per_shard: int
    compressed: bool
    """Whether chunks are Zstandard frames."""
    checked: bool
    """Whether a CRC32C follows each chunk."""
    fill_value: int
    _indexes: dict[int, UInt64[np.ndarray, "samples 2"]] = field(default_factory=dict)
    """Index per shard: offset and length of each sample, 16 bytes a sample."""

    @classmethod
    def for_array(cls, array: zarr.Array[Any]) -> ChunkReader | None:
        """Read an array's metadata; ``None`` if it has another layout than one chunk per sample."""
        from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

        storage, codecs = array.store_path.store, getattr(array.metadata, "codecs", ())
        match codecs:
            case [
                ShardingCodec(
                    codecs=(BytesCodec(), *chunk_codecs),
                    index_codecs=(BytesCodec(), Crc32cCodec()),
                    index_location=location,
                )
            ] if location.value == "end":
                # An index at the start of a shard is allowed by the specification, but Salibi writes none.
                kinds = tuple(type(codec) for codec in chunk_codecs)
            case _:
                return None
        sample_shape, shards = array.shape[1:], array.shards or (1,)
        if (
            not isinstance(storage, ShardStorage)
            or array.dtype != np.uint8
            or array.chunks != (1, *sample_shape)
            or shards[1:] != sample_shape
            or kinds not in ((), (ZstdCodec,), (Crc32cCodec,), (ZstdCodec, Crc32cCodec))
        ):
            return None
        return cls(
            storage=storage,
            path=array.path,
            shape=sample_shape,
            samples_per_shard=shards[0],
            compressed=ZstdCodec in kinds,
            checked=Crc32cCodec in kinds,
            fill_value=int(array.fill_value),
        )

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "bands rows cols"]]:
        """Yield the samples ``start`` to ``stop``, in order, read-only; one request per shard.

        Raises:
            StoreError: a shard is missing.
            ValueError: a shard is damaged: cut short, or its content differs from a checksum.
        """
        size = self.samples_per_shard
        for number in range(start // size, -(-stop // size)):
            first, last = max(start - number * size, 0), min(stop - number * size, size)
            yield from self._read_shard(number, first, last)

    def _read_shard(self, number: int, first: int, last: int) -> Iterator[np.ndarray]:
        key, entries = self._key(number), self._index(number)[first:last].tolist()
        if not _contiguous(entries):
            for offset, length in entries:
                yield self._decode(self._read_chunk(key, offset, length))
            return
        begin = entries[0][0]
        # One range for samples that lie side by side: one request instead of one per sample.
        run = self.storage.read_range(key, begin, sum(entries[-1]))
        for offset, length in entries:
            yield self._decode(run[offset - begin :][:length])

    def _read_chunk(self, key: str, offset: int, length: int) -> _Bytes | None:
        if offset == length == _NOT_WRITTEN:
            return None
        return self.storage.read_range(key, offset, offset + length)

    def _key(self, number: int) -> str:
        return f"{self.path}/c/{number}/0/0/0"

    def _index(self, number: int) -> UInt64[np.ndarray, "samples 2"]:
        """Return a shard's index, fetched once; two threads may fetch it at the same time."""
        if number not in self._indexes:
            content = _verified(
                self.storage.read_end(
                    self._key(number), _ENTRY_BYTES * self.samples_per_shard + _CHECKSUM_BYTES
                )
            )
            self._indexes[number] = np.frombuffer(content, "<u8").reshape(-1, 2)
        return self._indexes[number]

    def _decode(self, chunk: _Bytes | None) -> UInt8[np.ndarray, "bands rows cols"]:
        from numcodecs.zstd import decompress  # type: ignore[import-untyped]

        if chunk is None:
            return np.full(self.shape, self.fill_value, np.uint8)
        content = _verified(chunk) if self.checked else chunk
        pixels = decompress(content) if self.compressed else content
        return np.frombuffer(pixels, np.uint8).reshape(self.shape)


def _contiguous(entries: list[list[int]]) -> bool:
    """Whether samples follow each other in their file without a gap, all of them written."""
    return entries[-1][0] != _NOT_WRITTEN and all(
        sum(before) == after[0] for before, after in pairwise(entries)
    )


def _verified(content: _Bytes) -> _Bytes:
    """Compare content with the CRC32C at its end, and return it without that."""
    import google_crc32c

    payload, stored = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    computed = google_crc32c.value(payload).to_bytes(_CHECKSUM_BYTES, "little")
    if stored.tobytes() != computed:
        raise ValueError("a checksum differs from the content")
    return payload
