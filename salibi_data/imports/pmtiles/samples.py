"""Finds the samples that released archives hold, and the places of their tiles.

A sample is a tile that every archive holds; the high-resolution archive must hold its four children as
well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.imports.pmtiles.layout import (
    LAYOUTS,
    ZOOM_OFFSETS,
    ArchiveLayout,
    child_tiles,
    own_modalities,
)
from salibi_data.imports.pmtiles.tile_codec import decode, stored_values
from salibi_data.store.errors import ReadError, SelectionError, UsageError
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import tile_ids, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.imports.pmtiles.directory import Archive


@dataclass(frozen=True, kw_only=True, eq=False)
class ArchivedImages:
    """Images of one modality, as tiles of an archive."""

    modality: str
    archive: Path
    base_zoom: int
    zoom_offset: int
    x: NDArray[np.int64]
    """Columns of the samples at the base zoom, (N,)."""
    y: NDArray[np.int64]
    offset: NDArray[np.int64]
    """Offsets of the tiles in the archive's file, (N, rows, columns) of an image."""
    length: NDArray[np.int64]
    channels: tuple[int, ...]
    zero_is_nodata: bool

    def take(self, samples: Any) -> ArchivedImages:
        """Take some samples, by a slice, a mask or indices."""
        fields = ("x", "y", "offset", "length")
        return replace(self, **{name: getattr(self, name)[samples] for name in fields})

    def read(self) -> NDArray[np.uint8]:
        """Read the images, (N, bands, size, size).

        Raises:
            ReadError: a tile cannot be decoded, or is not what this archive should hold.
        """
        num, rows, columns = self.offset.shape
        tiles = np.empty((num, rows, columns, len(self.channels), TILE_PX, TILE_PX), np.uint8)
        with self.archive.open("rb") as file:
            for index in np.ndindex(num, rows, columns):
                file.seek(int(self.offset[index]))
                try:
                    tiles[index] = self._values(file.read(int(self.length[index])))
                except ReadError as error:
                    raise ReadError(
                        f"tile {self._name(*index)} of {self.archive} cannot be used: {error}. "
                        "Download the archive again, or leave out such samples: --skip-damaged."
                    ) from error
        shape = (num, len(self.channels), rows * TILE_PX, columns * TILE_PX)
        # (N, rows, columns, bands, y, x) to (N, bands, rows * y, columns * x): joins the children.
        return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(shape)

    def _values(self, content: bytes) -> NDArray[np.uint8]:
        rgba = decode(content)
        # The release writes SAR as (0, VV, VH): values in red hint at swapped archives.
        empty = [channel for channel in range(3) if channel not in self.channels]
        if rgba[..., empty][rgba[..., 3] > 0].any():
            raise ReadError("it has red, which a SAR tile leaves empty (green is VV, blue is VH)")
        return stored_values(rgba, self.channels, zero_is_nodata=self.zero_is_nodata)

    def _name(self, number: int, row: int, column: int) -> str:
        x = (int(self.x[number]) << self.zoom_offset) + column
        y = (int(self.y[number]) << self.zoom_offset) + row
        return f"{self.base_zoom + self.zoom_offset}/{x}/{y}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ArchiveSamples:
    """Samples in all modalities; for a shard, the samples of the shard."""

    images: tuple[ArchivedImages, ...]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def x(self) -> NDArray[np.int64]:
        """Columns of the samples, (N,)."""
        return self.images[0].x

    @property
    def y(self) -> NDArray[np.int64]:
        """Rows of the samples, (N,)."""
        return self.images[0].y

    def take(self, samples: Any) -> ArchiveSamples:
        """Take some samples, by a slice, a mask or indices."""
        return ArchiveSamples(images=tuple(images.take(samples) for images in self.images))

    def shard(self, number: int) -> ArchiveSamples:
        """Samples of one shard."""
        return self.take(slice(number * SAMPLES_PER_SHARD, (number + 1) * SAMPLES_PER_SHARD))

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Read the images per modality; errors as in :meth:`ArchivedImages.read`."""
        return {images.modality: images.read() for images in self.images}

    def damaged(self) -> list[int]:
        """Indices of samples with a tile that cannot be used, found by decoding every tile."""
        return [n for n in range(len(self)) if not self._is_readable(n)]

    def _is_readable(self, number: int) -> bool:
        try:
            # Only decoding finds damage inside a tile: the archive's directory holds no checksums.
            self.take(slice(number, number + 1)).read()
        except ReadError:
            return False
        return True


def given_layouts(archives: Mapping[str, Archive]) -> Iterator[tuple[ArchiveLayout, Archive]]:
    """Yield the archives that are given, in the order of a store's modalities."""
    return ((layout, archives[layout.name]) for layout in LAYOUTS if layout.name in archives)


def base_zoom_of(archives: Mapping[str, Archive], wanted: int | None) -> int:
    """Find the zoom at which every archive has tiles, and the high-resolution one children.

    Raises:
        UsageError: there is no such zoom, or there are several and none was given.
    """
    fitting = set.intersection(
        *(
            {zoom - ZOOM_OFFSETS[name] for zoom in archive.zooms}
            for layout, archive in given_layouts(archives)
            for name in layout.modalities
        )
    )
    zooms = "; ".join(
        f"{archive.path.name} has zoom {', '.join(str(zoom) for zoom in archive.zooms)}"
        for archive in archives.values()
    )
    if not fitting:
        raise UsageError(
            "the archives share no zoom z, with z + 1 in the high-resolution one for the four "
            f"children ({zooms}); give the archives of one release."
        )
    if wanted in fitting or (wanted is None and len(fitting) == 1):
        return fitting.pop() if wanted is None else wanted
    choices = " or ".join(str(zoom) for zoom in sorted(fitting))
    raise UsageError(f"samples may be at zoom {choices} ({zooms}); say which with --zoom.")


def complete_samples(archives: Mapping[str, Archive], base_zoom: int) -> ArchiveSamples:
    """Find the tiles of which every archive has every part, in the store's order.

    Raises:
        SelectionError: there is no such tile.
    """
    # A sample needs all archives, so the one with the fewest tiles bounds the candidates.
    fewest = min(archives.values(), key=lambda archive: archive.num_tiles(base_zoom))
    x, y = tiles_of(base_zoom, fewest.ids(base_zoom))
    images = tuple(
        _find_images(layout, archive, name, base_zoom, x, y)
        for layout, archive in given_layouts(archives)
        for name in layout.modalities
    )
    complete = np.logical_and.reduce([(image.offset >= 0).all(axis=(1, 2)) for image in images])
    if not complete.any():
        counts = ", ".join(f"{(image.offset >= 0).sum()} of {image.modality}" for image in images)
        raise SelectionError(
            f"none of the {len(x)} tiles at zoom {base_zoom} has all parts (there are {counts}); give "
            "the archives of one release."
        )
    return ArchiveSamples(images=images).take(complete)


def _find_images(
    layout: ArchiveLayout,
    archive: Archive,
    name: str,
    base_zoom: int,
    x: NDArray[np.int64],
    y: NDArray[np.int64],
) -> ArchivedImages:
    zoom_offset = ZOOM_OFFSETS[name]
    columns, rows = child_tiles(zoom_offset, x, y)
    ids = tile_ids(base_zoom + zoom_offset, columns.ravel(), rows.ravel())
    offset, length = archive.find(ids.reshape(columns.shape))
    return ArchivedImages(
        modality=name,
        archive=archive.path,
        base_zoom=base_zoom,
        zoom_offset=zoom_offset,
        x=x,
        y=y,
        offset=offset,
        length=length,
        channels=layout.channels,
        zero_is_nodata=own_modalities(archive) is not None,
    )
