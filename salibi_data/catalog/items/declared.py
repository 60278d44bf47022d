"""What a STAC item declares of its files: scale, offset and nodata by band, and numbers of pixels.

Sources: STAC raster extension 1.1 (``raster:bands``); STAC 1.1 with raster extension 2.0 (``bands``
with ``raster:scale`` and ``raster:offset``); projection extension (``proj:shape``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from salibi_data.catalog.providers import Product, Sensor

DeclaredBand = Mapping[str, float]
"""``scale``, ``offset`` and ``nodata`` of one band, each where it is declared and has an effect."""

_BAND_FIELDS: Final = frozenset(
    {"raster:bands", "bands", "raster:scale", "raster:offset", "scale", "offset", "nodata"}
)
"""Fields of an asset that may describe its bands."""

_SHAPE: Final = "proj:shape"
_NUM_EDGES: Final = 2


def declared_bands(
    sensor: Sensor, assets: Mapping[str, Any]
) -> dict[str, tuple[DeclaredBand, ...]]:
    """Return what the catalog's TOML leaves to the item, by asset, in the order of the file's bands.

    Args:
        sensor: sensor of the item; what its products state themselves is left out.
        assets: the item's assets as STAC has them, by key.

    Returns:
        One entry per band, or one for all bands of the file. Assets without effect are left out.
    """
    declared: dict[str, tuple[DeclaredBand, ...]] = {}
    for key, products in sensor.products_by_asset.items():
        asset = assets.get(key)
        if not isinstance(asset, Mapping) or not _BAND_FIELDS & asset.keys():
            continue
        wanted = set()
        if any(product.takes_declared_scale for product in products):
            wanted |= {"scale", "offset"}
        if any(product.nodata is None for product in products):
            wanted.add("nodata")
        if not wanted:
            continue
        bands = tuple(
            {name: value for name, value in band.items() if name in wanted}
            for band in _bands(asset)
        )
        if any(bands):
            declared[key] = bands
    return declared


def band_of(bands: Sequence[DeclaredBand], index: int) -> DeclaredBand:
    """Return what is declared of a band of a file, by its number from 1.

    Args:
        bands: entries as :func:`declared_bands` returns them; a single one holds for every band.
        index: number of the band.
    """
    if len(bands) == 1:
        return bands[0]
    return bands[index - 1] if index <= len(bands) else {}


def declared_shapes(sensor: Sensor, item: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the (rows, columns) that an item declares of its images, by asset.

    The item's own ``proj:shape`` holds for its assets where none of them states one: where one does,
    the item's is that of some of them only. Images that are placed by control points are left out,
    because providers invent the shapes of these.
    """
    assets = item["assets"]
    has_own = any(isinstance(asset, Mapping) and asset.get(_SHAPE) for asset in assets.values())
    common = None if has_own else _shape(item["properties"].get(_SHAPE))
    shapes = {}
    for key, products in sensor.products_by_asset.items():
        asset = assets.get(key)
        if not isinstance(asset, Mapping) or any(p.geolocation == "gcps" for p in products):
            continue
        shape = _shape(asset.get(_SHAPE))
        if shape is None and not _has_bands_of_another_size(products, key):
            shape = common
        if shape is not None:
            shapes[key] = shape
    return shapes


def _has_bands_of_another_size(products: Sequence[Product], asset: str) -> bool:
    bands = (band for product in products for band in product.bands.values())
    return any(band.gsd_m is not None for band in bands if band.asset == asset)


def _bands(asset: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Yield the numbers of each entry that have an effect; those of the asset hold for all."""
    entries = asset.get("raster:bands") or asset.get("bands")
    if not isinstance(entries, list | tuple) or not entries:
        entries = [{}]
    for entry in entries:
        numbers = _numbers(asset) | (_numbers(entry) if isinstance(entry, Mapping) else {})
        yield {name: value for name, value in numbers.items() if value != _NEUTRAL.get(name)}


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return scale, offset and nodata, each where an entry declares a number."""
    numbers = {}
    for name in ("scale", "offset", "nodata"):
        # Version 2 of the extension has prefixes; in GeoParquet, fields of other assets are null.
        value = _number(entry.get(name))
        if value is None:
            value = _number(entry.get(f"raster:{name}"))
        if value is not None and (name, value) != ("scale", 0):
            numbers[name] = value
    return numbers


_NEUTRAL: Final[Mapping[str, float]] = {"scale": 1, "offset": 0}
"""Scale and offset that change nothing."""


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else, such as nodata ``"nan"``, which is the rule."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # JSON's integers may be larger than any float
        return None


def _shape(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, list | tuple) or len(value) != _NUM_EDGES:
        return None
    edges = [_number(edge) for edge in value]
    if not all(edge is not None and edge > 0 and edge == int(edge) for edge in edges):
        return None
    rows, columns = (int(edge) for edge in edges if edge is not None)
    return rows, columns
