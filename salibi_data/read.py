"""Pixels of a scene around a rectangle of tiles: opened, signed, windowed, masked.

A missing, truncated or unreadable file raises :class:`~salibi_data.errors.ReadError`. It is never
taken for nodata.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog import Band, Catalog, Product
    from salibi_data.grid import Bounds, PixelGrid
    from salibi_data.search import Scene

GDAL_OPTIONS: Final[Mapping[str, Any]] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
    # All other warnings of GDAL reach Python's logging; a file's odd tags are not the user's worry.
    "CPL_LOG_ERRORS": "OFF",
}
"""Settings for reading COGs over HTTP; see GDAL's "Configuration options"."""

_MARGIN_PX: Final = 4
"""Source pixels read beyond the rectangle: bilinear needs one, rotation a little more."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A window of a raster file, in physical units."""

    values: NDArray[np.float32]
    """Shape (bands, rows, columns); NaN where there is no observation, in every band alike."""
    transform: tuple[float, float, float, float, float, float]
    """Affine coefficients (a, b, c, d, e, f) from (column, row) to ``crs``."""
    crs: str
    """Well-known text."""


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
        ReadError: the asset is missing, cannot be opened or read, or has no CRS.
    """
    href = scene.hrefs.get(asset)
    if href is None:
        raise ReadError(
            f"item {scene.id} has no asset {asset!r}; it has {', '.join(scene.hrefs)}. "
            "Check the catalog's TOML."
        )
    with _opened(catalog, scene, asset, href) as dataset:
        window = _window(dataset, grid.bounds_3857)
        if window is None:
            return None
        raw = dataset.read([band.index for band in bands], window=window)
        transform = dataset.window_transform(window)
        missing = _missing(raw, dataset, scene, product, transform)
        values = raw.astype(np.float32) * np.float32(product.scale)
        values += np.float32(product.offset_for(scene.properties))
        values[:, missing] = np.nan
        return Source(values=values, transform=tuple(transform)[:6], crs=dataset.crs.to_wkt())


def locate(catalog: Catalog, href: str) -> str:
    """What to open for an unsigned href: signed now if need be, absolute if it is local."""
    if catalog.kind == "static" and "://" not in href:
        return str(Path(catalog.url).parent / href)
    if catalog.signing == "planetary-computer":
        return _signed(href)
    return href


def _signed(href: str) -> str:
    import planetary_computer
    import requests

    try:
        return str(planetary_computer.sign_url(href))
    except requests.RequestException as error:
        raise ReadError(
            f"no token for {href}: {_reason(error)}. Wait a little and run again, or set "
            "PC_SDK_SUBSCRIPTION_KEY."
        ) from None


@contextmanager
def _opened(catalog: Catalog, scene: Scene, asset: str, href: str) -> Iterator[Any]:
    import rasterio
    from rasterio.errors import RasterioError, RasterioIOError

    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(locate(catalog, href)) as dataset:
            if dataset.crs is None:
                raise ReadError(
                    f"asset {asset!r} of {scene.id} at {href} has no CRS, as Sentinel-1 GRD has "
                    "none; use a terrain-corrected collection such as sentinel-1-rtc."
                )
            yield dataset
    except (RasterioIOError, RasterioError) as error:
        raise ReadError(
            f"asset {asset!r} of {scene.id} at {href} cannot be read: {_reason(error)}. "
            "The file may be missing or truncated; restore it and run again."
        ) from None  # GDAL's own message may carry a signed URL


def _reason(error: Exception) -> str:
    chain = [str(error), str(error.__cause__ or "")]
    text = " ".join(" ".join(part for part in chain if part).split())
    return re.sub(r"\?\S+", "", text)[:200].rstrip(". ") or type(error).__name__


def _window(dataset: Any, bounds_3857: Bounds) -> Any:
    """The window that covers the bounds with a margin, cut to the file; None if they are apart."""
    from rasterio.warp import transform_bounds
    from rasterio.windows import Window

    west, south, east, north = transform_bounds("EPSG:3857", dataset.crs, *bounds_3857)
    corners = [
        ~dataset.transform @ xy
        for xy in ((west, north), (east, south), (west, south), (east, north))
    ]
    columns, rows = [c for c, _ in corners], [r for _, r in corners]
    left = max(0, int(np.floor(min(columns))) - _MARGIN_PX)
    top = max(0, int(np.floor(min(rows))) - _MARGIN_PX)
    right = min(dataset.width, int(np.ceil(max(columns))) + _MARGIN_PX)
    bottom = min(dataset.height, int(np.ceil(max(rows))) + _MARGIN_PX)
    if right <= left or bottom <= top:
        return None
    return Window(left, top, right - left, bottom - top)


def _missing(
    raw: NDArray[Any], dataset: Any, scene: Scene, product: Product, transform: Any
) -> NDArray[np.bool_]:
    """Which pixels hold no observation, shape (rows, columns)."""
    empty = np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, dtype=bool)
    nodata = dataset.nodata if product.nodata is None else product.nodata
    if isinstance(nodata, int | float) and not np.isnan(nodata):
        empty |= raw == nodata
    combined = empty.all(axis=0) if product.nodata_bands == "all" else empty.any(axis=0)
    missing: NDArray[np.bool_] = np.asarray(combined)
    if product.nodata == "footprint":
        missing = missing | _outside_footprint(dataset, scene, missing.shape, transform)
    return missing


def _outside_footprint(
    dataset: Any, scene: Scene, shape: tuple[int, ...], transform: Any
) -> NDArray[np.bool_]:
    from rasterio.features import geometry_mask
    from rasterio.warp import transform_geom

    footprint = transform_geom("OGC:CRS84", dataset.crs, dict(scene.footprint))
    outside: NDArray[np.bool_] = geometry_mask([footprint], shape, transform)
    return outside
