"""``samples.parquet``: one row per sample of a store, with the columns that users filter by.

Source: GeoParquet specification 1.1.0; columns as docs/format.md lists them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.catalog.variants import native_gsd_m, used_assets
from salibi_data.plans.alternatives import column_name
from salibi_data.plans.picks import CellSelection
from salibi_data.plans.plan import PLANNED_CLOUDS, Plan, metadata, sample_columns
from salibi_data.store import geoparquet
from salibi_data.store.schema import SAMPLES_NAME
from salibi_data.store.tiles import Tiles, tile_ids, tile_outlines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from salibi_data.builds.layout import StoreRows


def store_digest(plan: Plan, rows: StoreRows) -> str:
    """Digest of the plan that identifies the store: with its alternatives only where one is used."""
    return plan.full_digest if rows.is_replaced else plan.digest


def rows_of(plan: Plan, rows: StoreRows, columns: Sequence[str] | None = None) -> Any:
    """Columns of the plan for the rows of the store, with the scenes that gave the pixels."""
    table = plan.table(columns).take([row.position for row in rows.rows])
    foreseen = [column_name(sensor) for sensor in plan.variant.sensors]
    table = table.drop_columns([name for name in foreseen if name in table.column_names])
    return _with_used_scenes(plan, rows, table) if rows.is_replaced else table


def _with_used_scenes(plan: Plan, rows: StoreRows, table: Any) -> Any:
    """Put the scenes that gave the pixels, and what follows from them, into the columns of a plan."""
    import pyarrow as pa

    sensors = plan.variant.sensors
    changed = [index for index, row in enumerate(rows.rows) if row.replaced]
    planned = plan.table(["x", "y", "split", *(f"{sensor}_items" for sensor in sensors)])
    planned = planned.take([rows.rows[index].position for index in changed])
    scenes = plan.all_scenes
    sets = {
        sensor: [
            tuple(scenes[sensor][id_] for id_ in rows.rows[index].replaced.get(sensor, ids))
            for index, ids in zip(changed, planned[f"{sensor}_items"].to_pylist(), strict=True)
        ]
        for sensor in sensors
    }
    used = CellSelection(
        tiles=Tiles(
            zoom=plan.variant.base_zoom,
            x=planned["x"].to_numpy().astype(np.int64),
            y=planned["y"].to_numpy().astype(np.int64),
        ),
        sets=sets,
        code={sensor: np.arange(len(changed)) for sensor in sensors},
        cloud_fraction=np.full(len(changed), np.nan, np.float32),
        lost={},
    )
    columns = sample_columns(plan.variant, plan.catalog, used, planned["split"].to_numpy())
    if PLANNED_CLOUDS in table.column_names:
        columns[PLANNED_CLOUDS] = _planned_clouds(plan, rows, table, changed)
    order = np.arange(len(table))
    order[changed] = len(table) + np.arange(len(changed))
    for number, name in enumerate(table.column_names):
        if name in columns:
            column = pa.chunked_array([*table[name].chunks, columns[name].cast(table[name].type)])
            table = table.set_column(number, name, column.take(pa.array(order)))
    return table


def _planned_clouds(plan: Plan, rows: StoreRows, table: Any, changed: Sequence[int]) -> Any:
    """Clouds scored while planning, of some rows; NaN where they are those of other scenes."""
    import pyarrow as pa

    scored = table[PLANNED_CLOUDS].to_numpy()[changed]
    masked = {name for name in plan.variant.sensors if plan.catalog.sensors[name].clouds}
    is_other = [not masked.isdisjoint(rows.rows[index].replaced) for index in changed]
    return pa.array(np.where(is_other, np.float32("nan"), scored))


def planned_items_name(sensor: str) -> str:
    """Name of the column with the planned scenes of the samples that are made of others."""
    return f"{sensor}_planned_items"


def replaced_of_store(store: Path) -> list[dict[str, Any]]:
    """Samples of a finished store that are made of other scenes than planned.

    Returns:
        ``tile`` (``zoom/column/row``), ``sensor``, ``planned`` and ``used`` ids of each.
    """
    with geoparquet.open_table(store / SAMPLES_NAME) as (file, _):
        names = set(file.schema_arrow.names)
        ending = planned_items_name("")
        sensors = [name.removesuffix(ending) for name in sorted(names) if name.endswith(ending)]
        columns = [name(sensor) for sensor in sensors for name in (planned_items_name, items_name)]
        table = file.read(columns=["z", "x", "y", *columns]) if sensors else None
    return [
        {
            "tile": f"{row['z']}/{row['x']}/{row['y']}",
            "sensor": sensor,
            "planned": row[planned_items_name(sensor)],
            "used": row[items_name(sensor)],
        }
        for row in (table.to_pylist() if table is not None else ())
        for sensor in sensors
        if row[planned_items_name(sensor)] is not None
    ]


def items_name(sensor: str) -> str:
    """Name of the column with the ids of a sensor's scenes."""
    return f"{sensor}_items"


def acquired_columns(plan: Plan) -> list[str]:
    """Names of the columns with the acquisition times, one per sensor."""
    return [f"{sensor}_acquired" for sensor in plan.variant.sensors]


def write_samples(path: Path, plan: Plan, rows: StoreRows) -> None:
    """Write the table of a store's samples; the file appears whole or not at all."""
    import pyarrow as pa
    from shapely import from_wkb

    table = rows_of(plan, rows)
    columns = {name: table[name] for name in table.column_names if name != "geometry"}
    for sensor in sorted({sensor for row in rows.rows for sensor in row.replaced}):
        planned = plan.table([f"{sensor}_items"])[f"{sensor}_items"].to_pylist()
        lists = [planned[row.position] if sensor in row.replaced else None for row in rows.rows]
        columns[planned_items_name(sensor)] = pa.array(lists, pa.list_(pa.string()))
    for number, sensor in enumerate(plan.variant.sensors):
        columns.update(_source_columns(plan, sensor, table[f"{sensor}_items"].to_pylist()))
        valid = [row.valid_fraction[number] for row in rows.rows]
        columns[f"{sensor}_valid_fraction"] = pa.array(valid, pa.float32())
    columns["cloud_fraction"] = pa.array([r.cloud_fraction for r in rows.rows], pa.float32())
    for name in rows.rows[0].alignment:
        measured = [row.alignment[name] for row in rows.rows]
        columns[name] = pa.array(measured, pa.float32())
    known = plan.all_scenes
    scenes = {
        sensor: {
            id_: known[sensor][id_]
            for items in table[f"{sensor}_items"].to_pylist()
            for id_ in items
        }
        for sensor in plan.variant.sensors
    }
    about = metadata(
        plan.variant,
        replace(
            plan.catalog, url=""
        ),  # a folder of the builder's machine does not belong in a store
        scenes,
        plan_digest=store_digest(plan, rows),
        request=plan.request,
    )
    with geoparquet.write_rows(path, lambda: about) as add_rows:
        add_rows(columns, from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))


def write_unsourced(path: Path, *, sensors: Sequence[str], about: Mapping[str, Any]) -> None:
    """Write the table of samples of unknown scenes and dates: nulls and empty lists.

    Args:
        path: file in the store's group; the index arrays are written already.
        sensors: names of the columns of the per-sensor arrays.
        about: metadata of the file.
    """
    import pyarrow as pa
    import zarr

    group: Any = zarr.open_group(path.parent, mode="r")
    z, x, y = group["tile"][:].T
    columns = {
        **{name: pa.array(values) for name, values in zip("zxy", (z, x, y), strict=True)},
        "tile_id": pa.array(tile_ids(int(z[0]), x, y)),
        "gsd_m": pa.array(group["gsd_m"][:]),
        "split": pa.array(group["split"][:]),
    }
    for number, sensor in enumerate(sensors):
        empty = pa.array([[]] * len(z), pa.list_(pa.string()))
        columns[f"{sensor}_items"] = columns[f"{sensor}_hrefs"] = empty
        columns[f"{sensor}_acquired"] = pa.nulls(len(z), pa.timestamp("us", tz="UTC"))
        columns[f"{sensor}_valid_fraction"] = pa.array(
            np.ascontiguousarray(group["valid_fraction"][:, number])
        )
    columns["cloud_fraction"] = pa.array(group["cloud_fraction"][:])
    with geoparquet.write_rows(path, lambda: about) as add_rows:
        add_rows(columns, tile_outlines(int(z[0]), x, y))


def _source_columns(plan: Plan, sensor: str, items: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Columns of one sensor: hrefs of all scenes, orbit and native pixel size of the first."""
    import pyarrow as pa

    known = plan.all_scenes[sensor]
    scenes = [[known[id_] for id_ in ids] for ids in items]
    assets = used_assets(plan.variant, plan.catalog, sensor)
    hrefs = [[scene.hrefs[asset] for scene in used for asset in assets] for used in scenes]
    columns = {f"{sensor}_hrefs": pa.array(hrefs)}
    orbits = [used[0].properties.get("sat:orbit_state") for used in scenes]
    if any(orbit is not None for orbit in orbits):
        columns[f"{sensor}_orbit_state"] = pa.array(orbits)
    recipe = next(row for row in plan.variant.modalities if row.sensor == sensor)
    sizes = [native_gsd_m(recipe, plan.catalog, used[0].properties) for used in scenes]
    columns[f"{sensor}_native_gsd_m"] = pa.array(sizes, pa.float64())
    return columns
