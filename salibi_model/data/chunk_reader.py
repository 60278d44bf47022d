"""Samples out of shards, each decoded by the thread that asks for it.

Zarr reads a chunk by way of an event loop that all threads share, which for one sample of a local
store takes longer than reading and decoding it. Here a sample is one range of a file, its checksum
and its decoder, all outside of Python's lock; ``benchmarks/model/scattered.py`` has the figures. The format
is that of Zarr's specification (sharding codec 1.0), and what is laid out otherwise than Salibi's
image arrays is left to Zarr.
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
class Chunks:
    """The samples of an image array, a chunk each, in shards of a run of samples."""

    storage: ShardStorage
    path: str
    """Of the array within the storage."""
    shape: tuple[int, ...]
    """Of a sample (C, H, W)."""
    samples_per_shard: int
    compressed: bool
    """Whether chunks are Zstandard frames."""
    checked: bool
    """Whether a CRC32C follows each chunk."""
    fill_value: int
    _indexes: dict[int, UInt64[np.ndarray, "samples 2"]] = field(default_factory=dict)
    """Of shards: offset and length of each sample; about a kilobyte per shard."""

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Chunks | None:
        """Read an array's metadata; ``None`` if its samples are not laid out as a chunk each."""
        from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

        storage, codecs = array.store_path.store, getattr(array.metadata, "codecs", ())
        match codecs:
            case [
                ShardingCodec(
                    codecs=(BytesCodec(), *packing),
                    index_codecs=(BytesCodec(), Crc32cCodec()),
                    index_location=place,
                )
            ] if place.value == "end":
                kinds = tuple(type(codec) for codec in packing)
            case _:
                return None
        of_sample, shards = array.shape[1:], array.shards or (1,)
        if (
            not isinstance(storage, ShardStorage)
            or array.dtype != np.uint8
            or array.chunks != (1, *of_sample)
            or shards[1:] != of_sample
            or kinds not in ((), (ZstdCodec,), (Crc32cCodec,), (ZstdCodec, Crc32cCodec))
        ):
            return None
        return cls(
            storage=storage,
            path=array.path,
            shape=of_sample,
            samples_per_shard=shards[0],
            compressed=ZstdCodec in kinds,
            checked=Crc32cCodec in kinds,
            fill_value=int(array.fill_value),
        )

    def read(self, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "bands rows cols"]]:
        """Give the samples of a run, in order, read-only; one request per shard.

        Raises:
            StoreError: a shard is missing.
            ValueError: a shard is damaged: cut short, or its content differs from a checksum.
        """
        size = self.samples_per_shard
        for number in range(start // size, -(-stop // size)):
            first, last = max(start - number * size, 0), min(stop - number * size, size)
            yield from self._of_shard(number, first, last)

    def _of_shard(self, number: int, first: int, last: int) -> Iterator[np.ndarray]:
        key, entries = self._key(number), self._index(number)[first:last].tolist()
        if not _in_a_row(entries):
            for offset, length in entries:
                yield self._decode(self._piece(key, offset, length))
            return
        begin = entries[0][0]
        run = self.storage.read_range(key, begin, sum(entries[-1]))
        for offset, length in entries:
            yield self._decode(run[offset - begin :][:length])

    def _piece(self, key: str, offset: int, length: int) -> _Bytes | None:
        if offset == length == _NOT_WRITTEN:
            return None
        return self.storage.read_range(key, offset, offset + length)

    def _key(self, number: int) -> str:
        return f"{self.path}/c/{number}/0/0/0"

    def _index(self, number: int) -> UInt64[np.ndarray, "samples 2"]:
        """Fetch a shard's index, or give the one kept; threads may fetch one twice."""
        if number not in self._indexes:
            content = _checked(
                self.storage.read_end(
                    self._key(number), _ENTRY_BYTES * self.samples_per_shard + _CHECKSUM_BYTES
                )
            )
            self._indexes[number] = np.frombuffer(content, "<u8").reshape(-1, 2)
        return self._indexes[number]

    def _decode(self, piece: _Bytes | None) -> UInt8[np.ndarray, "bands rows cols"]:
        from numcodecs.zstd import decompress  # type: ignore[import-untyped]

        if piece is None:
            return np.full(self.shape, self.fill_value, np.uint8)
        content = _checked(piece) if self.checked else piece
        pixels = decompress(content) if self.compressed else content
        return np.frombuffer(pixels, np.uint8).reshape(self.shape)


def _in_a_row(entries: list[list[int]]) -> bool:
    """Whether samples lie one behind the other in their file, all of them written."""
    return entries[-1][0] != _NOT_WRITTEN and all(
        sum(before) == after[0] for before, after in pairwise(entries)
    )


def _checked(piece: _Bytes) -> _Bytes:
    """Take off the CRC32C at the end of a piece that has it right."""
    import google_crc32c

    content, stored = piece[:-_CHECKSUM_BYTES], piece[-_CHECKSUM_BYTES:]
    computed = google_crc32c.value(content).to_bytes(_CHECKSUM_BYTES, "little")
    if stored.tobytes() != computed:
        raise ValueError("a checksum differs from the content")
    return content
