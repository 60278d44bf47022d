"""Predicts the workload of building a variant for the land of the whole continental U.S.

There can be a hundred million tiles, so they are not listed. Land is measured in the cells of one
zoom instead. All tiles of a row have the same size on the ground, so one estimate serves a row.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.variants import check_fit
from salibi_data.forecasts.costs import Workload
from salibi_data.forecasts.regions import AVAILABLE_SHARE, estimate_workload
from salibi_data.plans import sampling, splits
from salibi_data.plans.areas.area import CELL_ZOOM, Area
from salibi_data.store.tiles import Span, Tiles, tile_outlines

if TYPE_CHECKING:
    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variants import Variant

_EXCLUDED_FIPS: Final = frozenset({"02", "15", "60", "66", "69", "72", "78"})
"""FIPS codes of Alaska, Hawaii and the overseas territories."""

_SUMMED_FIELDS: Final = (
    "num_read",
    "num_files",
    "num_warped_px",
    "source_bytes",
    "source_requests",
    "read_usd",
)
"""Fields of :class:`~salibi_data.forecasts.costs.Workload` that grow with the number of tiles read."""

_PATCH_LEVELS: Final = 6
"""Number of zooms between a patch and its tiles. The estimate of a row uses a patch of 64 x 64
neighbouring tiles, which has 256 blocks and every kind of split."""


def continental_workload(variant: Variant, catalog: Catalog) -> Workload:
    """Estimate the work of building a variant on all land of the 48 states.

    Every tile outside the guard is read; the store keeps the samples that pass the filters.

    Args:
        variant: variant to build; its regions and target are ignored.
        catalog: sources to build from; no request is sent to it.

    Raises:
        UsageError: the catalog cannot give what the variant needs.
    """
    check_fit(variant, catalog)
    total: dict[str, float] = dict.fromkeys(_SUMMED_FIELDS, 0.0)
    for row, num_cells in _land_by_row().items():
        patch = _patch(variant.base_zoom, row)
        usable = patch
        if variant.split_by == "blocks":
            usable = patch.take(splits.outside_guard(variant, patch.x, patch.y))
        num_tiles = num_cells * 4.0 ** (variant.base_zoom - CELL_ZOOM)
        num_patches = num_tiles / len(patch) * AVAILABLE_SHARE
        workload = estimate_workload(variant, catalog, usable, num_samples=0)
        for name in _SUMMED_FIELDS:
            total[name] += getattr(workload, name) * num_patches
    num_samples = round(total["num_read"] * sampling.SURVIVING_SHARE)
    return Workload(
        num_read=round(total["num_read"]),
        num_samples=num_samples,
        num_files=round(total["num_files"]),
        num_warped_px=round(total["num_warped_px"]),
        source_bytes=round(total["source_bytes"]),
        source_requests=round(total["source_requests"]),
        store_bytes=num_samples * variant.bytes_per_sample,
        read_usd=total["read_usd"],
    )


def land() -> Any:
    """Return the outline of the 48 states and the District of Columbia, without the Great Lakes.

    It is a shapely geometry in degrees (EPSG:4326). Source: us-atlas 3, made from the boundaries of
    the U.S. Census Bureau; the viewer's page uses the same file.
    """
    import shapely

    atlas = files("salibi_data") / "viewer" / "page" / "vendor" / "states-10m.json"
    topology = json.loads(atlas.read_text(encoding="utf-8"))
    arcs = _arcs(topology)
    states = [
        shapely.Polygon(_ring(rings[0], arcs), [_ring(hole, arcs) for hole in rings[1:]])
        for state in topology["objects"]["states"]["geometries"]
        if state["id"] not in _EXCLUDED_FIPS
        for rings in ([state["arcs"]] if state["type"] == "Polygon" else state["arcs"])
    ]
    return shapely.union_all([shapely.make_valid(state) for state in states])


def _land_by_row() -> dict[int, float]:
    """Return the area of land by row of cells, in cells."""
    import shapely

    outline = land()
    cells = Area(boxes=(outline.bounds,), outline=outline).cells(CELL_ZOOM)
    x, y = np.array([(cell.left, cell.top) for cell in cells]).T
    squares = tile_outlines(CELL_ZOOM, x, y)
    shares = shapely.area(shapely.intersection(squares, outline)) / shapely.area(squares)
    rows = Counter[int]()
    for row, share in zip(y.tolist(), shares.tolist(), strict=True):
        rows[row] += share
    return dict(rows)


def _patch(zoom: int, row: int) -> Tiles:
    """Return neighbouring tiles in the middle of a row of cells."""
    middle = Span(1 << (CELL_ZOOM - 2), row, (1 << (CELL_ZOOM - 2)) + 1, row + 1)
    inside = middle.children(zoom - CELL_ZOOM)
    edge = min(1 << _PATCH_LEVELS, inside.bottom - inside.top)
    top = (inside.top + inside.bottom - edge) // 2
    x, y = Span(inside.left, top, inside.left + edge, top + edge).tiles()
    return Tiles(zoom=zoom, x=x, y=y)


def _arcs(topology: dict[str, Any]) -> list[list[list[float]]]:
    """Return the lines of a TopoJSON file in degrees.

    The file stores them as integer steps on a grid (The TopoJSON Format Specification, 2.1.3 and
    2.1.4).
    """
    scale, origin = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = (np.cumsum(np.array(steps), axis=0) * scale + origin for steps in topology["arcs"])
    return [arc.tolist() for arc in arcs]


def _ring(indices: list[int], arcs: list[list[list[float]]]) -> list[list[float]]:
    """Join arcs to a ring of points; each arc begins where the one before it ends."""
    points: list[list[float]] = []
    for index in indices:
        # A negative index ~i stands for arc i in reverse.
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        points += arc[1:] if points else arc
    return points
