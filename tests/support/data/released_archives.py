"""Archives in the layout of the authors' release, written by the ``pmtiles`` package."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from tests.support.model.stores import landscape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


Key = tuple[int, int, int]
"""Zoom, column, row."""
ZOOM = 15
LEFT, TOP = 8192, 12288
"""A corner of blocks: the first tile of a run of children at every level."""


@dataclass
class Release:
    """Tiles of the three archives, to be changed before they are written."""

    sar: dict[Key, bytes] = field(default_factory=dict)
    lores: dict[Key, bytes] = field(default_factory=dict)
    hires: dict[Key, bytes] = field(default_factory=dict)

    def write(self, folder: Path, **options: Any) -> dict[str, Path]:
        """Write the archives; their paths, as ``import_pmtiles`` takes them."""
        paths = {name: folder / f"{name}.pmtile" for name in ("sar", "lores", "hires")}
        for name, path in paths.items():
            write_archive(path, getattr(self, name), **options)
        return paths


def release(tiles: Iterable[tuple[int, int]], *, zoom: int = ZOOM, seed: int = 0) -> Release:
    """A landscape under three sensors for each tile (column, row): RGBA, as they are released."""
    archives = Release()
    for x, y in tiles:
        images = landscape(np.random.default_rng((seed, x, y)))
        empty = np.zeros((1, 256, 256), np.uint8)
        archives.sar[zoom, x, y] = png(np.concatenate([empty, images["sar"]]))
        archives.lores[zoom, x, y] = png(images["lores"])
        archives.hires[zoom, x, y] = png(images["hires"])
        for row, column in np.ndindex(2, 2):
            quarter = images["hires_4x"][
                :, row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256
            ]
            archives.hires[zoom + 1, 2 * x + column, 2 * y + row] = png(quarter)
    return archives


def flat_release(tiles: Iterable[tuple[int, int]], *, zoom: int = ZOOM) -> Release:
    """A colour of its own for each part of each tile; done in no time."""
    archives = Release()
    for n, (x, y) in enumerate(tiles):
        archives.sar[zoom, x, y] = flat(0, 1 + n % 255, 9)
        archives.lores[zoom, x, y] = flat(1 + n % 255, 2, 3)
        archives.hires[zoom, x, y] = flat(4, 1 + n % 255, 6)
        for row, column in np.ndindex(2, 2):
            archives.hires[zoom + 1, 2 * x + column, 2 * y + row] = flat(4, 1 + n % 255, 6)
    return archives


def square(edge: int, *, left: int = LEFT, top: int = TOP) -> list[tuple[int, int]]:
    """Columns and rows of ``edge`` x ``edge`` tiles."""
    return [(left + column, top + row) for row in range(edge) for column in range(edge)]


def png(bands: np.ndarray, alpha: np.ndarray | None = None, **options: Any) -> bytes:
    """An image of red, green, blue (3, H, W) and alpha, 255 if not given."""
    if alpha is None:
        alpha = np.full(bands.shape[1:], 255, np.uint8)
    image = Image.fromarray(np.concatenate([bands, alpha[None]]).transpose(1, 2, 0))
    return encoded(image, **options)


def flat(red: int, green: int, blue: int, alpha: int = 255) -> bytes:
    """A tile of one colour."""
    return encoded(Image.new("RGBA", (256, 256), (red, green, blue, alpha)))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file's content."""
    content = io.BytesIO()
    fast = {"compress_level": 1} if kind == "PNG" else {}
    image.save(content, kind, **{**fast, **options})
    return content.getvalue()


def write_archive(
    path: Path,
    tiles: Mapping[Key, bytes],
    *,
    metadata: Mapping[str, Any] | None = None,
    tile_type: TileType = TileType.PNG,
    clustered: bool = True,
) -> Path:
    """Write an archive; in the order of the tiles' ids, or in a random one."""
    ids = {zxy_to_tileid(*key): content for key, content in tiles.items()}
    order = sorted(ids)
    if not clustered:
        np.random.default_rng(0).shuffle(order)
    with path.open("wb") as file:
        writer = Writer(file)
        for tile_id in order:
            writer.write_tile(tile_id, ids[tile_id])
        writer.finalize(
            {"tile_type": tile_type, "tile_compression": Compression.NONE}, dict(metadata or {})
        )
    return path
