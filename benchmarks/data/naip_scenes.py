"""Write large COGs for the benchmarks: a crop of real pixels where available, mirrored repeatedly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import mercantile
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform

from salibi_data.builds.layers import Layer
from salibi_data.catalog.providers import Band, Catalog, Product, Sensor
from salibi_data.catalog.scenes import Scene
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REAL = Path(os.environ.get("SALIBI_REAL", Path(__file__).parents[3] / "shared" / "real"))
CRS = "EPSG:32617"
CORNER_LONLAT = (-79.0, 38.0)
"""Corner two degrees from the zone's meridian, where UTM and Web Mercator differ by over a degree."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """COGs of one scene, and the blocks of tiles to make from it."""

    files: tuple[Path, ...]
    """One file with all bands, or a file for each band."""
    product: Product
    zoom: int
    blocks: tuple[tuple[TileXYZ, ...], ...]

    @property
    def grids(self) -> list[PixelGrid]:
        """Pixel grid of each block."""
        return [PixelGrid.around(tiles) for tiles in self.blocks]

    @property
    def layer(self) -> Layer:
        """Layer that is made from the scene."""
        product = self.product
        return Layer(
            name="picture",
            sensor="camera",
            product=product,
            bands=tuple(product.bands),
            tile_px=256,
            units=product.units,
        )

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands of red, green and blue."""
        return tuple(self.product.bands.values())

    def catalog(self) -> Catalog:
        """Catalog with this scene's sensor only."""
        sensor = Sensor(
            name="camera",
            collection="camera",
            products={"picture": self.product},
            licence="none",
            attribution="none",
        )
        return Catalog(name="files", title="Files", kind="static", sensors={"camera": sensor})

    def scene(self, hrefs: Sequence[str] = ()) -> Scene:
        """Scene with its files at ``hrefs``, or on disk."""
        locations = hrefs or [str(path) for path in self.files]
        assets = {path.stem: href for path, href in zip(self.files, locations, strict=True)}
        return Scene(
            id="scene",
            sensor="camera",
            acquired_utc=datetime(2024, 1, 1, tzinfo=UTC),
            footprint={},
            hrefs=assets,
            properties={},
        )


def aerial(
    folder: Path, *, zoom: int, blocks: int, across: int = 4, edge_px: int = 5120
) -> Photograph:
    """Write a scene like NAIP: 8 bit, four bands in one file, 0.6 m.

    Args:
        folder: folder of the file; an existing file is used again.
        zoom: zoom level of the tiles.
        blocks: maximum number of blocks.
        across: tiles along the edge of a block.
        edge_px: edge of the file in pixels.
    """
    path = folder / "aerial.tif"
    if not path.exists():
        _write(path, _mirrored(_naip(), edge_px), 0.6)
    bands = {name: Band(asset="aerial", index=k + 1) for k, name in enumerate(("r", "g", "b"))}
    product = Product(units="display", bands=bands, gsd_m=0.6)
    inside = _blocks(zoom, edge_px * 0.6, blocks, across)
    return Photograph(files=(path,), product=product, zoom=zoom, blocks=inside)


def optical(folder: Path, *, zoom: int, blocks: int, across: int = 4) -> Photograph:
    """Write a scene like Sentinel-2: 16 bit, a file for each of three bands, 10 m."""
    names = ("B04", "B03", "B02")
    paths = tuple(folder / f"{name}.tif" for name in names)
    if not paths[0].exists():
        for path, image in zip(paths, _mirrored(_sentinel(), 2048), strict=True):
            _write(path, image[None], 10.0)
    bands = {name: Band(asset=name) for name in names}
    product = Product(units="reflectance", bands=bands, gsd_m=10, nodata=0, scale=1e-4)
    inside = _blocks(zoom, 2048 * 10.0, blocks, across)
    return Photograph(files=paths, product=product, zoom=zoom, blocks=inside)


def _naip() -> NDArray[np.uint8]:
    path = REAL / "naip" / "naip_virginia_1m_rgbn.tif"
    if not path.exists():
        return (np.random.default_rng(0).integers(0, 40, (4, 500, 500)) + 90).astype(np.uint8)
    with rasterio.open(path) as dataset:
        image: NDArray[np.uint8] = dataset.read()
    return np.minimum(image, 254).astype(np.uint8)


def _sentinel() -> NDArray[np.uint16]:
    folder = REAL / "s1_s2_punjab" / "s2_l2a"
    if not folder.exists():
        return np.random.default_rng(0).integers(300, 3000, (3, 264, 264)).astype(np.uint16)
    scene_folder = next(folder.iterdir())
    images = []
    for name in ("B4", "B3", "B2"):
        with rasterio.open(scene_folder / f"{name}.tif") as dataset:
            images.append(dataset.read(1))
    return np.array(images)


def _mirrored(image: NDArray, size_px: int) -> NDArray:
    """Pad the image with its mirror images to ``size_px``."""
    rows, columns = image.shape[1:]
    return np.pad(image, ((0, 0), (0, size_px - rows), (0, size_px - columns)), mode="symmetric")


def _write(path: Path, image: NDArray, gsd_m: float) -> None:
    xs, ys = transform("OGC:CRS84", CRS, [CORNER_LONLAT[0]], [CORNER_LONLAT[1]])
    bands, rows, columns = image.shape
    with rasterio.open(
        path,
        "w",
        driver="COG",
        dtype=image.dtype,
        count=bands,
        width=columns,
        height=rows,
        crs=CRS,
        transform=from_origin(xs[0], ys[0], gsd_m, gsd_m),
        blocksize=512,
        compress="deflate",
        predictor="yes",
        overview_resampling="average",
    ) as dataset:
        dataset.write(image)


def _blocks(zoom: int, edge_m: float, num: int, across: int) -> tuple[tuple[TileXYZ, ...], ...]:
    """Give at most ``num`` blocks of ``across`` x ``across`` tiles inside a square below the corner."""
    xs, ys = transform("OGC:CRS84", CRS, [CORNER_LONLAT[0]], [CORNER_LONLAT[1]])
    slack = 0.04 * edge_m  # UTM and Web Mercator grids are rotated against each other
    lon, lat = transform(
        CRS,
        "OGC:CRS84",
        [xs[0] + slack, xs[0] + edge_m - slack],
        [ys[0] - slack, ys[0] - edge_m + slack],
    )
    first, last = (mercantile.tile(*lonlat, zoom) for lonlat in zip(lon, lat, strict=True))
    columns = range(first.x + 1, last.x - across + 1, across)
    rows = range(first.y + 1, last.y - across + 1, across)
    corners = [(x, y) for y in rows for x in columns][:num]
    steps = range(across)
    return tuple(
        tuple(TileXYZ(x + column, y + row, zoom) for row in steps for column in steps)
        for x, y in corners
    )


def num_tiles(blocks: Sequence[Sequence[TileXYZ]]) -> int:
    """Count the tiles of all blocks."""
    return sum(len(tiles) for tiles in blocks)
