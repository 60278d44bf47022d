"""Read the pixels of a scene around a rectangle of tiles: sign, open, cut, mask, calibrate.

A missing, truncated or unreadable file raises :class:`~salibi_data.store.errors.ReadError`; it never
counts as nodata.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.item_checks import is_remote
from salibi_data.sources.georeference import SceneRaster, read_placement
from salibi_data.sources.longitudes import RoundGlobe
from salibi_data.sources.sentinel1_calibration import load_gamma
from salibi_data.sources.sentinel2_offset import offset_warnings
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, Catalog, Product
    from salibi_data.catalog.scenes import Scene
    from salibi_data.sources.georeference import Placement
    from salibi_data.store.errors import ReadKind
    from salibi_data.store.tiles import PixelGrid

_ADVICE: Final[Mapping[ReadKind, str]] = {
    "missing": "It was removed, or the catalog states a wrong address; restore it, or plan again.",
    "forbidden": "Check your permission to read it, and the credentials if it needs any.",
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
) -> SceneRaster | None:
    """Read the part of one asset that covers a pixel grid, in physical units.

    Args:
        catalog: provider of the scene; has the folder of relative hrefs and the way of signing.
        scene: scene to read.
        asset: STAC asset key.
        product: product of the asset, with its nodata rule, scale and offset.
        bands: bands of the file, in the order of the result.
        grid: pixels to fill, in EPSG:3857.

    Returns:
        The window with a margin of a few pixels, or None where the file does not reach ``grid``.

    Raises:
        ReadError: the asset is missing, cannot be opened or read, has no CRS that can be
            transformed to the grid's, or lacks its calibration.
    """
    from salibi_data.sources.gdal import read_with_retries

    href = scene.hrefs.get(asset)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {asset!r}; it has {', '.join(scene.hrefs)}. "
            "Check the catalog's TOML.",
            kind="missing",
        )
    return read_with_retries(
        resolve_href(catalog, href),
        lambda: _read_once(catalog, scene, asset, product, bands, grid),
    )


def _read_once(
    catalog: Catalog,
    scene: Scene,
    asset: str,
    product: Product,
    bands: Sequence[Band],
    grid: PixelGrid,
) -> SceneRaster | None:
    from salibi_data.sources.gdal import translate_gdal_errors

    where = f"asset {asset!r} of {scene.id} at {redact(scene.hrefs[asset])}"
    with _open_asset(catalog, scene, asset, where) as dataset:
        with translate_gdal_errors(where, _ADVICE["unusable"]):
            bounds_3857, size = grid.bounds_3857, {"width": dataset.width, "height": dataset.height}
            file_placement = read_placement(dataset, product, where=where).near(bounds_3857, **size)
            window = file_placement.window(bounds_3857, **size)
        if window is None:
            return None
        if file_placement.turn_px is not None:
            dataset = RoundGlobe(dataset, file_placement.turn_px)  # noqa: PLW2901
        raw = dataset.read([band.index for band in bands], window=window)
        with translate_gdal_errors(where, _ADVICE["unusable"]):
            placement = file_placement.for_window(window)
            missing = _missing(raw, dataset, scene, product, placement)
        if product.calibration:
            values = _calibrated(raw, catalog, scene, product.calibration[asset], window)
        else:
            values = raw.astype(np.float32)
            # Each step passes over a whole block; skip those that would change nothing.
            if product.scale != 1:
                values *= np.float32(product.scale)
            if (offset := product.offset_for(scene.properties)) != 0:
                values += np.float32(offset)
        if missing.any():
            values[:, missing] = np.nan
        return SceneRaster(
            values=values,
            crs=placement.crs,
            where=where,
            transform=placement.transform,
            control_points=placement.control_points,
            integer_bound=_integer_bound(raw.dtype, product, scene),
            warnings=offset_warnings(
                dataset, raw, ~missing, scene, product, bands, nodata=_nodata(dataset, product)
            ),
        )


def _integer_bound(dtype: np.dtype[Any], product: Product, scene: Scene) -> float | None:
    """Return the upper bound of values made of an integer type; None where they may be fractions."""
    offset = float(product.offset_for(scene.properties))
    if dtype.kind not in "ui" or product.calibration or product.scale != 1 or offset % 1:
        return None
    return float(np.iinfo(dtype).max) + abs(offset)


def resolve_href(catalog: Catalog, href: str) -> str:
    """Return the URL or absolute path of an unsigned href; it stays unsigned.

    Raises:
        ReadError: an API's item has a path, which would mean a file of whatever machine reads it.
    """
    if is_remote(href):
        return href
    if catalog.kind == "api":
        raise ReadError(
            f"{redact(href)!r} of an item of catalog {catalog.name!r} is no address at a server; plan again",
            kind="unusable",
        )
    return href if "://" in href else str(Path(catalog.url).parent / href)


@contextmanager
def _open_asset(catalog: Catalog, scene: Scene, asset: str, where: str) -> Iterator[Any]:
    """Open the asset's dataset; errors of opening and reading name it ``where``."""
    from salibi_data.sources.gdal import open_raster

    sensor = catalog.sensors[scene.sensor]
    from_block = None
    try:
        with open_raster(
            resolve_href(catalog, scene.hrefs[asset]),
            signed=catalog.signing == "planetary-computer",
            requester_pays=sensor.requester_pays,
            region=sensor.region,
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


def _calibrated(
    raw: NDArray[Any], catalog: Catalog, scene: Scene, annotation: str, window: Any
) -> NDArray[np.float32]:
    """Convert digital numbers to linear gamma0."""
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


def _missing(
    raw: NDArray[Any], dataset: Any, scene: Scene, product: Product, placement: Placement
) -> NDArray[np.bool_]:
    """Return which pixels hold no observation, shape (rows, columns)."""
    nodata = _nodata(dataset, product)
    missing = np.full(raw.shape[1:], product.nodata_bands == "all")
    for band in raw:  # band by band, to keep the temporary masks small
        empty = np.isnan(band) if raw.dtype.kind == "f" else np.False_
        if nodata is not None:
            empty = empty | (band == nodata)
        missing = missing & empty if product.nodata_bands == "all" else missing | empty
    if product.nodata == "footprint":
        missing = missing | placement.outside(scene.footprint, missing.shape)
    return missing


def _nodata(dataset: Any, product: Product) -> float | None:
    """Return the missing value; None where there is none but NaN, which is always missing."""
    nodata = dataset.nodata if product.nodata is None else product.nodata
    return nodata if isinstance(nodata, int | float) and not np.isnan(nodata) else None
