"""Tiles one by one, for areas small enough to look at each."""

from __future__ import annotations

from salibi_data.store.tiles import Bounds, TileXYZ, spans_within


def tiles_within(bounds_lonlat: Bounds, zoom: int) -> list[TileXYZ]:
    """Tiles wholly within a box."""
    return [
        TileXYZ(int(x), int(y), zoom)
        for span in spans_within(bounds_lonlat, zoom)
        for x, y in zip(*span.tiles(), strict=True)
    ]
