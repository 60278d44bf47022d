"""Reads the directories of PMTiles archives: the tiles they hold, and each tile's place in the file.

Source: PMTiles version 3 specification. The ``pmtiles`` package reads the header. The directories are
decoded here, because a release has a million tiles, and that package decodes numbers one by one,
keeps an object per tile, assumes gzip, and does not check damaged files.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from salibi_data.store.errors import ReadError, UsageError
from salibi_data.store.tiles import MAX_ZOOM, first_tile_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_BYTES: Final = 127
MAX_DEPTH: Final = 3
"""Limit on the levels of directories below the root."""
MAX_DIRECTORY_BYTES: Final = 1 << 26
"""Limit on the size of one unpacked directory, or of the metadata; writers stay far below."""
MAX_TILES: Final = 20_000_000
"""Limit on the tiles of an archive: a hundred times those of the largest release."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Archive:
    """Directory of one archive; each entry stands for ``run_length`` tiles of one content."""

    path: Path
    metadata: Mapping[str, Any]
    tile_id: NDArray[np.int64]
    """Id of the first tile of each entry, ascending; shape (entries,)."""
    run_length: NDArray[np.int64]
    offset: NDArray[np.int64]
    """Offset of the content from the start of the file; several entries may share one."""
    length: NDArray[np.int64]

    def num_tiles(self, zoom: int) -> int:
        """Number of tiles at a zoom."""
        start, stop = self._ranges(zoom)
        return int(np.maximum(stop - start, 0).sum())

    @property
    def zooms(self) -> tuple[int, ...]:
        """Zooms that have tiles."""
        return tuple(zoom for zoom in range(MAX_ZOOM + 1) if self.num_tiles(zoom))

    def ids(self, zoom: int) -> NDArray[np.int64]:
        """Ids of all tiles at a zoom, ascending.

        Raises:
            ReadError: there are more than :data:`MAX_TILES`.
        """
        start, stop = self._ranges(zoom)
        count = np.maximum(stop - start, 0)
        if (total := int(count.sum())) > MAX_TILES:
            raise ReadError(
                f"{self.path} has {total} tiles at zoom {zoom}; a dataset's archive has at most "
                f"{MAX_TILES}. Give the archive of a dataset.",
                kind="unusable",
            )
        before = np.cumsum(count) - count
        return np.repeat(start - before, count) + np.arange(total)

    def find(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the offsets and lengths of tiles, in the shape of ``ids``; both -1 for a missing tile."""
        entry = np.searchsorted(self.tile_id, ids, side="right") - 1
        present = (entry >= 0) & (ids < self.tile_id[entry] + self.run_length[entry])
        return np.where(present, self.offset[entry], -1), np.where(present, self.length[entry], -1)

    def _ranges(self, zoom: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First id and end (exclusive) of each entry, clipped to the ids of a zoom."""
        lowest, beyond = first_tile_id(zoom), first_tile_id(zoom + 1)
        stop = self.tile_id + self.run_length
        return np.clip(self.tile_id, lowest, beyond), np.clip(stop, lowest, beyond)


def open_archive(path: str | Path) -> Archive:
    """Read the directory of an archive of images, without its tiles.

    Raises:
        UsageError: it is an address, or no file is there.
        ReadError: it is no PMTiles archive of version 3, not one of images, packed in a way that is
            not read here, damaged, or cut short.
    """
    if "://" in str(path):
        raise UsageError(
            f"{str(path).partition('://')[0]}:// addresses are not read here; download the archive "
            "and give the file's path."
        )
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no archive at {path}; check the path.")
    with path.open("rb") as file:
        archive = _ArchiveFile(path, file)
        header = _header(archive)
        try:
            entries = _entries(archive, header)
            metadata = _metadata(archive, header)
        except (ValueError, EOFError, OSError, zlib.error) as error:
            raise ReadError(f"{path} is damaged: {error}. Download it again.") from error
        offset = entries["offset"] + header["tile_data_offset"]
        archive.check_within("its last tile", int((offset + entries["length"]).max()))
        return Archive(path=path, metadata=metadata, **{**entries, "offset": offset})


class _ArchiveFile:
    """File of an archive, opened for reading."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self._file = file

    def check_within(self, what: str, end: int) -> None:
        """Raise ReadError where the file ends before ``end``."""
        if end > self.size:
            raise ReadError(
                f"{self.path} is cut short: it has {self.size} bytes, and {what} ends at {end}. "
                "Download it again."
            )

    def take(self, what: str, offset: int, length: int) -> bytes:
        self.check_within(what, offset + length)
        self._file.seek(offset)
        return self._file.read(length)

    def unpack(self, what: str, offset: int, length: int, header: Mapping[str, Any]) -> bytes:
        """Read bytes, and unpack them if the archive packs its directories by gzip."""
        from pmtiles.tile import Compression

        content = self.take(what, offset, length)
        if header["internal_compression"] == Compression.GZIP:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(MAX_DIRECTORY_BYTES + 1)
        if len(content) > MAX_DIRECTORY_BYTES:
            raise ValueError(f"{what} has more than {MAX_DIRECTORY_BYTES} bytes")
        return content


def _header(file: _ArchiveFile) -> Mapping[str, Any]:
    from pmtiles.tile import SpecVersionUnsupported, deserialize_header

    content = file.take("the header", 0, min(HEADER_BYTES, file.size))
    if len(content) < HEADER_BYTES or not content.startswith(b"PMTiles"):
        raise ReadError(f"{file.path} is no PMTiles archive; give one.", kind="unusable")
    try:
        header = deserialize_header(content)
    except SpecVersionUnsupported as error:
        raise ReadError(
            f"{file.path} is a PMTiles archive of version {content[7]}, not 3; convert it with "
            "`pmtiles convert`.",
            kind="unusable",
        ) from error
    except ValueError as error:
        raise ReadError(
            f"{file.path} is damaged, or newer than this software: {error}.", kind="unusable"
        ) from error
    _check_kind(file.path, "tiles", header["tile_type"], ("UNKNOWN", "PNG", "JPEG", "WEBP"))
    _check_kind(file.path, "tiles packed by", header["tile_compression"], ("UNKNOWN", "NONE"))
    _check_kind(
        file.path, "directories packed by", header["internal_compression"], ("NONE", "GZIP")
    )
    file.check_within("what comes before its tiles", header["tile_data_offset"])
    return header


def _check_kind(path: Path, what: str, kind: Any, known: tuple[str, ...]) -> None:
    if kind.name not in known:
        raise ReadError(
            f"{path} has {what} {kind.name}; read here are {', '.join(known)}. Give an archive of "
            "images, as the datasets are released.",
            kind="unusable",
        )


def _entries(file: _ArchiveFile, header: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Read all entries that stand for tiles, in the order of the tiles' ids."""
    tables: list[NDArray[np.int64]] = []
    directories = [(header["root_offset"], header["root_length"], 0)]
    total = 0
    while directories:
        offset, length, depth = directories.pop()
        entries = _directory(file.unpack("a directory", offset, length, header))
        below = entries[1] == 0
        if below.any() and depth == MAX_DEPTH:
            raise ValueError(f"its directories lie more than {MAX_DEPTH} deep")
        tables.append(entries[:, ~below])
        directories += [
            (header["leaf_directory_offset"] + int(start), int(size), depth + 1)
            for start, size in entries[2:, below].T
        ]
        total += entries.shape[1]
        if total > MAX_TILES:
            raise ValueError(f"its directories have more than {MAX_TILES} entries")
    table = np.concatenate(tables, axis=1)
    if not table.size:
        raise ValueError("it has no tile")
    order = np.argsort(table[0], kind="stable")
    names = ("tile_id", "run_length", "offset", "length")
    columns = dict(zip(names, np.ascontiguousarray(table[:, order]), strict=True))
    if np.any(columns["tile_id"][1:] < (columns["tile_id"] + columns["run_length"])[:-1]):
        raise ValueError("two entries are of the same tile")
    return columns


def _directory(content: bytes) -> NDArray[np.int64]:
    """Decode a directory: rows tile id, run length, offset, length; run length 0 is a directory.

    Source: PMTiles version 3 specification, "Directories".
    """
    numbers = _numbers(content)
    count = int(numbers[0])
    if count == 0 or len(numbers) != 1 + 4 * count:
        raise ValueError(f"a directory of {count} entries has {len(numbers) - 1} numbers")
    steps, run_length, length, packed = numbers[1:].reshape(4, count)
    beyond = first_tile_id(MAX_ZOOM + 1)
    # Below 2^54 a sum of two cannot overflow, and an overflow of many shows as a decrease.
    if max(steps.max(), run_length.max(), length.max(), packed.max()) >= beyond:
        raise ValueError("a directory has a number out of range")
    tile_id = np.cumsum(steps)
    if np.any(np.diff(tile_id) <= 0) or (tile_id + run_length).max() > beyond:
        raise ValueError("a directory's tiles are out of order, or of no zoom")
    if packed[0] == 0 or length.min() == 0:
        raise ValueError("a directory has an entry without content")
    # 0 stands for "right after the previous entry"; any other number is the offset plus 1.
    number = np.arange(count)
    given = np.maximum.accumulate(np.where(packed > 0, number, 0))
    before = np.cumsum(length) - length
    offset = packed[given] - 1 + before - before[given]
    if offset.min() < 0:
        raise ValueError("a directory's contents are longer than any file")
    return np.stack([tile_id, run_length, offset, length])


def _numbers(content: bytes) -> NDArray[np.int64]:
    """Decode the varints of a directory: little-endian groups of 7 bits, high bit set on all but the last."""
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data < 0x80)  # noqa: PLR2004
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("a directory ends within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    if widths.max() > 9:  # noqa: PLR2004 - 9 * 7 bits are what an int64 holds
        raise ValueError("a directory has a number out of range")
    shift = 7 * (np.arange(len(data)) - np.repeat(starts, widths))
    return np.add.reduceat((data & 0x7F).astype(np.int64) << shift, starts)


def _metadata(file: _ArchiveFile, header: Mapping[str, Any]) -> Mapping[str, Any]:
    if header["metadata_length"] == 0:
        return {}
    content = file.unpack(
        "the metadata", header["metadata_offset"], header["metadata_length"], header
    )
    try:
        metadata = json.loads(content)
    except RecursionError as error:
        raise ValueError("the metadata are nested too deep") from error
    if not isinstance(metadata, dict):
        raise ValueError("the metadata are no JSON object")  # noqa: TRY004
    return metadata
