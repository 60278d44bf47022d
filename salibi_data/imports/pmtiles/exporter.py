"""A store's images as PMTiles archives in the layout of the authors' release.

One archive after another, tile after tile in the order of their ids; each archive appears whole.
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
from salibi_data.imports.pmtiles.directory import open_archive
from salibi_data.imports.pmtiles.layout import (
    LAYOUTS,
    ZOOM_OFFSETS,
    Layout,
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
"""PMTiles id and PNG."""

_E7: Final = 10**7
"""The header keeps degrees in whole ten-millionths."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did."""

    archives: Mapping[str, Path]
    """By name: sar, lores, hires."""
    num_samples: int
    left_out: tuple[str, ...]
    """Modalities of the store that the layout has no place for."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Consecutive samples of one modality, to be encoded by whoever is free."""

    store: Path
    modality: str
    channels: tuple[int, ...]
    zoom_offset: int
    start: int
    stop: int

    def encode(self) -> list[Tile]:
        """All tiles of the samples, in the order of their ids."""
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
    workers: int = 1,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a store's images as archives of PNG tiles; those that are there already are left alone.

    Args:
        store: path of the Zarr group.
        directory: folder for ``sar_tiles.pmtile``, ``visual_tiles.pmtile`` and
            ``hires_visual_tiles.pmtile``; it is made.
        workers: processes that encode; the bytes do not depend on their number.
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
    held = {layout.name: _held(attributes, layout) for layout in LAYOUTS}
    layouts = [layout for layout in LAYOUTS if held[layout.name]]
    if not layouts:
        raise UsageError(
            f"{store} has no image that these archives have a place for: sar of vv and vh, or lores, "
            "hires and hires_4x of red, green and blue."
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [
        layout for layout in layouts if not _is_there(directory / layout.file_name, attributes)
    ]
    total = len(tile) * sum(len(held[layout.name]) for layout in missing)
    done = 0
    with open_executor(workers, None) as executor:
        for layout in missing:
            runs = _runs(Path(store), layout, held[layout.name], len(tile))
            tasks = ((n, Run.encode, (run,)) for n, run in enumerate(runs))
            encoded = _in_order(executor.run(tasks))
            with _writer(directory / layout.file_name) as writer:
                for run, tiles in zip(runs, encoded, strict=True):
                    for tile_id, content in tiles:
                        writer.write_tile(tile_id, content)
                    done += run.stop - run.start
                    if progress is not None:
                        progress(done, total)
                writer.finalize(_header(tile), metadata_of(layout, attributes))
    used = {name for names in held.values() for name in names}
    return ExportReport(
        archives={layout.name: directory / layout.file_name for layout in layouts},
        num_samples=len(tile),
        left_out=tuple(sorted(set(attributes.modalities) - used)),
    )


def _held(attributes: StoreAttributes, layout: Layout) -> list[str]:
    """Modalities of a store that an archive has a place for, in order of their zooms."""
    there = attributes.modalities
    return [
        name
        for name in layout.modalities
        if name in there and fits(layout, there[name], attributes.base_zoom)
    ]


def _is_there(path: Path, attributes: StoreAttributes) -> bool:
    """Whether the archive of this store is there; an error if something else is."""
    if not path.exists():
        return False
    try:
        said: Any = open_archive(path).metadata[ATTRIBUTES_KEY]
        found = said["plan_digest"]
    except (SalibiError, KeyError, TypeError):
        found = None
    if found != attributes.plan_digest:
        raise StoreError(
            f"{path} exists and is not of this store; nothing was changed. Choose another folder, or "
            "remove it."
        )
    return True


def _runs(store: Path, layout: Layout, names: Sequence[str], num_samples: int) -> list[Run]:
    return [
        Run(
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
    """Results in the order of their numbers; those that came early wait."""
    waiting: dict[int, list[Tile]] = {}
    number = 0
    for found, result in results:
        if isinstance(result, WorkerDied):
            raise StoreError(
                f"images could not be encoded: {result.reason}. Run the same command again, with "
                "fewer --workers if memory is short."
            )
        waiting[found] = result
        while number in waiting:
            yield waiting.pop(number)
            number += 1


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    """A writer of the archive at ``path``, which appears whole when the block ends well."""
    from pmtiles.writer import Writer

    with write_atomically(path) as partial, partial.open("wb") as file:
        writer: Any = Writer(file)
        # Its own is where small temporary files belong, and a release has gigabytes.
        writer.tile_f.close()
        with TemporaryFile(dir=path.parent) as writer.tile_f:
            yield writer


def _header(tile: NDArray[np.int64]) -> dict[str, Any]:
    """What the writer does not know by itself: kind and place. The centre is a tile that exists."""
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
