"""Plans: the tiles that become samples, their scenes and their order. A plan never changes.

A plan is a GeoParquet file with one row per sample. Its metadata hold the scenes, the variant and the
catalog. A build needs nothing else and never searches. The file is read row group by row group, so
that a plan of millions of tiles needs no more memory than one of thousands. Plans of equal content
have equal digests and give equal stores.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.providers import Catalog, catalog_from_dict
from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import Variant, native_gsd_m, variant_from_dict
from salibi_data.plans import alternatives, sampling
from salibi_data.plans.picks import SceneChoice, SceneSet
from salibi_data.store import geoparquet
from salibi_data.store.errors import GridError, PlanError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.schema import SPLITS, gsd_ratio
from salibi_data.store.tiles import TileXYZ, ground_gsd_m, tile_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.plans.picks import CellSelection
    from salibi_data.store.filesystem import ScratchFolder

PLAN_VERSION: Final = 3
PLANNED_CLOUDS: Final = "planned_cloud_fraction"
"""Name of the column with the clouds that were scored while planning."""
_DAY_S: Final = 86_400
_AGAIN: Final = "Plan again with `salibi-data plan`, and narrow it with --aoi, --bbox or --limit."


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Samples in the order of the store, with everything that a build needs.

    Example:
        >>> written = salibi_data.plan("micro", catalog=catalog, limit=4, output=folder / "plan.parquet")
        >>> again = salibi_data.Plan.read(folder / "plan.parquet")
        >>> again.digest == written.digest
        True
        >>> again
        Plan('micro' from 'sample-test': 4 samples, ... scenes, 'plan.parquet')
    """

    path: Path
    """GeoParquet file of the plan."""
    variant: Variant
    catalog: Catalog
    scenes: Mapping[str, Mapping[str, Scene]]
    """Scenes in use, by sensor and id."""
    lost: Mapping[str, int]
    """Number of candidate tiles left out, by reason."""
    request: Mapping[str, Any]
    """Arguments that the plan was made for, as :func:`~salibi_data.plans.planner.request` gives them."""
    expected: Mapping[str, Any]
    """Bytes and requests that a build is expected to take from the sources, and their price."""
    num_samples: int
    """Number of rows, those of the reserve included."""
    target_samples: int | None
    """Number of samples that the store is to have; other rows are a reserve. None for all that pass."""
    spare_scenes: Mapping[str, Mapping[str, Scene]] = field(default_factory=dict)
    """Scenes in no sample as planned, which may fill samples that lack pixels, by sensor and id."""
    alternatives: Mapping[str, Sequence[SceneSet]] = field(default_factory=dict)
    """Sets of scenes by sensor, which the rows name by number; none in plans of earlier versions."""
    warnings: Sequence[str] = ()
    """Messages about items that were left out."""
    keeper: ScratchFolder | None = None
    """Owner of the scratch folder with the plan's file; None for a file that is kept."""

    def __repr__(self) -> str:
        scenes = sum(len(by_id) for by_id in self.scenes.values())
        return (
            f"Plan({self.variant.name!r} from {self.catalog.name!r}: {self.num_samples} samples, "
            f"{scenes} scenes, {self.path.name!r})"
        )

    @classmethod
    def read(cls, path: str | Path, *, keeper: ScratchFolder | None = None) -> Plan:
        """Open a plan's file; its rows are read when they are needed.

        Raises:
            UsageError: there is no such file.
            PlanError: it is damaged, not a plan, or one of another version.
        """
        path = Path(path)
        with geoparquet.open_table(path) as (file, metadata):
            if metadata.get("plan_version") != PLAN_VERSION:
                raise PlanError(
                    f"{path} has plan version {metadata.get('plan_version')}; expected "
                    f"{PLAN_VERSION}. Plan again with `salibi-data plan`."
                )
            scenes = scenes_from_dict(metadata["scenes"])
            spare = scenes_from_dict(metadata.get("spare_scenes", {}))
            plan = cls(
                path=path,
                variant=variant_from_dict(metadata["variant"], where=str(path)),
                catalog=catalog_from_dict(metadata["catalog"], where=str(path), folder=path.parent),
                scenes=scenes,
                spare_scenes=spare,
                alternatives={
                    name: alternatives.sets_from_list(sets, {**scenes[name], **spare[name]})
                    for name, sets in metadata.get("alternatives", {}).items()
                },
                lost=metadata["lost"],
                request=metadata["request"],
                expected=metadata["expected"],
                num_samples=file.metadata.num_rows,
                target_samples=metadata["target_samples"],
                warnings=metadata.get("warnings", ()),
                keeper=keeper,
            )
        plan._check()
        return plan

    def _check(self) -> None:
        """Whether the rows are a plan's: a person may have edited them."""
        import pyarrow as pa

        sensors = self.variant.sensors
        columns = ["z", "x", "y", "tile_id", "split"]
        columns += [f"{name}_{what}" for name in sensors for what in ("items", "acquired")]
        columns += [alternatives.column_name(name) for name in self.alternatives]
        last_id = -1
        for table in self._tables(columns):
            try:
                ids = self._checked(table.select(columns))
            except (pa.ArrowException, GridError, LookupError, ValueError, TypeError) as error:
                raise PlanError(f"{self.path} is no plan any more: {error}. {_AGAIN}") from error
            if len(ids) == 0:
                continue
            if ids[0] <= last_id:
                raise PlanError(f"{self.path} is no plan any more: rows changed places. {_AGAIN}")
            last_id = int(ids[-1])
        if last_id < 0:
            raise PlanError(f"{self.path} holds no sample. {_AGAIN}")

    def _checked(self, table: Any) -> NDArray[np.int64]:
        """Tile ids of a row group; an error that says what is wrong with it."""
        if any(column.null_count for column in table.columns):
            raise ValueError("a row lacks a value")
        x, y, z = (table[name].to_numpy().astype(np.int64) for name in "xyz")
        if np.any(z != self.variant.base_zoom):
            raise ValueError(f"a row is not at zoom {self.variant.base_zoom}")
        if not np.isin(table["split"].to_numpy(), list(SPLITS.values())).all():
            raise ValueError("a row has an unknown split")
        for name in self.variant.sensors:
            if not set(_flat(table[f"{name}_items"])) <= set(self.scenes[name]):
                raise ValueError(f"a row has an unknown {name} scene")
        for name, sets in self.alternatives.items():
            numbers = _flat(table[alternatives.column_name(name)])
            if numbers and not 0 <= min(numbers) <= max(numbers) < len(sets):
                raise ValueError(f"a row has an unknown set of {name} scenes")
        ids = tile_ids(self.variant.base_zoom, x, y)
        # Equal ids are two rows for a tile, which would become two samples in the store.
        if np.any(np.diff(ids) <= 0):
            raise ValueError("rows changed places")
        return ids

    def write(self, path: str | Path) -> None:
        """Copy the plan's file; the copy appears whole or not at all."""
        with write_atomically(Path(path)) as partial:
            shutil.copyfile(self.path, partial)

    def choices(self) -> Iterator[SceneChoice]:
        """The samples in order, read as they are asked for."""
        names = self.variant.sensors
        numbers = {name: alternatives.column_name(name) for name in self.alternatives}
        columns = ["x", "y", "z", *(f"{name}_items" for name in names), *numbers.values()]
        known: dict[tuple[Any, ...], Mapping[str, tuple[SceneSet, ...]]] = {}
        for table in self._tables(columns):
            for row in table.to_pylist():
                key = tuple(tuple(row[column]) for column in numbers.values())
                # Thousands of tiles have the same sets.
                if key not in known:
                    known[key] = self._foreseen(dict(zip(numbers, key, strict=True)))
                yield SceneChoice(
                    tile=TileXYZ(row["x"], row["y"], row["z"]),
                    scenes={
                        name: tuple(self.scenes[name][id_] for id_ in row[f"{name}_items"])
                        for name in names
                    },
                    alternatives=known[key],
                )

    def _foreseen(self, numbers: Mapping[str, Sequence[int]]) -> dict[str, tuple[SceneSet, ...]]:
        """Sets of a tile by their numbers, without sensors that have nothing but the chosen scenes."""
        foreseen = {
            name: tuple(self.alternatives[name][number] for number in of_sensor)
            for name, of_sensor in numbers.items()
        }
        return {
            name: sets
            for name, sets in foreseen.items()
            if len(sets) > 1 or (sets and sets[0].fillers)
        }

    @property
    def all_scenes(self) -> dict[str, dict[str, Scene]]:
        """Scenes by sensor and id, in use and spare."""
        return {
            name: {**self.spare_scenes.get(name, {}), **used} for name, used in self.scenes.items()
        }

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """The samples as a pyarrow table, or some of its columns."""
        return geoparquet.read(self.path, None if columns is None else list(columns))[0]

    @property
    def num_wanted(self) -> int:
        """Number of samples that the store is to have at most."""
        return min(self.num_samples, self.target_samples or self.num_samples)

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Rank of each row by its sampling hash, shape (num_samples,)."""
        table = self.table(["x", "y"])
        x, y = (table[name].to_numpy() for name in ("x", "y"))
        order = np.argsort(sampling.sampling_hash(self.variant.base_zoom, x, y))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    @cached_property
    def rounds(self) -> NDArray[np.int64]:
        """Round in which a build reads each row, if it gets that far; shape (num_samples,)."""
        return sampling.rounds_of(self.ranks, self.target_samples)

    @cached_property
    def full_digest(self) -> str:
        """SHA-256 of the plan with its alternatives; :attr:`digest` where it has none.

        It identifies a store in which samples are made of other scenes than the chosen ones.
        """
        if not self.alternatives:
            return self.digest
        sets = {name: [each.ids for each in sets] for name, sets in self.alternatives.items()}
        content = [self.digest, sets, scenes_to_dict(self.spare_scenes)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        for table in self._tables([alternatives.column_name(name) for name in sets]):
            for column in table.columns:
                digest.update(json.dumps(column.to_pylist()).encode())
        return digest.hexdigest()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides the store's bytes; the address of a local catalog does not count.

        Alternatives do not count: they decide bytes only where the chosen scenes lack pixels.
        """
        variant = self.variant.to_dict()
        for key in ("summary", "region", "target_samples"):
            variant.pop(key)
        content = {
            "plan_version": PLAN_VERSION,
            "variant": variant,
            "catalog": {"name": self.catalog.name, "sensors": self.catalog.to_dict()["sensors"]},
            "scenes": scenes_to_dict(self.scenes),
            "request": self.request,
            "target_samples": self.target_samples,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        items = [f"{name}_items" for name in self.variant.sensors]
        for table in self._tables(["x", "y", "split", *items]):
            for name in ("x", "y", "split"):
                # Fixed width and byte order: the digest does not depend on Arrow's types.
                digest.update(table[name].to_numpy().astype("<i8").tobytes())
            for name in items:
                digest.update("\n".join(map("\t".join, table[name].to_pylist())).encode())
        return digest.hexdigest()

    def _tables(self, columns: list[str]) -> Iterator[Any]:
        with geoparquet.open_table(self.path) as (file, _):
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns)


def _flat(column: Any) -> list[Any]:
    import pyarrow.compute as pc

    unique: list[Any] = pc.list_flatten(column).unique().to_pylist()
    return unique


def metadata(
    variant: Variant,
    catalog: Catalog,
    scenes: Mapping[str, Mapping[str, Scene]],
    foreseen: Mapping[str, alternatives.SetRegister] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Metadata of a plan's file, and of ``samples.parquet``, which has no alternatives."""
    content = {
        "plan_version": PLAN_VERSION,
        "variant": variant.to_dict(),
        "catalog": catalog.to_dict(),
        # Shapes only check files, which a store has behind it.
        "scenes": scenes_to_dict(scenes, with_shapes=foreseen is not None),
        **more,
    }
    if foreseen is not None:
        spare = {
            name: {
                scene.id: scene
                for each in register.sets
                for scene in each.all_scenes
                if scene.id not in scenes[name]
            }
            for name, register in foreseen.items()
        }
        content["alternatives"] = {name: each.to_list() for name, each in foreseen.items()}
        content["spare_scenes"] = scenes_to_dict(spare, with_shapes=True)
    return content


def scenes_to_dict(
    scenes: Mapping[str, Mapping[str, Scene]], *, with_shapes: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """JSON form of scenes by sensor, in order of their ids."""
    return {
        sensor: [scene.to_dict(with_shapes=with_shapes) for _, scene in sorted(used.items())]
        for sensor, used in scenes.items()
    }


def scenes_from_dict(content: Mapping[str, Any]) -> dict[str, dict[str, Scene]]:
    """Scenes by sensor and id, from :func:`scenes_to_dict`."""
    return {
        sensor: {row["id"]: Scene.from_dict(sensor, row) for row in rows}
        for sensor, rows in content.items()
    }


def sample_columns(
    variant: Variant, catalog: Catalog, picks: CellSelection, split: NDArray[np.uint8]
) -> dict[str, Any]:
    """Columns of a cell for the plan and ``samples.parquet`` (pyarrow arrays)."""
    import pyarrow as pa

    tiles = picks.tiles
    gsd_m = ground_gsd_m(tiles.zoom, tiles.y)
    columns: dict[str, Any] = {
        "z": pa.array(np.full(len(tiles), tiles.zoom, np.int32)),
        "x": pa.array(tiles.x.astype(np.int32)),
        "y": pa.array(tiles.y.astype(np.int32)),
        "tile_id": pa.array(tile_ids(tiles.zoom, tiles.x, tiles.y)),
        "gsd_m": pa.array(gsd_m.astype(np.float32)),
        "split": pa.array(split),
    }
    acquired_s: dict[str, NDArray[np.float64]] = {}
    for sensor in variant.sensors:
        sets, code = picks.sets[sensor], picks.code[sensor]
        ids = pa.array([[scene.id for scene in used] for used in sets], pa.list_(pa.string()))
        times = pa.array([used[0].acquired_utc for used in sets], pa.timestamp("us", tz="UTC"))
        columns[f"{sensor}_items"] = ids.take(pa.array(code))
        columns[f"{sensor}_acquired"] = times.take(pa.array(code))
        acquired_s[sensor] = np.array([used[0].acquired_utc.timestamp() for used in sets])[code]
    for rule in variant.selection:
        if rule.sensor in acquired_s and rule.near in acquired_s:
            days = (acquired_s[rule.sensor] - acquired_s[rule.near]) / _DAY_S
            columns[f"{rule.sensor}_days_after_{rule.near}"] = pa.array(days.astype(np.float32))
    for recipe in variant.modalities:
        native_m = np.array(
            [
                native_gsd_m(recipe, catalog, used[0].properties) or np.nan
                for used in picks.sets[recipe.sensor]
            ]
        )[picks.code[recipe.sensor]]
        pixel_m = gsd_m * gsd_ratio(recipe.zoom_offset, 0)
        columns[f"{recipe.name}_enlargement"] = pa.array((native_m / pixel_m).astype(np.float32))
    if np.isfinite(picks.cloud_fraction).any():
        columns[PLANNED_CLOUDS] = pa.array(picks.cloud_fraction)
    return columns


BLOCK_ZOOM_OFFSET: Final = 2
"""Levels from a tile to its block: at most 4 x 4 tiles, 2048 px at the finer zoom.

A block of that size takes about 150 MB while it is warped.
"""
