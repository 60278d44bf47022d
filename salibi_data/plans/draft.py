"""A plan in the making: what each cell gave, on disk, until all of it is known.

Which samples a limit keeps, and how clusters of scenes are split, is decided by all cells
together. Cells are kept in columns of numbers until then, in a file: memory grows with the number
of scenes, not of tiles.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.plans import sampling as lots
from salibi_data.plans import splits
from salibi_data.plans.estimate import Tally
from salibi_data.plans.picks import CellSelection
from salibi_data.plans.plan import metadata, sample_columns
from salibi_data.store.errors import UsageError
from salibi_data.store.geoparquet import write_rows
from salibi_data.store.tiles import Tiles, tile_outlines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import Variant


class Draft:
    """CellSelection of cells in the order of the plan; written as a plan once all are there.

    Args:
        path: file to keep them in.
        variant: what the samples are made of.
        catalog: what they are made from.
        limit: most tiles that the plan may hold; None: all of them.
        target: samples that the store is to have; the plan then holds a reserve beside them.
    """

    def __init__(
        self,
        path: Path,
        variant: Variant,
        catalog: Catalog,
        *,
        limit: int | None = None,
        target: int | None = None,
    ) -> None:
        import pyarrow as pa

        self._variant, self._catalog, self._target = variant, catalog, target
        self._limit = limit if target is None else lots.num_planned(target)
        self._sets: dict[str, list[tuple[Scene, ...]]] = {name: [] for name in variant.sensors}
        self._numbers: dict[str, dict[tuple[str, ...], int]] = {n: {} for n in variant.sensors}
        self._clusters = splits.SceneClusters(variant) if variant.split_by == "scenes" else None
        self._least = np.empty(0, dtype=np.uint64)
        fields = [("x", pa.int64()), ("y", pa.int64()), ("cloud", pa.float32())]
        self._schema = pa.schema([*fields, *((name, pa.int64()) for name in variant.sensors)])
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self.lost: Counter[str] = Counter()
        self.num_samples = 0

    def add(self, picks: CellSelection) -> None:
        """The next cell's tiles."""
        import pyarrow as pa

        self.lost.update(picks.lost)
        self.num_samples += len(picks.tiles)
        if len(picks.tiles) == 0:
            return
        tiles = picks.tiles
        codes = {name: self._renumbered(picks, name) for name in self._variant.sensors}
        columns = {"x": tiles.x, "y": tiles.y, "cloud": picks.cloud_fraction, **codes}
        arrays = [pa.array(columns[name]) for name in self._schema.names]
        self._writer.write(pa.record_batch(arrays, schema=self._schema))
        if self._limit is not None:
            drawn = np.concatenate([self._least, lots.lot(tiles.zoom, tiles.x, tiles.y)])
            self._least = np.sort(drawn)[: self._limit]
        if self._clusters is not None:
            self._clusters.add(picks)

    def write(self, path: Path, *, request: Mapping[str, Any], max_bytes: int | None) -> None:
        """Write the plan; it appears whole or not at all.

        Raises:
            UsageError: building it is expected to read more than ``max_bytes``.
        """
        self._writer.close()
        self._file.close()
        tally, used = Tally(self._variant, self._catalog), _Used(self._sets)
        codes = self._clusters.assign() if self._clusters is not None else None

        def about() -> dict[str, Any]:
            lost = {reason: count for reason, count in sorted(self.lost.items()) if count}
            return metadata(
                self._variant,
                self._catalog,
                used.scenes(),
                lost=lost,
                request=request,
                expected=tally.summary(),
                target_samples=self._target,
            )

        with write_rows(path, about) as add_rows:
            for picks in self._kept():
                x, y = picks.tiles.x, picks.tiles.y
                if self._clusters is not None and codes is not None:
                    split = self._clusters.split(codes, x, y)
                else:
                    split = splits.assign(self._variant, x, y)
                columns = sample_columns(self._variant, self._catalog, picks, split)
                add_rows(columns, tile_outlines(picks.tiles.zoom, x, y))
                tally.add(self._to_be_read(picks))
                used.add(picks)
            check_budget(tally.summary(), max_bytes)

    def _kept(self) -> Iterator[CellSelection]:
        """The cells again, without what the limit leaves out."""
        import pyarrow as pa

        with pa.memory_map(str(self._path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                column = {name: batch[name].to_numpy() for name in self._schema.names}
                tiles = Tiles(zoom=self._variant.base_zoom, x=column["x"], y=column["y"])
                keep = np.ones(len(tiles), dtype=bool)
                if self._limit is not None:
                    keep = np.isin(lots.lot(tiles.zoom, tiles.x, tiles.y), self._least)
                if keep.any():
                    yield CellSelection(
                        tiles=tiles.take(keep),
                        sets=self._sets,
                        code={name: column[name][keep] for name in self._variant.sensors},
                        cloud_fraction=column["cloud"][keep],
                        lost={},
                    )

    def _to_be_read(self, picks: CellSelection) -> CellSelection:
        """The picks without those of the reserve that building is not expected to need."""
        if self._target is None or lots.num_read(self._target) >= len(self._least):
            return picks
        tiles = picks.tiles
        last = self._least[lots.num_read(self._target) - 1]
        keep = lots.lot(tiles.zoom, tiles.x, tiles.y) <= last
        return replace(
            picks,
            tiles=tiles.take(keep),
            code={name: code[keep] for name, code in picks.code.items()},
            cloud_fraction=picks.cloud_fraction[keep],
        )

    def _renumbered(self, picks: CellSelection, sensor: str) -> NDArray[np.int64]:
        """The tiles' sets by their numbers among all cells' sets."""
        sets, numbers = self._sets[sensor], self._numbers[sensor]
        of_cell = np.full(len(picks.sets[sensor]), -1, dtype=np.int64)
        for number in np.unique(picks.code[sensor]).tolist():
            scenes = picks.sets[sensor][number]
            key = tuple(scene.id for scene in scenes)
            if key not in numbers:
                numbers[key] = len(sets)
                sets.append(scenes)
            of_cell[number] = numbers[key]
        return of_cell[picks.code[sensor]]


class _Used:
    """Which sets of scenes the kept samples use."""

    def __init__(self, sets: Mapping[str, list[tuple[Scene, ...]]]) -> None:
        self._sets = sets
        self._numbers: dict[str, set[int]] = {name: set() for name in sets}

    def add(self, picks: CellSelection) -> None:
        for name, code in picks.code.items():
            self._numbers[name].update(np.unique(code).tolist())

    def scenes(self) -> dict[str, dict[str, Scene]]:
        return {
            name: {s.id: s for number in numbers for s in self._sets[name][number]}
            for name, numbers in self._numbers.items()
        }


def check_budget(expected: Mapping[str, Any], max_bytes: int | None) -> None:
    """Refuse what would read more than a budget.

    Raises:
        UsageError: it would.
    """
    if max_bytes is not None and expected["source_bytes"] > max_bytes:
        raise UsageError(
            f"building this would read about {expected['source_bytes'] / 1e9:,.1f} GB in "
            f"{expected['source_requests']:,} requests ({expected['usd']:,.2f} USD where the "
            f"requester pays), more than the {max_bytes / 1e9:,.1f} GB of --max-bytes. Give a "
            "smaller area or a --limit, or raise it."
        )
