"""``samples.parquet``: one row per sample of a store, with the columns that users filter by.

Source: GeoParquet specification 1.1.0; columns as docs/format.md lists them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from salibi_data.catalog.variants import native_gsd_m, used_assets
from salibi_data.plans.plan import Plan, metadata
from salibi_data.store import geoparquet
from salibi_data.store.tiles import tile_ids, tile_outlines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from salibi_data.builds.layout import StoreRows


def rows_of(plan: Plan, rows: StoreRows, columns: Sequence[str] | None = None) -> Any:
    """Columns of the plan for the rows of the store."""
    return plan.table(columns).take([row.position for row in rows.rows])


def acquired_columns(plan: Plan) -> list[str]:
    """Names of the columns with the acquisition times, one per sensor."""
    return [f"{sensor}_acquired" for sensor in plan.variant.sensors]


def write_samples(path: Path, plan: Plan, rows: StoreRows) -> None:
    """Write the table of a store's samples; the file appears whole or not at all."""
    import pyarrow as pa
    from shapely import from_wkb

    table = rows_of(plan, rows)
    columns = {name: table[name] for name in table.column_names if name != "geometry"}
    for number, sensor in enumerate(plan.variant.sensors):
        columns.update(_source_columns(plan, sensor, table[f"{sensor}_items"].to_pylist()))
        valid = [row.valid_fraction[number] for row in rows.rows]
        columns[f"{sensor}_valid_fraction"] = pa.array(valid, pa.float32())
    columns["cloud_fraction"] = pa.array([r.cloud_fraction for r in rows.rows], pa.float32())
    for name in rows.rows[0].alignment:
        measured = [row.alignment[name] for row in rows.rows]
        columns[name] = pa.array(measured, pa.float32())
    scenes = {
        sensor: {
            id_: plan.scenes[sensor][id_]
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
        plan_digest=plan.digest,
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
    import numpy as np
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

    scenes = [[plan.scenes[sensor][id_] for id_ in ids] for ids in items]
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
