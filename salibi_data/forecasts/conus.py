"""The whole continental U.S.: how many tiles its land has, and what building all of them takes.

Tiles are not listed, there are up to a hundred million: land is measured in cells of one zoom, and
what a cell takes depends on its row alone, since tiles of a row are of one size on the ground.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.variants import check_fit
from salibi_data.forecasts.costs import Work
from salibi_data.forecasts.regions import FOUND_SHARE, work_of
from salibi_data.plans import sampling as lots
from salibi_data.plans import splits
from salibi_data.plans.areas import CELL_ZOOM, Area
from salibi_data.store.tiles import Span, Tiles, tile_outlines

if TYPE_CHECKING:
    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variants import Variant

ELSEWHERE: Final = frozenset({"02", "15", "60", "66", "69", "72", "78"})
"""FIPS codes of Alaska, Hawaii and the territories over sea."""

SUMMED: Final = (
    "num_read",
    "num_files",
    "num_warped_px",
    "source_bytes",
    "source_requests",
    "read_usd",
)
"""Of :class:`~salibi_data.forecasts.costs.Work`, what grows with the tiles that are read."""

_PATCH_LEVELS: Final = 6
"""A row's cost is taken from 64 x 64 neighbouring tiles: 256 blocks, and all kinds of split."""


def continental_work(variant: Variant, catalog: Catalog) -> Work:
    """What building a variant on all land of the 48 states takes.

    Every tile that the guard leaves is read; the store keeps what passes the filters.

    Args:
        variant: what is to be built; its regions and its target do not count.
        catalog: what from; it is not asked.

    Raises:
        UsageError: the catalog cannot give what the variant needs.
    """
    check_fit(variant, catalog)
    total: dict[str, float] = dict.fromkeys(SUMMED, 0.0)
    for row, num_cells in _land_by_row().items():
        patch = _patch(variant.base_zoom, row)
        usable = patch
        if variant.split_by == "blocks":
            usable = patch.take(splits.guarded(variant, patch.x, patch.y))
        tiles = num_cells * 4.0 ** (variant.base_zoom - CELL_ZOOM)
        times = tiles / len(patch) * FOUND_SHARE
        work = work_of(variant, catalog, usable, num_kept=0)
        for name in SUMMED:
            total[name] += getattr(work, name) * times
    num_kept = round(total["num_read"] * lots.SURVIVING_SHARE)
    return Work(
        num_read=round(total["num_read"]),
        num_kept=num_kept,
        num_files=round(total["num_files"]),
        num_warped_px=round(total["num_warped_px"]),
        source_bytes=round(total["source_bytes"]),
        source_requests=round(total["source_requests"]),
        store_bytes=num_kept * variant.bytes_per_sample,
        read_usd=total["read_usd"],
    )


def land() -> Any:
    """The 48 states and the District of Columbia (shapely, in degrees), without the Great Lakes.

    Source: us-atlas 3, from the U.S. Census Bureau's boundaries, which the page of a store shows.
    """
    import shapely

    atlas = files("salibi_data") / "viewer" / "page" / "vendor" / "states-10m.json"
    topology = json.loads(atlas.read_text(encoding="utf-8"))
    arcs = _arcs(topology)
    states = [
        shapely.Polygon(_ring(rings[0], arcs), [_ring(hole, arcs) for hole in rings[1:]])
        for state in topology["objects"]["states"]["geometries"]
        if state["id"] not in ELSEWHERE
        for rings in ([state["arcs"]] if state["type"] == "Polygon" else state["arcs"])
    ]
    return shapely.union_all([shapely.make_valid(state) for state in states])


def _land_by_row() -> dict[int, float]:
    """Row of the cells -> how many cells' worth of land lie in it."""
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
    """Tiles in the middle of a row of cells."""
    middle = Span(1 << (CELL_ZOOM - 2), row, (1 << (CELL_ZOOM - 2)) + 1, row + 1)
    inside = middle.children(zoom - CELL_ZOOM)
    edge = min(1 << _PATCH_LEVELS, inside.bottom - inside.top)
    top = (inside.top + inside.bottom - edge) // 2
    x, y = Span(inside.left, top, inside.left + edge, top + edge).tiles()
    return Tiles(zoom=zoom, x=x, y=y)


def _arcs(topology: dict[str, Any]) -> list[list[list[float]]]:
    """Lines of a TopoJSON file in degrees; it keeps them as steps on a grid of whole numbers.

    Source: The TopoJSON Format Specification, 2.1.3 and 2.1.4.
    """
    scale, origin = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = (np.cumsum(np.array(steps), axis=0) * scale + origin for steps in topology["arcs"])
    return [arc.tolist() for arc in arcs]


def _ring(indices: list[int], arcs: list[list[list[float]]]) -> list[list[float]]:
    """A ring of arcs, each beginning where the one before ends; ~i is arc i backwards."""
    points: list[list[float]] = []
    for index in indices:
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        points += arc[1:] if points else arc
    return points
