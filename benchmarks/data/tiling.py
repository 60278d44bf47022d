"""Tiles per second from a local COG to compressed pixels, on one core.

Claim: reading a block of tiles once and resampling it with SIMD is many times faster than the
original way, which asks rio-tiler for one tile after the other and stores PNG; and faster than
GDAL's warp of the same block, which Salibi used before. Three tasks: Sentinel-2 at 10 m enlarged
to zoom 15, NAIP at 0.6 m enlarged to zoom 18, and shrunk to zoom 16. Pixels are a real crop beside
its mirror images, as COGs with deflate and averaged overviews. The limit is decoding (rasterio's
read of the same windows and nothing else) and compressing (Zstandard of the same tiles).

rio-tiler keeps its files open, resamples bilinearly like Salibi, and has GDAL's block cache; tiles
come in the same order. When it shrinks, it samples overviews, where Salibi averages every source
pixel.

Run: python -m benchmarks.data.tiling [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import rasterio
from numcodecs import Zstd
from rio_tiler.io import Reader
from rio_tiler.models import ImageData

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from benchmarks.data.naip_scenes import Photograph, aerial, num_tiles, optical
from salibi_data.assembly.writer import ZSTD_LEVEL
from salibi_data.builds.layers import sources_of, warp_layer
from salibi_data.catalog.variants import ModalityRecipe
from salibi_data.pixels import radiometry, resample_gdal, warp
from salibi_data.sources.georeference import read_placement
from salibi_data.store.tiles import PixelGrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster

RANGES = {"display": (0.0, 254.0), "reflectance": (0.0, 0.3)}
NO_CACHE = {"GDAL_CACHEMAX": 64}
"""Size of GDAL's cache in megabytes; a new environment per call gives no way another's blocks."""


def recipe_of(photograph: Photograph) -> ModalityRecipe:
    """Recipe of the stored modality."""
    units = photograph.product.units
    return ModalityRecipe(
        name="picture",
        sensor="camera",
        product="picture",
        bands=tuple(photograph.product.bands),
        units=units,
        range=(RANGES[units],) * 3,
    )


def by_us(photograph: Photograph) -> list[NDArray[np.uint8]]:
    """Read, warp, quantise and compress block by block, like a build."""
    catalog, scene, recipe = photograph.catalog(), photograph.scene(), recipe_of(photograph)
    codec, stored_tiles = Zstd(level=ZSTD_LEVEL), []
    for tiles in photograph.blocks:
        layer, grid = photograph.layer, PixelGrid.around(tiles)
        pixels = warp_layer(layer, grid, tiles, sources_of(catalog, scene, [(layer, grid)]))
        for tile in tiles:
            stored = radiometry.quantise(pixels[(slice(None), *grid.window(tile))], recipe)
            codec.encode(stored)
            stored_tiles.append(stored)
    return stored_tiles


def by_gdal(photograph: Photograph) -> list[NDArray[np.uint8]]:
    """Do the same with GDAL's warp."""

    def warp_by_gdal(source: SceneRaster, grid: PixelGrid, **_: Any) -> NDArray[np.float32]:
        return resample_gdal.warp(source, grid, categorical=False)

    with patch.object(warp, "warp", warp_by_gdal):
        return by_us(photograph)


def by_rio_tiler(photograph: Photograph) -> list[bytes]:
    """Read tile by tile with rio-tiler, and encode as PNG."""
    low, high = RANGES[photograph.product.units]
    scale = photograph.product.scale
    readers = [Reader(str(path)) for path in photograph.files]
    encoded_tiles = []
    for tile in (tile for tiles in photograph.blocks for tile in tiles):
        indexes = (1, 2, 3) if len(readers) == 1 else (1,)
        parts = [
            reader.tile(*tile, indexes=indexes, reproject_method="bilinear") for reader in readers
        ]
        image = parts[0]
        if len(parts) > 1:
            image = ImageData(np.ma.concatenate([part.array for part in parts]))
            image.rescale(in_range=((low / scale, high / scale),))
        encoded_tiles.append(image.render(img_format="PNG"))
    for reader in readers:
        reader.close()
    return encoded_tiles


def decoded(photograph: Photograph) -> None:
    """Only read and decode the windows of the blocks."""
    for path in photograph.files:
        indexes = [1, 2, 3] if len(photograph.files) == 1 else [1]
        with rasterio.open(path) as dataset:
            placement = read_placement(dataset, photograph.product, where=path.name)
            for grid in photograph.grids:
                window = placement.window(
                    grid.bounds_3857, width=dataset.width, height=dataset.height
                )
                dataset.read(indexes, window=window)


def compressed(stored: list[NDArray[np.uint8]]) -> None:
    """Only compress the stored tiles."""
    codec = Zstd(level=ZSTD_LEVEL)
    for tile in stored:
        codec.encode(tile)


def afresh(way: Callable[[Photograph], Any], photograph: Photograph) -> Callable[[], Any]:
    """Wrap a way so that each call starts with an empty block cache."""

    def call() -> Any:
        with rasterio.Env(**NO_CACHE):
            return way(photograph)

    return call


def measure(name: str, photograph: Photograph, rounds: int, target: float) -> list[str]:
    """Measure one task; give its row of the table."""
    ways = {"rio": by_rio_tiler, "gdal": by_gdal, "ours": by_us, "decode": decoded}
    calls = {key: afresh(way, photograph) for key, way in ways.items()}
    ours = by_us(photograph)
    calls["compress"] = partial(compressed, ours)
    seconds = medians(paired(calls, rounds))
    tiles = num_tiles(photograph.blocks)
    per_s = {key: tiles / took for key, took in seconds.items()}
    largest_difference = np.abs(np.array(ours, int) - np.array(by_gdal(photograph), int)).max()
    return [
        name,
        *(f"{per_s[key]:,.0f}" for key in ("rio", "gdal", "ours")),
        f"{per_s['ours'] / per_s['rio']:.1f}",
        f"{target:.0f}",
        f"{per_s['ours'] / per_s['gdal']:.1f}",
        f"{per_s['decode']:,.0f}",
        f"{per_s['compress']:,.0f}",
        f"{(seconds['decode'] + seconds['compress']) / seconds['ours']:.2f}",
        f"{largest_difference}",
    ]


def profiled(photograph: Photograph, most: int = 7) -> list[str]:
    """List the functions with most own time in Salibi's way, and their share in percent."""
    profile = cProfile.Profile()
    profile.runcall(afresh(by_us, photograph))
    own_s: Counter[str] = Counter()
    for (_file, _line, name), (_, _, seconds, _, _) in pstats.Stats(profile).stats.items():
        own_s[_plain(name)] += seconds
    whole_s = own_s.total()
    return [f"{name} {100 * spent / whole_s:.0f} %" for name, spent in own_s.most_common(most)]


def _plain(name: str) -> str:
    """Strip the profiler's decoration from a function's name."""
    return name.strip("{}<>").removeprefix("built-in method ").removeprefix("method ")


def main() -> None:
    """Print the table, or write it as a report."""
    arguments = parser(__doc__).parse_args()
    blocks = by_form(arguments, full=4, quick=1, smallest=1)
    rounds = by_form(arguments, full=5, quick=3, smallest=1)
    across = by_form(arguments, full=4, quick=4, smallest=2)
    edge_px = by_form(arguments, full=5120, quick=5120, smallest=3600)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tasks = {
            "Sentinel-2 10 m to zoom 15": (
                optical(folder, zoom=15, blocks=blocks, across=across),
                10.0,
            ),
            "NAIP 0.6 m to zoom 18": (
                aerial(folder, zoom=18, blocks=blocks, across=across, edge_px=edge_px),
                15.0,
            ),
            "NAIP 0.6 m to zoom 16": (
                aerial(folder, zoom=16, blocks=1, across=across, edge_px=edge_px),
                6.0,
            ),
        }
        rows = [
            measure(name, photograph, rounds, target)
            for name, (photograph, target) in tasks.items()
        ]
        profiles = [
            f"- {name}: {', '.join(profiled(photograph))}"
            for name, (photograph, _) in tasks.items()
        ]
    head = ["task", "rio-tiler + PNG", "GDAL block warp", "ours", "ours / rio-tiler", "target"]
    head += [
        "ours / GDAL",
        "decoding alone",
        "compressing alone",
        "share of both in ours",
        "most apart from GDAL, of 255",
    ]
    lines = [
        describe("rio-tiler", "rasterio", "opencv-python-headless", "numpy"),
        f"Tiles of 256 px, 3 bands, per second on one core; GDAL {rasterio.__gdal_version__}.",
        *table(head, rows),
        "Pixels equal GDAL's to 1 of 255. On hard edges shrunk ones differ more, because GDAL averages",
        "over upright boxes: `benchmarks/data/shrinking.py` holds both to a plain average.",
        "",
        "Where our own time goes, by functions without those that they call (`by_us` compresses,",
        "`_read_once` decodes and turns numbers into physical units):",
        "",
        *profiles,
    ]
    report(arguments.report, "Tiling", lines)


if __name__ == "__main__":
    main()
