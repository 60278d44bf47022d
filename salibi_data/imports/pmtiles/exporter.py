"""Exports a store's images as PMTiles archives in the layout of the authors' release.

Archives are written one after the other, their tiles in the order of their ids. Each archive appears
whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.assembly.executor import WorkerDied, check_main_module, open_executor
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.builds.options import BuildOptions
from salibi_data.imports.pmtiles.directory import open_archive
from salibi_data.imports.pmtiles.layout import (
    LAYOUTS,
    ZOOM_OFFSETS,
    ArchiveLayout,
    child_tiles,
    fits,
    metadata_of,
)
from salibi_data.imports.pmtiles.tile_codec import encode
from salibi_data.store.errors import SalibiError, StoreError, UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.open import open_store
from salibi_data.store.schema import ATTRIBUTES_KEY, TILE_PX
from salibi_data.store.tiles import tile_bounds, tile_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.progress import Progress
    from salibi_data.store.schema import StoreAttributes

Tile = tuple[int, bytes]
"""PMTiles id of a tile, and the tile as PNG."""

_E7: Final = 10**7
"""Units per degree in the header of an archive."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Result of an export."""

    archives: Mapping[str, Path]
    """Paths by name: sar, lores, hires."""
    num_samples: int
    left_out: tuple[str, ...]
    """Names of modalities that the layout has no place for."""


@dataclass(frozen=True, kw_only=True)
class SampleRange:
    """Consecutive samples of one modality, encoded by one worker."""

    store: Path
    modality: str
    channels: tuple[int, ...]
    zoom_offset: int
    start: int
    stop: int

    def encode(self) -> list[Tile]:
        """Encode all tiles of the samples, in the order of their ids."""
        group, _ = open_store(self.store)
        zoom, x, y = group["tile"][self.start : self.stop].astype(np.int64).T
        images = group[self.modality][self.start : self.stop]
        columns, rows = child_tiles(self.zoom_offset, x, y)
        ids = tile_ids(int(zoom[0]) + self.zoom_offset, columns.ravel(), rows.ravel())
        num, bands = images.shape[:2]
        cut = images.reshape(num, bands, columns.shape[1], TILE_PX, columns.shape[2], TILE_PX)
        tiles = cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, bands, TILE_PX, TILE_PX)
        return [(int(ids[n]), encode(tiles[n], self.channels)) for n in np.argsort(ids)]


def export_pmtiles(
    store: str | Path,
    directory: str | Path,
    *,
    workers: int = BuildOptions.workers,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a store's images as archives of PNG tiles; archives that exist already are kept.

    Args:
        store: path of the Zarr group.
        directory: folder for ``sar_tiles.pmtile``, ``visual_tiles.pmtile`` and
            ``hires_visual_tiles.pmtile``; it is made.
        workers: number of processes that encode; any number gives the same bytes.
        progress: called as images are written.

    Raises:
        StoreError: no store is there, or another file is where an archive should be.
        UsageError: the store has no modality that the layout has a place for.

    Example:
        >>> _ = salibi_data.export_pmtiles(store_path, folder / "archives")
        >>> sorted(path.name for path in (folder / "archives").iterdir())
        ['hires_visual_tiles.pmtile', 'sar_tiles.pmtile', 'visual_tiles.pmtile']
    """
    check_main_module()
    group, attributes = open_store(store)
    tile = group["tile"][:].astype(np.int64)
    fitting = {layout.name: _fitting(attributes, layout) for layout in LAYOUTS}
    layouts = [layout for layout in LAYOUTS if fitting[layout.name]]
    if not layouts:
        raise UsageError(
            f"{store} has no image that these archives have a place for: sar of vv and vh, or lores, "
            "hires and hires_4x of red, green and blue."
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [
        layout for layout in layouts if not _is_exported(directory / layout.file_name, attributes)
    ]
    total = len(tile) * sum(len(fitting[layout.name]) for layout in missing)
    done = 0
    with open_executor(workers, None) as executor:
        for layout in missing:
            ranges = _ranges(Path(store), layout, fitting[layout.name], len(tile))
            tasks = (
                (n, SampleRange.encode, (sample_range,)) for n, sample_range in enumerate(ranges)
            )
            encoded = _in_order(executor.run(tasks))
            with _writer(directory / layout.file_name) as writer:
                for samples, tiles in zip(ranges, encoded, strict=True):
                    for tile_id, content in tiles:
                        writer.write_tile(tile_id, content)
                    done += samples.stop - samples.start
                    if progress is not None:
                        progress(done, total)
                writer.finalize(_header(tile), metadata_of(layout, attributes))
    used = {name for names in fitting.values() for name in names}
    return ExportReport(
        archives={layout.name: directory / layout.file_name for layout in layouts},
        num_samples=len(tile),
        left_out=tuple(sorted(set(attributes.modalities) - used)),
    )


def _fitting(attributes: StoreAttributes, layout: ArchiveLayout) -> list[str]:
    """Names of the modalities that fit an archive, in order of their zooms."""
    modalities = attributes.modalities
    return [
        name
        for name in layout.modalities
        if name in modalities and fits(layout, modalities[name], attributes.base_zoom)
    ]


def _is_exported(path: Path, attributes: StoreAttributes) -> bool:
    """Whether the archive of this store exists.

    Raises:
        StoreError: something else is at the path.
    """
    if not path.exists():
        return False
    try:
        attributes_of_archive: Any = open_archive(path).metadata[ATTRIBUTES_KEY]
        digest = attributes_of_archive["plan_digest"]
    except (SalibiError, KeyError, TypeError):
        digest = None
    if digest != attributes.plan_digest:
        raise StoreError(
            f"{path} exists and is not of this store; nothing was changed. Choose another folder, or "
            "remove it."
        )
    return True


def _ranges(
    store: Path, layout: ArchiveLayout, names: Sequence[str], num_samples: int
) -> list[SampleRange]:
    return [
        SampleRange(
            store=store,
            modality=name,
            channels=layout.channels,
            zoom_offset=ZOOM_OFFSETS[name],
            start=start,
            stop=min(start + SAMPLES_PER_SHARD, num_samples),
        )
        for name in names
        for start in range(0, num_samples, SAMPLES_PER_SHARD)
    ]


def _in_order(results: Iterable[tuple[int, list[Tile] | WorkerDied]]) -> Iterator[list[Tile]]:
    """Yield results in the order of their numbers."""
    waiting: dict[int, list[Tile]] = {}
    number = 0
    for finished, result in results:
        if isinstance(result, WorkerDied):
            raise StoreError(
                f"images could not be encoded: {result.reason}. Run the same command again, with "
                "fewer --workers if memory is short."
            )
        waiting[finished] = result
        while number in waiting:
            yield waiting.pop(number)
            number += 1


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """Open a writer of an archive; the file appears when the block ends without an error."""
    from pmtiles.writer import Writer

    with write_atomically(path) as partial, partial.open("wb") as file:
        writer: Any = Writer(file)
        # The writer's own temporary file lies in /tmp, and a release has gigabytes.
        writer.tile_f.close()
        with TemporaryFile(dir=path.parent) as writer.tile_f:
            yield writer


def _header(tile: NDArray[np.int64]) -> dict[str, Any]:
    """Header fields that the writer does not set: type, bounds, and the centre of a tile in the middle."""
    from pmtiles.tile import Compression, TileType

    zoom = int(tile[0, 0])
    bounds = tile_bounds(zoom, tile[:, 1], tile[:, 2])
    west, south = bounds[:, :2].min(axis=0)
    east, north = bounds[:, 2:].max(axis=0)
    middle = bounds[len(bounds) // 2]
    degrees = {
        "min_lon_e7": west,
        "min_lat_e7": south,
        "max_lon_e7": east,
        "max_lat_e7": north,
        "center_lon_e7": (middle[0] + middle[2]) / 2,
        "center_lat_e7": (middle[1] + middle[3]) / 2,
    }
    return {
        "tile_type": TileType.PNG,
        "tile_compression": Compression.NONE,
        "center_zoom": zoom,
        **{name: round(float(value) * _E7) for name, value in degrees.items()},
    }
