"""Pixels of a scene around a rectangle of tiles: opened, signed, windowed, masked.

A missing, truncated or unreadable file raises :class:`~salibi_data.store.errors.ReadError`. It is never
taken for nodata.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.sources.georeference import placement_of
from salibi_data.sources.sentinel1_calibration import load_gamma
from salibi_data.sources.sentinel2_offset import offset_warning, overview_numbers
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, Catalog, OffsetRule, Product
    from salibi_data.catalog.scenes import Scene
    from salibi_data.sources.control_points import ControlPoints
    from salibi_data.sources.georeference import Placement
    from salibi_data.store.errors import ReadKind
    from salibi_data.store.tiles import PixelGrid

_ADVICE: Final[Mapping[ReadKind, str]] = {
    "missing": "It is gone, or the catalog names a wrong place; restore it, or plan again.",
    "forbidden": "Check that you may read it, and the credentials if it needs any.",
    "throttled": "The host had too much to do; run again later, or with fewer workers.",
    "server": "The host is in trouble; run again later.",
    "timeout": "The host was too slow; run again later, or allow more time.",
    "connection": "Check the network and the proxy settings, and run again.",
    "token": "Run again later.",
    "damaged": "The file may be truncated or damaged; restore it and run again.",
    "unusable": "Another provider may have it in a form that can be used.",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A window of a raster file, in physical units."""

    values: NDArray[np.float32]
    """Shape (bands, rows, columns); NaN where there is no observation, in every band alike."""
    crs: str
    """Well-known text: of the transform, or of the control points."""
    where: str = "a source"
    """What messages call it."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine coefficients (a, b, c, d, e, f) from (column, row) to ``crs``."""
    control_points: ControlPoints | None = None
    """In place of the transform: all of the file's, in pixels of this window."""
    largest_whole: float | None = None
    """No value is larger, and all are whole numbers; None: they are not known to be."""
    warnings: tuple[str, ...] = ()
    """What about these pixels looks wrong, for people to read."""

    def __post_init__(self) -> None:
        if (self.transform is None) == (self.control_points is None):
            raise ValueError("a source has either a transform or control points")


def read_asset(
    catalog: Catalog,
    scene: Scene,
    asset: str,
    product: Product,
    bands: Sequence[Band],
    grid: PixelGrid,
) -> Source | None:
    """The part of one asset that covers ``grid``, in physical units.

    Args:
        catalog: where hrefs start from, and how they are signed.
        scene: whose asset.
        asset: STAC asset key.
        product: its nodata rule, scale and offset.
        bands: which bands of the file, in this order.
        grid: the rectangle of tiles that will be filled.

    Returns:
        The window with a margin of a few pixels, or None where the file does not reach ``grid``.

    Raises:
        ReadError: the asset is missing, cannot be opened or read, has no CRS that leads to the
            grid, or lacks its calibration.
    """
    from salibi_data.sources.gdal import persistently

    href = scene.hrefs.get(asset)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {asset!r}; it has {', '.join(scene.hrefs)}. "
            "Check the catalog's TOML.",
            kind="missing",
        )
    return persistently(
        locate(catalog, href),
        lambda: _read_once(catalog, scene, asset, product, bands, grid),
    )


def _read_once(
    catalog: Catalog,
    scene: Scene,
    asset: str,
    product: Product,
    bands: Sequence[Band],
    grid: PixelGrid,
) -> Source | None:
    from salibi_data.sources.gdal import usable

    where = f"asset {asset!r} of {scene.id} at {redact(scene.hrefs[asset])}"
    with _opened(catalog, scene, asset, where) as dataset:
        with usable(where, _ADVICE["unusable"]):
            placed = placement_of(dataset, product, where=where)
            window = placed.window(grid.bounds_3857, width=dataset.width, height=dataset.height)
        if window is None:
            return None
        raw = dataset.read([band.index for band in bands], window=window)
        with usable(where, _ADVICE["unusable"]):
            place = placed.within(window)
            missing = _missing(raw, dataset, scene, product, place)
        if product.calibration:
            values = _calibrated(raw, catalog, scene, product.calibration[asset], window)
        else:
            values = raw.astype(np.float32)
            # Twice over a whole block for nothing, where numbers are what they say.
            if product.scale != 1:
                values *= np.float32(product.scale)
            if (offset := product.offset_for(scene.properties)) != 0:
                values += np.float32(offset)
        if missing.any():
            values[:, missing] = np.nan
        return Source(
            values=values,
            crs=place.crs,
            where=where,
            transform=place.transform,
            control_points=place.control_points,
            largest_whole=_largest_whole(raw.dtype, product, scene),
            warnings=_doubts(dataset, raw, ~missing, scene, product, bands),
        )


def _largest_whole(dtype: np.dtype[Any], product: Product, scene: Scene) -> float | None:
    """The largest value that numbers of a type become; None where they become fractions."""
    offset = float(product.offset_for(scene.properties))
    if dtype.kind not in "ui" or product.calibration or product.scale != 1 or offset % 1:
        return None
    return float(np.iinfo(dtype).max) + abs(offset)


def locate(catalog: Catalog, href: str) -> str:
    """Where an unsigned href leads: absolute if it is local, and never signed."""
    if catalog.kind == "static" and "://" not in href:
        return str(Path(catalog.url).parent / href)
    return href


@contextmanager
def _opened(catalog: Catalog, scene: Scene, asset: str, where: str) -> Iterator[Any]:
    """The asset's dataset; ``where`` is what messages call it."""
    from salibi_data.sources.gdal import opened

    sensor = catalog.sensors[scene.sensor]
    told = None
    try:
        with opened(
            locate(catalog, scene.hrefs[asset]),
            signed=catalog.signing == "planetary-computer",
            requester_pays=sensor.requester_pays,
            region=sensor.region,
        ) as dataset:
            try:
                yield dataset
            except ReadError as error:
                told = error
                raise
    except ReadError as error:
        if error is told:
            raise  # by whoever used the dataset, in words of their own
        failure = error
    else:
        return
    raise ReadError(
        f"{where} cannot be read: {failure}. {_ADVICE[failure.kind]}", kind=failure.kind
    )


def _calibrated(
    raw: NDArray[Any], catalog: Catalog, scene: Scene, annotation: str, window: Any
) -> NDArray[np.float32]:
    """Linear gamma0 of digital numbers."""
    where = f"calibration {annotation!r} of {scene.id}"
    href = scene.hrefs.get(annotation)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {annotation!r}, without which its numbers mean nothing. "
            "Check the catalog's TOML, or leave the scene out.",
            kind="unusable",
        )
    sensor = catalog.sensors[scene.sensor]
    table = load_gamma(
        locate(catalog, href),
        where=where,
        signed=catalog.signing == "planetary-computer",
        requester_pays=sensor.requester_pays,
        region=sensor.region,
    )
    gamma = table.over(window.row_off, window.col_off, (window.height, window.width))
    return (raw.astype(np.float32) / gamma) ** 2


_judged: Final[dict[tuple[Any, ...], str | None]] = {}
"""Verdicts on bands of whole scenes: a build comes back to a scene block after block."""
_MOST_JUDGED: Final = 10_000


def _doubts(
    dataset: Any,
    raw: NDArray[Any],
    valid: NDArray[np.bool_],
    scene: Scene,
    product: Product,
    bands: Sequence[Band],
) -> tuple[str, ...]:
    """What speaks against the offset that the scene's baseline implies."""
    rule = product.offset_from
    if rule is None:
        return ()
    names = {band: name for name, band in product.bands.items()}
    warnings = []
    for row, band in enumerate(bands):
        if names.get(band) in rule.dark_bands:
            doubt = _verdict(dataset, raw[row][valid], scene, product, rule, band)
            baseline = scene.properties.get(rule.property)
            if doubt is not None:
                warnings.append(f"{scene.id} (baseline {baseline}), band {names[band]}: {doubt}")
    return tuple(warnings)


def _verdict(
    dataset: Any,
    window: NDArray[Any],
    scene: Scene,
    product: Product,
    rule: OffsetRule,
    band: Band,
) -> str | None:
    """What is wrong with a band of a scene, by all of it; of a window where that takes too much."""
    applied = rule.applies(scene.properties)
    key = (scene.id, scene.hrefs[band.asset], band, rule, product.scale, applied)
    if key in _judged:
        return _judged[key]
    # A footprint lies on the file's own grid, not on an overview's.
    numbers = (
        None
        if product.nodata == "footprint"
        else overview_numbers(dataset, band.index, nodata=_nodata(dataset, product))
    )
    doubt = offset_warning(
        window.astype(np.float32) if numbers is None else numbers,
        scale=product.scale,
        offset=rule.offset,
        applied=applied,
    )
    if numbers is not None:
        if len(_judged) >= _MOST_JUDGED:
            _judged.clear()
        _judged[key] = doubt
    return doubt


def _missing(
    raw: NDArray[Any], dataset: Any, scene: Scene, product: Product, place: Placement
) -> NDArray[np.bool_]:
    """Which pixels hold no observation, shape (rows, columns)."""
    nodata = _nodata(dataset, product)
    missing = np.full(raw.shape[1:], product.nodata_bands == "all")
    for band in raw:  # band by band: one array of a byte a pixel, not several of all bands
        empty = np.isnan(band) if raw.dtype.kind == "f" else np.False_
        if nodata is not None:
            empty = empty | (band == nodata)
        missing = missing & empty if product.nodata_bands == "all" else missing | empty
    if product.nodata == "footprint":
        missing = missing | place.outside(scene.footprint, missing.shape)
    return missing


def _nodata(dataset: Any, product: Product) -> float | None:
    """The missing value, if it is one and not NaN, which is always missing."""
    nodata = dataset.nodata if product.nodata is None else product.nodata
    return nodata if isinstance(nodata, int | float) and not np.isnan(nodata) else None
