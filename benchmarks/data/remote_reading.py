"""Read windows of a COG over HTTP with Salibi's range reader and with GDAL's /vsicurl.

Claim: retrying, counting, limiting and signing every request costs no time. The ways take turns on
one local server, in a process of its own, that waits 30 ms before it answers. The file has 4 bands
of 8-bit noise on a slope, 512 px tiles, deflate. Every round has its own address, because GDAL's
cache is keyed by address. GDAL has the settings that its documentation recommends for COGs, once
also with the larger block cache that lets it fetch a whole window at once.

Run: python -m benchmarks.data.remote_reading [--quick]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, parser
from salibi_data.sources.gdal import open_raster

LATENCY_S = 0.03
WINDOW_PX, TILE_PX = 2048, 512
RECOMMENDED = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
WITH_BLOCKS = {**RECOMMENDED, "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(256 * 2**20)}


def serve_forever(folder: Path, ready: Connection) -> None:
    """Serve the folder until the other end of ``ready`` sends something."""
    from tests.support.services.servers import RangeServer, serve

    with serve(RangeServer(folder, latency_s=LATENCY_S)) as server:
        ready.send(server.url)
        ready.recv()


def write(path: Path, file_px: int) -> None:
    """Write a COG that compresses to about half, like an aerial photograph."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 230, file_px, dtype=np.float32)
    profile = {"driver": "COG", "dtype": "uint8", "count": 4, "width": file_px, "height": file_px}
    georeference = {"crs": "EPSG:32610", "transform": from_origin(5e5, 4e6, 0.6, 0.6)}
    layout = {"blocksize": TILE_PX, "compress": "deflate"}
    with rasterio.open(path, "w", **profile, **georeference, **layout) as dataset:
        for band in range(1, 5):
            noise = rng.integers(0, 16, (file_px, file_px), dtype=np.uint8)
            dataset.write(noise + slope.astype(np.uint8), band)


def window(turn: int, file_px: int) -> Window:
    """Give a window that crosses tiles, a different one in every round."""
    offset = 200 + 137 * turn
    return Window(offset, file_px - WINDOW_PX - offset, WINDOW_PX, WINDOW_PX)


def by_us(url: str, turn: int) -> np.ndarray:
    """Read like :func:`salibi_data.sources.read.read_asset`."""
    with open_raster(url) as dataset:
        return dataset.read(window=window(turn, dataset.width))


def by_gdal(url: str, turn: int, options: dict[str, str]) -> np.ndarray:
    """Read with rasterio and GDAL's own HTTP client."""
    with rasterio.Env(**options), rasterio.open(url) as dataset:
        return dataset.read(window=window(turn, dataset.width))


def main() -> None:
    """Print medians and their ratios."""
    form = parser(__doc__).parse_args()
    rounds, file_px = by_form(form, full=(9, 6144), quick=(3, 6144), smallest=(1, 2560))
    print(describe("rasterio", "requests", "urllib3"), f"GDAL {rasterio.__gdal_version__}")
    ways: dict[str, Callable[[str, int], np.ndarray]] = {
        "ours": by_us,
        "vsicurl": lambda url, turn: by_gdal(url, turn, RECOMMENDED),
        "vsicurl, larger block cache": lambda url, turn: by_gdal(url, turn, WITH_BLOCKS),
    }
    seconds_by_way: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a.tif", file_px)
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=serve_forever, args=(Path(folder), theirs), daemon=True)
        server.start()
        base = f"{ours.recv()}/a.tif"
        for turn in range(-1, rounds):  # the first warms up: imports, connections
            images = []
            for number, (name, way) in enumerate(ways.items()):
                start = time.perf_counter()
                images.append(way(f"{base}?{turn}-{number}", max(0, turn)))
                seconds_by_way[name].append(time.perf_counter() - start)
            if not all(np.array_equal(image, images[0]) for image in images):
                raise AssertionError("the ways read different pixels")
        ours.send("done")
        server.join()
    medians = {name: statistics.median(times[1:]) for name, times in seconds_by_way.items()}
    print(", ".join(f"{name} {median:.3f} s" for name, median in medians.items()))
    for name in list(ways)[1:]:
        print(f"ratio ours / {name} {medians['ours'] / medians[name]:.2f}")


if __name__ == "__main__":
    main()
