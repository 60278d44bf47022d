"""Drafts: plans in the making, on disk until every cell is known.

A limit on samples and splits by clusters of scenes depend on all cells together. Until then the
cells are columns of numbers in a file, so that memory grows with the number of scenes, and not with
the number of tiles.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.plans import alternatives, sampling, splits
from salibi_data.plans.estimate import Tally
from salibi_data.plans.picks import CellSelection
from salibi_data.plans.plan import metadata, sample_columns
from salibi_data.store.errors import UsageError
from salibi_data.store.geoparquet import write_rows
from salibi_data.store.tiles import Tiles, tile_outlines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import Variant


class Draft:
    """Selections of cells in the order of the plan, written as a plan when all cells are added.

    Args:
        path: scratch file for the cells.
        variant: variant of the plan.
        catalog: catalog of the scenes.
        limit: maximum number of tiles in the plan; None for all.
        target: number of samples that the store is to have; the plan then holds a reserve as well.
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
        self._limit = limit if target is None else sampling.num_planned(target)
        self._sets: dict[str, list[tuple[Scene, ...]]] = {name: [] for name in variant.sensors}
        self._numbers: dict[str, dict[tuple[str, ...], int]] = {n: {} for n in variant.sensors}
        self._foreseen = {name: alternatives.SetRegister() for name in variant.sensors}
        self._orders = {name: alternatives.OrderRegister() for name in variant.sensors}
        self._clusters = splits.SceneClusters(variant) if variant.split_by == "scenes" else None
        self._lowest_hashes = np.empty(0, dtype=np.uint64)
        fields = [("x", pa.int64()), ("y", pa.int64()), ("cloud", pa.float32())]
        fields += [(name, pa.int64()) for name in variant.sensors]
        fields += [(alternatives.column_name(name), pa.int32()) for name in variant.sensors]
        self._schema = pa.schema(fields)
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self.lost: Counter[str] = Counter()
        self.num_samples = 0

    def add(self, selection: CellSelection) -> None:
        """Add the tiles of the next cell."""
        import pyarrow as pa

        self.lost.update(selection.lost)
        self.num_samples += len(selection.tiles)
        if len(selection.tiles) == 0:
            return
        tiles = selection.tiles
        codes = {name: self._set_numbers(selection, name) for name in self._variant.sensors}
        columns = {"x": tiles.x, "y": tiles.y, "cloud": selection.cloud_fraction, **codes}
        arrays = [pa.array(values) for values in columns.values()]
        arrays += [
            pa.array(self._orders[name].number(self._foreseen_numbers(selection, name)))
            for name in self._variant.sensors
        ]
        self._writer.write(pa.record_batch(arrays, schema=self._schema))
        if self._limit is not None:
            hashes = np.concatenate(
                [self._lowest_hashes, sampling.sampling_hash(tiles.zoom, tiles.x, tiles.y)]
            )
            # Only the lowest hashes so far are kept, so that memory does not grow with the area.
            self._lowest_hashes = np.sort(hashes)[: self._limit]
        if self._clusters is not None:
            self._clusters.add(selection)

    def write(
        self,
        path: Path,
        *,
        request: Mapping[str, Any],
        max_bytes: int | None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Write the plan; it appears whole or not at all.

        Raises:
            UsageError: building it is expected to read more than ``max_bytes``.
        """
        self._writer.close()
        self._file.close()
        tally, used = Tally(self._variant, self._catalog), _UsedScenes(self._sets)
        codes = self._clusters.assign() if self._clusters is not None else {}
        written = {name: alternatives.SetRegister() for name in self._variant.sensors}

        def plan_metadata() -> dict[str, Any]:
            lost = {reason: count for reason, count in sorted(self.lost.items()) if count}
            return metadata(
                self._variant,
                self._catalog,
                used.scenes(),
                written,
                lost=lost,
                request=request,
                warnings=list(warnings),
                expected=tally.summary(),
                target_samples=self._target,
            )

        owners = None
        if self._clusters is not None:
            owners = alternatives.SceneOwners()
            for selection in self._limited_cells():
                owners.add(selection, self._split(codes, selection.tiles))
        with write_rows(path, plan_metadata) as add_rows:
            for limited in self._limited_cells():
                split = self._split(codes, limited.tiles)
                selection = limited if owners is None else owners.restrict(limited, split)
                x, y = selection.tiles.x, selection.tiles.y
                columns = sample_columns(self._variant, self._catalog, selection, split)
                for name, register in written.items():
                    numbers = register.renumber(
                        selection.alternatives[name], selection.alternative_sets[name].__getitem__
                    )
                    columns[alternatives.column_name(name)] = alternatives.column(numbers)
                add_rows(columns, tile_outlines(selection.tiles.zoom, x, y))
                tally.add(self._expected_reads(selection))
                used.add(selection)
            check_budget(tally.summary(), max_bytes)

    def _split(self, codes: Mapping[splits.Block, int], tiles: Tiles) -> NDArray[np.uint8]:
        """Split code of each tile, shape (N,)."""
        if self._clusters is not None:
            return self._clusters.split(codes, tiles.x, tiles.y)
        return splits.assign(self._variant, tiles.x, tiles.y)

    def _limited_cells(self) -> Iterator[CellSelection]:
        """Read the cells again, without the tiles that the limit leaves out."""
        import pyarrow as pa

        # Read batch by batch, not mapped: pages of a mapped file count as memory of the process.
        with pa.OSFile(str(self._path), "rb") as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                flat = ("x", "y", "cloud", *self._variant.sensors)
                column = {name: batch[name].to_numpy() for name in flat}
                foreseen = {
                    name: batch[alternatives.column_name(name)].to_numpy()
                    for name in self._variant.sensors
                }
                tiles = Tiles(zoom=self._variant.base_zoom, x=column["x"], y=column["y"])
                keep = np.ones(len(tiles), dtype=bool)
                if self._limit is not None:
                    keep = np.isin(
                        sampling.sampling_hash(tiles.zoom, tiles.x, tiles.y), self._lowest_hashes
                    )
                if keep.any():
                    yield CellSelection(
                        tiles=tiles.take(keep),
                        sets=self._sets,
                        code={name: column[name][keep] for name in self._variant.sensors},
                        cloud_fraction=column["cloud"][keep],
                        lost={},
                        alternative_sets={name: each.sets for name, each in self._foreseen.items()},
                        alternatives={
                            name: self._orders[name].code(numbers[keep])
                            for name, numbers in foreseen.items()
                        },
                    )

    def _expected_reads(self, selection: CellSelection) -> CellSelection:
        """Selection without the tiles of the reserve that a build is not expected to read."""
        if self._target is None or sampling.expected_reads(self._target) >= len(
            self._lowest_hashes
        ):
            return selection
        tiles = selection.tiles
        last = self._lowest_hashes[sampling.expected_reads(self._target) - 1]
        keep = sampling.sampling_hash(tiles.zoom, tiles.x, tiles.y) <= last
        return replace(
            selection,
            tiles=tiles.take(keep),
            code={name: code[keep] for name, code in selection.code.items()},
            cloud_fraction=selection.cloud_fraction[keep],
        )

    def _set_numbers(self, selection: CellSelection, sensor: str) -> NDArray[np.int64]:
        """Number of each tile's set among the sets of all cells, (N,)."""
        sets, numbers = self._sets[sensor], self._numbers[sensor]
        numbers_of_sets = np.full(len(selection.sets[sensor]), -1, dtype=np.int64)
        for number in np.unique(selection.code[sensor]).tolist():
            scenes = selection.sets[sensor][number]
            key = tuple(scene.id for scene in scenes)
            if key not in numbers:
                numbers[key] = len(sets)
                sets.append(scenes)
            numbers_of_sets[number] = numbers[key]
        return numbers_of_sets[selection.code[sensor]]

    def _foreseen_numbers(self, selection: CellSelection, sensor: str) -> NDArray[np.int32]:
        """Numbers of each tile's sets among the foreseen sets of all cells, (N, sets)."""
        code = selection.alternatives.get(sensor)
        if code is None:
            return np.empty((len(selection.tiles), 0), dtype=np.int32)
        sets = selection.alternative_sets[sensor]
        return self._foreseen[sensor].renumber(code, sets.__getitem__)


class _UsedScenes:
    """Scenes that the samples of the plan use."""

    def __init__(self, sets: Mapping[str, list[tuple[Scene, ...]]]) -> None:
        self._sets = sets
        self._numbers: dict[str, set[int]] = {name: set() for name in sets}

    def add(self, selection: CellSelection) -> None:
        for name, code in selection.code.items():
            self._numbers[name].update(np.unique(code).tolist())

    def scenes(self) -> dict[str, dict[str, Scene]]:
        return {
            name: {s.id: s for number in numbers for s in self._sets[name][number]}
            for name, numbers in self._numbers.items()
        }


def check_budget(expected: Mapping[str, Any], max_bytes: int | None) -> None:
    """Refuse a plan that would read more than a budget.

    Raises:
        UsageError: the plan is expected to read more than ``max_bytes``.
    """
    if max_bytes is not None and expected["source_bytes"] > max_bytes:
        raise UsageError(
            f"building this would read about {expected['source_bytes'] / 1e9:,.1f} GB in "
            f"{expected['source_requests']:,} requests ({expected['usd']:,.2f} USD where the "
            f"requester pays), more than the {max_bytes / 1e9:,.1f} GB of --max-bytes. Give a "
            "smaller area or a --limit, or raise it."
        )
