"""Large COGs for the benchmarks, of real pixels where there are any: a crop, mirrored over and over."""

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
"""Two degrees off the zone's meridian: grids differ by more than a degree."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """Some COGs of one scene, and the blocks of tiles to make of it."""

    files: tuple[Path, ...]
    """One with all bands, or one for each."""
    product: Product
    zoom: int
    blocks: tuple[tuple[TileXYZ, ...], ...]

    @property
    def grids(self) -> list[PixelGrid]:
        """One for each block."""
        return [PixelGrid.around(tiles) for tiles in self.blocks]

    @property
    def layer(self) -> Layer:
        """What is made of it."""
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
        """Where the red, the green and the blue pixels are."""
        return tuple(self.product.bands.values())

    def catalog(self) -> Catalog:
        """A catalog of this scene's sensor alone."""
        sensor = Sensor(
            name="camera",
            collection="camera",
            products={"picture": self.product},
            licence="none",
            attribution="none",
        )
        return Catalog(name="files", title="Files", kind="static", sensors={"camera": sensor})

    def scene(self, hrefs: Sequence[str] = ()) -> Scene:
        """The item; its files are where ``hrefs`` say, or on disk."""
        places = hrefs or [str(path) for path in self.files]
        assets = {path.stem: place for path, place in zip(self.files, places, strict=True)}
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
    """8 bit, four bands in one file, 0.6 m: as NAIP is.

    Args:
        folder: where the file is, or will be.
        zoom: of the tiles.
        blocks: at most so many.
        across: tiles along the edge of one.
        edge_px: of the file.
    """
    path = folder / "aerial.tif"
    if not path.exists():
        _write(path, _mirrored(_naip(), edge_px), 0.6)
    bands = {name: Band(asset="aerial", index=k + 1) for k, name in enumerate(("r", "g", "b"))}
    product = Product(units="display", bands=bands, gsd_m=0.6)
    inside = _blocks(zoom, edge_px * 0.6, blocks, across)
    return Photograph(files=(path,), product=product, zoom=zoom, blocks=inside)


def optical(folder: Path, *, zoom: int, blocks: int, across: int = 4) -> Photograph:
    """16 bit, a file for each of three bands, 10 m: as Sentinel-2 is."""
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
    place = next(folder.iterdir())
    images = []
    for name in ("B4", "B3", "B2"):
        with rasterio.open(place / f"{name}.tif") as dataset:
            images.append(dataset.read(1))
    return np.array(images)


def _mirrored(image: NDArray, size_px: int) -> NDArray:
    """The image beside its mirror images until it has that size."""
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
    """Blocks of so many tiles inside a square of that edge below the corner, at most ``num``."""
    xs, ys = transform("OGC:CRS84", CRS, [CORNER_LONLAT[0]], [CORNER_LONLAT[1]])
    slack = 0.04 * edge_m  # the grids are turned
    lon, lat = transform(
        CRS,
        "OGC:CRS84",
        [xs[0] + slack, xs[0] + edge_m - slack],
        [ys[0] - slack, ys[0] - edge_m + slack],
    )
    first, last = (mercantile.tile(*place, zoom) for place in zip(lon, lat, strict=True))
    columns = range(first.x + 1, last.x - across + 1, across)
    rows = range(first.y + 1, last.y - across + 1, across)
    corners = [(x, y) for y in rows for x in columns][:num]
    steps = range(across)
    return tuple(
        tuple(TileXYZ(x + column, y + row, zoom) for row in steps for column in steps)
        for x, y in corners
    )


def num_tiles(blocks: Sequence[Sequence[TileXYZ]]) -> int:
    """Number of tiles in all the blocks."""
    return sum(len(tiles) for tiles in blocks)
