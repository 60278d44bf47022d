"""Directories of PMTiles archives, against the ``pmtiles`` package; and what is refused."""

from __future__ import annotations

import gzip
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import tileid_to_zxy, write_varint, zxy_to_tileid

from salibi_data.imports.pmtiles.directory import Archive, open_archive
from salibi_data.store.errors import ReadError, UsageError
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.data.released_archives import LEFT, Key, flat, square, write_archive

HEADER = 127
INTERNAL_COMPRESSION, TILE_COMPRESSION = 97, 98


def contents(archive: Archive) -> dict[Key, bytes]:
    """All tiles, by our directory."""
    tiles = {}
    with archive.path.open("rb") as file:
        for zoom in archive.zooms:
            ids = archive.ids(zoom)
            for tile_id, offset, length in zip(ids.tolist(), *archive.find(ids), strict=True):
                file.seek(offset)
                tiles[tileid_to_zxy(tile_id)] = file.read(length)
    return tiles


def by_package(path: Path) -> dict[Key, bytes]:
    """All tiles, by the package."""
    with path.open("rb") as file:
        return dict(all_tiles(MmapSource(file)))


def many(count: int, seed: int = 0) -> dict[Key, bytes]:
    """Tiles of a few bytes, some alike, spread over zooms 14 and 15; enough for many directories."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 1 << 14, (count, 2)).tolist()
    zooms = rng.integers(14, 16, count).tolist()
    sizes = rng.integers(1, 40, count).tolist()
    return {
        (zoom, x, y): rng.bytes(size)
        for zoom, (x, y), size in zip(zooms, places, sizes, strict=True)
    }


def patched(path: Path, at: int, value: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("clustered", [True, False])
def test_leaf_directories_are_the_packages(tmp_path: Path, clustered: bool) -> None:
    path = write_archive(tmp_path / "a", many(20_000), clustered=clustered)
    with path.open("rb") as file:
        header = Reader(MmapSource(file)).header()
    assert header["leaf_directory_length"] > 0
    archive = open_archive(path)
    assert contents(archive) == by_package(path)
    assert archive.zooms == (14, 15)


def test_runs_and_shared_contents_are_the_packages(tmp_path: Path) -> None:
    tiles = {(15, x, y): flat(x % 2, 0, 0) for x, y in square(8)}
    ocean = flat(0, 0, 9)
    tiles |= {(15, x, y): ocean for x, y in square(16, left=LEFT + 64)}
    path = write_archive(tmp_path / "a", tiles)
    with path.open("rb") as file:
        header = Reader(MmapSource(file)).header()
    assert header["tile_contents_count"] == 3
    assert header["tile_entries_count"] < header["addressed_tiles_count"] == 64 + 256
    archive = open_archive(path)
    assert contents(archive) == by_package(path) == tiles
    assert archive.num_tiles(15) == 320


def test_tiles_that_are_not_there_are_not_found(tmp_path: Path) -> None:
    archive = open_archive(write_archive(tmp_path / "a", {(5, 3, 3): b"x", (5, 9, 9): b"y"}))
    asked = np.array([[0, zxy_to_tileid(5, 3, 3)], [zxy_to_tileid(5, 3, 4), 10**15]])
    offset, length = archive.find(asked)
    assert (offset >= 0).tolist() == [[False, True], [False, False]]
    assert length.tolist() == [[-1, 1], [-1, -1]]
    assert archive.num_tiles(4) == archive.num_tiles(6) == 0


def test_directories_without_compression_are_read(tmp_path: Path) -> None:
    tiles = {(15, x, y): flat(n, 0, 0) for n, (x, y) in enumerate(square(3))}
    packed = write_archive(tmp_path / "packed", tiles, metadata={"attribution": "us"})
    with packed.open("rb") as file:
        header = Reader(MmapSource(file)).header()
    content = packed.read_bytes()
    root = gzip.decompress(content[HEADER : HEADER + header["root_length"]])
    at = header["metadata_offset"]
    about = gzip.decompress(content[at : at + header["metadata_length"]])
    data = content[header["tile_data_offset"] :]
    start = bytearray(content[:HEADER])
    start[INTERNAL_COMPRESSION] = 1
    start[16:40] = struct.pack("<QQQ", len(root), HEADER + len(root), len(about))
    start[56:64] = struct.pack("<Q", HEADER + len(root) + len(about))
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(start) + root + about + data)
    archive = open_archive(plain)
    assert contents(archive) == by_package(packed)
    assert archive.metadata == {"attribution": "us"}


def test_what_is_no_archive_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="download the archive"):
        open_archive("https://example.com/sar_tiles.pmtile?token=secret")
    with pytest.raises(UsageError, match="no archive at"):
        open_archive(tmp_path / "absent.pmtile")
    text = tmp_path / "text"
    text.write_text("no archive")
    with pytest.raises(ReadError, match="is no PMTiles archive"):
        open_archive(text)
    two = patched(write_archive(tmp_path / "a", {(1, 0, 0): b"x"}), 7, b"\x02")
    with pytest.raises(ReadError, match="of version 2, not 3"):
        open_archive(two)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (INTERNAL_COMPRESSION, 3, "directories packed by BROTLI; read here are NONE, GZIP"),
        (INTERNAL_COMPRESSION, 4, "directories packed by ZSTD"),
        (TILE_COMPRESSION, 2, "tiles packed by GZIP"),
        (99, 5, "tiles AVIF"),
        (99, 77, "newer than this software"),
        (16, 9, "is damaged"),
        (17, 255, "is cut short"),
        (63, 255, "is cut short"),
        (130, 255, "is damaged"),
    ],
)
def test_headers_that_cannot_be_right_are_refused(
    tmp_path: Path, at: int, value: int, words: str
) -> None:
    path = write_archive(tmp_path / "a", {(15, 1, 1): flat(1, 2, 3)})
    with pytest.raises(ReadError, match=words):
        open_archive(patched(path, at, bytes([value])))


def directory(*numbers: int) -> bytes:
    """A packed directory of numbers as they are, right or wrong."""
    plain = BytesIO()
    for number in numbers:
        write_varint(plain, number)
    return gzip.compress(plain.getvalue(), mtime=0)


def with_root(path: Path, root: bytes, leaves: bytes = b"") -> Path:
    """An archive of one tile whose root directory, and what follows, are these bytes."""
    write_archive(path, {(15, 1, 1): b"tile"})
    start = bytearray(path.read_bytes()[:HEADER])
    end = HEADER + len(root)
    start[16:24] = struct.pack("<Q", len(root))
    start[24:40] = struct.pack("<QQ", end, 0)
    start[40:56] = struct.pack("<QQ", end, len(leaves))
    start[56:72] = struct.pack("<QQ", end + len(leaves), 4)
    path.write_bytes(bytes(start) + root + leaves + b"tile")
    return path


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0,), "0 entries"),
        ((2, 1, 1, 1, 4, 1), "2 entries has 5 numbers"),
        ((1 << 60, 1, 1, 4, 1), "has 4 numbers"),
        ((1, 1, 1, 4, 0), "without content"),
        ((1, 1, 1, 0, 1), "without content"),
        ((2, 7, 0, 1, 1, 2, 2, 1, 1), "out of order"),
        ((2, 7, 1, 5, 1, 2, 2, 1, 1), "of the same tile"),
        ((1, 1 << 60, 1, 4, 1), "out of range"),
        ((1, 1 << 69, 1, 4, 1), "out of range"),
        ((1, 1 << 52, 1 << 52, 4, 1), "of no zoom"),
        ((1, 7, 1, 40, 1), "cut short"),
        ((1, 7, 1, 4, 1 << 40), "cut short"),
        ((1, 7, 0, 4, 1), "is damaged: Not a gzipped file"),
    ],
)
def test_directories_that_cannot_be_right_are_refused(
    tmp_path: Path, numbers: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ReadError, match=words):
        open_archive(with_root(tmp_path / "a", directory(*numbers)))


def test_directories_below_directories_end_somewhere(tmp_path: Path) -> None:
    tile = directory(1, 7, 1, 4, 1)
    middle = directory(1, 7, 0, len(tile), 1)
    leaves = tile + middle
    nested = directory(1, 7, 0, len(middle), len(tile) + 1)
    archive = open_archive(with_root(tmp_path / "a", nested, leaves))
    assert contents(archive) == {tileid_to_zxy(7): b"tile"}
    itself = directory(1, 7, 0, 40, 1)
    with pytest.raises(ReadError, match="more than 3 deep"):
        open_archive(with_root(tmp_path / "b", itself, itself.ljust(40, b"\0")))


def test_a_run_over_half_the_world_is_counted_not_unrolled(tmp_path: Path) -> None:
    first = zxy_to_tileid(20, 0, 0)
    archive = open_archive(with_root(tmp_path / "a", directory(1, first, 1 << 40, 4, 1)))
    assert archive.num_tiles(20) == 1 << 40
    with pytest.raises(ReadError, match="at most 20000000"):
        archive.ids(20)


def test_a_directory_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(80 << 20), 9, mtime=0)
    with pytest.raises(ReadError, match="more than 67108864 bytes"):
        open_archive(with_root(tmp_path / "a", bomb))


@pytest.fixture(scope="module")
def leafy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with leaf directories that lie in the open: where damage does most."""
    tile = directory(1, 7, 1, 4, 1)
    root = directory(1, 7, 0, len(tile), 1)
    path = with_root(
        tmp_path_factory.mktemp("leafy") / "a", gzip.decompress(root), gzip.decompress(tile)
    )
    return patched(path, INTERNAL_COMPRESSION, b"\x01")


@given(st.data())
def test_damage_is_an_error_that_names_the_file_or_tiles_within_it(
    leafy: Path, data: st.DataObject
) -> None:
    content = bytearray(leafy.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = leafy.with_name("damaged")
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    message = None
    try:
        archive = open_archive(path)
        tiles = contents(archive)
    except ReadError as error:
        message = str(error)
    if message is not None:
        assert str(path) in message
        assert "\n" not in message
    else:
        assert len(tiles) == sum(map(archive.num_tiles, archive.zooms)) > 0
        assert all(0 < len(content) <= path.stat().st_size for content in tiles.values())


@needs_real
def test_a_real_archive_is_read_as_the_package_reads_it() -> None:
    path = REAL / "pmtiles" / "stamen_toner_raster_z3.pmtiles"
    assert contents(open_archive(path)) == by_package(path)


@needs_real
def test_a_real_archive_of_vectors_is_refused() -> None:
    with pytest.raises(ReadError, match="tiles MVT; read here are UNKNOWN, PNG, JPEG, WEBP"):
        open_archive(REAL / "pmtiles" / "test_fixture_1.pmtiles")
