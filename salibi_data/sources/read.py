"""Read the pixels of a scene around a rectangle of tiles: sign, open, cut, mask, calibrate.

A missing, truncated or unreadable file raises :class:`~salibi_data.store.errors.ReadError`; it never
counts as nodata.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.item_checks import is_address
from salibi_data.sources.georeference import SceneRaster, read_placement
from salibi_data.sources.longitudes import RoundGlobe
from salibi_data.sources.pixel_values.agreement import check_file
from salibi_data.sources.pixel_values.masks import (
    is_worth_opening,
    masked,
    may_have_sidecar,
    open_mask,
    remember_absence,
    sidecar_hidden,
    sidecar_path,
)
from salibi_data.sources.pixel_values.nodata import (
    missing_by_value,
    missing_values,
    unreachable_warnings,
)
from salibi_data.sources.pixel_values.overviews import whole_bands
from salibi_data.sources.pixel_values.scaling import scaling_of
from salibi_data.sources.pixel_values.value_range import check_values, never_measured
from salibi_data.sources.sentinel1_calibration import load_gamma
from salibi_data.sources.sentinel2_offset import offset_warnings
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import is_remote, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, Catalog, Product, Sensor
    from salibi_data.catalog.scenes import Scene
    from salibi_data.sources.georeference import Placement
    from salibi_data.sources.pixel_values.scaling import Scaling
    from salibi_data.store.errors import ReadKind
    from salibi_data.store.tiles import PixelGrid

_ADVICE: Final[Mapping[ReadKind, str]] = {
    "missing": "It was removed, or the catalog states a wrong address; restore it, or plan again.",
    "forbidden": "Check your permission to read it, and the credentials if it needs any; some hosts "
    "refuse what is missing as well.",
    "throttled": "The host is overloaded; run again later, or with fewer workers.",
    "server": "The host has a fault; run again later.",
    "timeout": "The host was too slow; run again later, or allow more time.",
    "connection": "Check the network and the proxy settings, and run again.",
    "token": "Run again later.",
    "damaged": "The file may be truncated or damaged; restore it and run again.",
    "unusable": "Another provider may have it in a usable form.",
}


def read_asset(
    catalog: Catalog,
    scene: Scene,
    asset: str,
    product: Product,
    bands: Sequence[Band],
    grid: PixelGrid,
    *,
    categorical: bool = False,
) -> SceneRaster | None:
    """Read the part of one asset that covers a pixel grid, in physical units.

    Args:
        catalog: provider of the scene; has the folder of relative hrefs and the way of signing.
        scene: scene to read.
        asset: STAC asset key.
        product: product of the asset, with its nodata rule, scale and offset.
        bands: bands of the file, in the order of the result.
        grid: pixels to fill, in EPSG:3857.
        categorical: whether values are classes, which have no units.

    Returns:
        The window with a margin of a few pixels, or None where the file does not reach ``grid``.

    Raises:
        ReadError: the asset is missing, cannot be opened or read, has no CRS that can be
            transformed to the grid's, lacks its calibration, or contradicts its item or the
            catalog's TOML: another shape, fewer bands, values that the units cannot hold.
    """
    from salibi_data.sources.gdal import read_with_retries

    href = scene.hrefs.get(asset)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {asset!r}; it has {', '.join(scene.hrefs)}. "
            "Check the catalog's TOML.",
            kind="missing",
        )
    reading = _Reading(
        catalog=catalog,
        scene=scene,
        asset=asset,
        product=product,
        bands=bands,
        grid=grid,
        categorical=categorical,
        where=f"asset {asset!r} of {scene.id} at {redact(href)}",
    )
    return read_with_retries(resolve_href(catalog, href), lambda: _read_once(reading))


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What is read: the arguments of :func:`read_asset`, and names for messages."""

    catalog: Catalog
    scene: Scene
    asset: str
    product: Product
    bands: Sequence[Band]
    grid: PixelGrid
    categorical: bool
    where: str
    """Name of the file in messages."""

    @property
    def numbers(self) -> list[int]:
        """Numbers of the bands in the file, from 1."""
        return [band.index for band in self.bands]

    @property
    def names(self) -> list[str]:
        """Names of the bands."""
        names = {band: name for name, band in self.product.bands.items()}
        return [names.get(band, str(band.index)) for band in self.bands]

    @property
    def named(self) -> frozenset[int]:
        """Numbers of all bands of the file that the product names."""
        bands = self.product.bands.values()
        return frozenset(band.index for band in bands if band.asset == self.asset)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A window of a file as it is stored."""

    raw: NDArray[Any]
    """Digital numbers, shape (bands, rows, columns)."""
    missing: NDArray[np.bool_]
    """Which pixels hold no observation, shape (rows, columns)."""
    scaling: Scaling
    placement: Placement
    window: Any
    """Rasterio window."""
    turn_px: int | None
    """Columns of a file that goes round the globe; None for all others."""
    file_shape: tuple[int, int]
    """(rows, columns) of the file."""
    whole: Sequence[NDArray[np.float32] | None]
    """Digital numbers of the whole file, for each band that is judged by them."""
    may_have_sidecar: bool
    warnings: tuple[str, ...]


def _read_once(reading: _Reading) -> SceneRaster | None:
    content = _read_window(reading)
    if content is None:
        return None
    # GDAL replaces bytes of failed requests by zeros, which is reported only when the file is
    # closed. What the numbers mean is judged after that.
    missing, product = content.missing, reading.product
    if content.may_have_sidecar and (hidden := _hidden_by_sidecar(reading, content)) is not None:
        missing = missing | hidden
    if product.calibration:
        values = _calibrated(content.raw, reading, content.window)
    else:
        values = content.scaling.apply(content.raw)
    is_rendering = content.raw.dtype == np.uint8 and product.units == "display"
    if not reading.categorical and not (is_rendering and content.scaling.changes_nothing):
        missing = _check_units(reading, content, values, missing)
    if missing.any():
        values[:, missing] = np.nan
    bound = None if product.calibration else content.scaling.integer_bound(content.raw.dtype)
    return SceneRaster(
        values=values,
        crs=content.placement.crs,
        where=reading.where,
        transform=content.placement.transform,
        control_points=content.placement.control_points,
        integer_bound=bound,
        warnings=content.warnings,
    )


def _check_units(
    reading: _Reading,
    content: _Window,
    values: NDArray[np.float32],
    missing: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Refuse values that the units cannot hold; return what is missing with those never measured."""
    units = reading.product.units
    for row, name in enumerate(reading.names):
        check_values(
            values[row][~missing],
            units,
            whole=content.whole[row],
            dtype=content.raw.dtype,
            where=f"{reading.where}, band {name!r},",
        )
    for band in values:
        missing = missing | never_measured(band, units)
    return missing


def _read_window(reading: _Reading) -> _Window | None:
    """Read what a file has around the grid; None where it does not reach it."""
    from salibi_data.sources.gdal import translate_gdal_errors

    scene, product, where = reading.scene, reading.product, reading.where
    numbers = reading.numbers
    with _open_asset(reading.catalog, scene, reading.asset, where) as dataset:
        check_file(
            dataset,
            list(zip(reading.names, numbers, strict=True)),
            shape=scene.shapes.get(reading.asset),
            units=product.units,
            categorical=reading.categorical,
            where=where,
        )
        with translate_gdal_errors(where, _ADVICE["unusable"]):
            bounds_3857 = reading.grid.bounds_3857
            size = {"width": dataset.width, "height": dataset.height}
            file_placement = read_placement(dataset, product, where=where).near(bounds_3857, **size)
            window = file_placement.window(bounds_3857, **size)
        if window is None:
            return None
        if file_placement.turn_px is not None:
            dataset = RoundGlobe(dataset, file_placement.turn_px)  # noqa: PLW2901
        raw = dataset.read(numbers, window=window)
        declared = scene.declared.get(reading.asset, ())
        nodata = missing_values(dataset, numbers, product, declared)
        scaling = scaling_of(
            dataset, numbers, scene, declared, product, categorical=reading.categorical
        )
        with translate_gdal_errors(where, _ADVICE["unusable"]):
            placement = file_placement.for_window(window)
            missing = missing_by_value(raw, nodata, product.nodata_bands)
            if product.nodata == "footprint":
                missing |= placement.outside(scene.footprint, missing.shape)
        is_stated = product.nodata is not None
        hidden = masked(dataset, numbers, named=reading.named, stated=is_stated, window=window)
        if hidden is not None:
            missing = missing | hidden
        warnings = offset_warnings(
            dataset, raw, ~missing, scene, product, reading.bands, nodata=nodata
        )
        return _Window(
            raw=raw,
            missing=missing,
            scaling=scaling,
            placement=placement,
            window=window,
            turn_px=file_placement.turn_px,
            file_shape=dataset.shape,
            whole=whole_bands(
                dataset, numbers, product, scaling, nodata=nodata, named=reading.named
            ),
            may_have_sidecar=may_have_sidecar(
                dataset, is_remote=is_remote(scene.hrefs[reading.asset]), stated=is_stated
            ),
            warnings=(
                *warnings,
                *unreachable_warnings(scene, reading.asset, product, raw.dtype),
            ),
        )


def _hidden_by_sidecar(reading: _Reading, content: _Window) -> NDArray[np.bool_] | None:
    """Return what a mask beside the file hides in a window; None where there is no mask."""
    where = sidecar_path(resolve_href(reading.catalog, reading.scene.hrefs[reading.asset]))
    if not is_worth_opening(where):
        return None
    sensor = reading.catalog.sensors[reading.scene.sensor]
    name = f"the mask {redact(where)} of {reading.scene.id}"
    try:
        with open_mask(_open(reading.catalog, sensor, where)) as mask:
            return sidecar_hidden(
                mask if content.turn_px is None else RoundGlobe(mask, content.turn_px),
                reading.numbers,
                shape=content.file_shape,
                window=content.window,
                where=name,
            )
    except ReadError as error:
        # A bucket that may not be listed answers 403 for what it does not have.
        if error.kind in ("missing", "forbidden"):
            remember_absence(where)
            return None
        if str(error).startswith(name):
            raise
        failure = error
    raise ReadError(
        f"{name} cannot be read: {failure}. {_ADVICE[failure.kind]}",
        kind=failure.kind,
        from_host=True,
    )


def resolve_href(catalog: Catalog, href: str) -> str:
    """Return the URL or absolute path of an unsigned href; it stays unsigned.

    Raises:
        ReadError: an API's item has a path, which would mean a file of whatever machine reads it.
    """
    if is_address(href):
        return href
    if catalog.kind == "api":
        raise ReadError(
            f"{redact(href)!r} of an item of catalog {catalog.name!r} is no address at a server; plan again",
            kind="unusable",
        )
    # A path object would take one of two slashes from `/vsizip//data/a.zip/a.tif`.
    is_whole = "://" in href or href.startswith("/vsi")
    return href if is_whole else str(Path(catalog.url).parent / href)


@contextmanager
def _open_asset(catalog: Catalog, scene: Scene, asset: str, where: str) -> Iterator[Any]:
    """Open the asset's dataset; errors of opening and reading name it ``where``."""
    from_block = None
    try:
        with _open(
            catalog, catalog.sensors[scene.sensor], resolve_href(catalog, scene.hrefs[asset])
        ) as dataset:
            try:
                yield dataset
            except ReadError as error:
                from_block = error
                raise
    except ReadError as error:
        if error is from_block:
            raise  # its message is complete already
        failure = error
    else:
        return
    raise ReadError(
        f"{where} cannot be read: {failure}. {_ADVICE[failure.kind]}",
        kind=failure.kind,
        from_host=True,
    )


def _open(catalog: Catalog, sensor: Sensor, where: str) -> AbstractContextManager[Any]:
    """Open a raster by the catalog's way of signing and paying."""
    from salibi_data.sources.gdal import open_raster

    return open_raster(
        where,
        signed=catalog.signing == "planetary-computer",
        requester_pays=sensor.requester_pays,
        region=sensor.region,
    )


def _calibrated(raw: NDArray[Any], reading: _Reading, window: Any) -> NDArray[np.float32]:
    """Convert digital numbers to linear gamma0."""
    catalog, scene = reading.catalog, reading.scene
    annotation = reading.product.calibration[reading.asset]
    where = f"calibration {annotation!r} of {scene.id}"
    href = scene.hrefs.get(annotation)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {annotation!r}, without which it cannot be calibrated. "
            "Check the catalog's TOML, or leave the scene out.",
            kind="unusable",
        )
    sensor = catalog.sensors[scene.sensor]
    table = load_gamma(
        resolve_href(catalog, href),
        where=where,
        signed=catalog.signing == "planetary-computer",
        requester_pays=sensor.requester_pays,
        region=sensor.region,
    )
    gamma = table.interpolate(window.row_off, window.col_off, (window.height, window.width))
    return (raw.astype(np.float32) / gamma) ** 2
