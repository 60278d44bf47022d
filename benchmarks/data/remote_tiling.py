"""Requests and time per tile from COGs over HTTP, with a limited number of requests at a time.

Claim: reading a block of tiles at once makes fewer requests than rio-tiler (tile by tile, in a pool
of threads) and odc-stac (one area in chunks, by dask's threads), and is therefore faster where
answers take time. One server in a process of its own waits 50 ms before it answers; Sentinel-2 in
three files to zoom 15, NAIP in one file to zoom 18. Both peers have the settings that their
documentation recommends for COGs. Every round has its own address, so that no cache holds it.

Run: python -m benchmarks.data.remote_tiling [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import odc.stac
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from rio_tiler.io import Reader
from shapely import box
from shapely.geometry import mapping

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, parser, report, table
from benchmarks.data.naip_scenes import Photograph, aerial, num_tiles, optical
from salibi_data.builds.layers import sources_of, warp_layer
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection


LATENCY_S = 0.05
RECOMMENDED = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_VERSION": "2",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_CACHEMAX": 200,
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}
"""GDAL settings for COGs (https://cogeotiff.github.io/rio-tiler/advanced/tms, TiTiler's tuning)."""


def serve_forever(folder: Path, pipe: Connection) -> None:
    """Serve the folder; answer each true value on the pipe with the number of requests so far."""
    from tests.support.services.servers import RangeServer, serve

    with serve(RangeServer(folder, latency_s=LATENCY_S)) as server:
        pipe.send(server.url)
        while pipe.recv():
            pipe.send(len(server.log))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Scene to read, and the number of requests allowed at a time."""

    photograph: Photograph
    base: str
    concurrency: int

    def urls(self, turn: int) -> list[str]:
        """Addresses of the files in one round."""
        return [f"{self.base}/{path.name}?{turn}" for path in self.photograph.files]


def by_us(task: Task, turn: int) -> None:
    """Read blocks in ``task.concurrency`` threads, each like a worker of a build."""
    photograph = task.photograph
    catalog, scene = photograph.catalog(), photograph.scene(task.urls(turn))

    def make(tiles: tuple[TileXYZ, ...]) -> None:
        layer, grid = photograph.layer, PixelGrid.around(tiles)
        warp_layer(layer, grid, tiles, sources_of(catalog, scene, [(layer, grid)]))

    with ThreadPoolExecutor(task.concurrency) as pool:
        list(pool.map(make, photograph.blocks))


def by_rio_tiler(task: Task, turn: int) -> None:
    """Read tiles in ``task.concurrency`` threads."""
    urls = task.urls(turn)
    indexes = (1, 2, 3) if len(urls) == 1 else (1,)

    def make(tile: tuple[int, int, int]) -> None:
        with rasterio.Env(**RECOMMENDED):
            for url in urls:
                with Reader(url) as reader:
                    reader.tile(*tile, indexes=indexes, reproject_method="bilinear")

    with ThreadPoolExecutor(task.concurrency) as pool:
        list(pool.map(make, (tile for tiles in task.photograph.blocks for tile in tiles)))


def by_odc_stac(task: Task, turn: int) -> None:
    """Read the area as one array, a chunk per block, in ``task.concurrency`` threads of dask."""
    photograph = task.photograph
    area = PixelGrid.around([tile for tiles in photograph.blocks for tile in tiles])
    single = len(photograph.files) > 1
    kind = "uint16" if single else "uint8"
    around = transform_bounds("EPSG:3857", "OGC:CRS84", *area.bounds_3857)
    when = datetime(2024, 1, 1, tzinfo=UTC)
    item = pystac.Item("scene", mapping(box(*around)), list(around), when, {}, collection="camera")
    for url, path in zip(task.urls(turn), photograph.files, strict=True):
        asset = pystac.Asset(url, media_type=pystac.MediaType.COG, roles=["data"])
        asset.extra_fields["raster:bands"] = [{"data_type": kind}] * (1 if single else 4)
        item.add_asset(path.stem, asset)
    stems = [path.stem for path in photograph.files]
    odc.stac.configure_rio(cloud_defaults=True, **RECOMMENDED)
    odc.stac.load(
        [item],
        bands=stems if single else [f"{stems[0]}.{band.index}" for band in photograph.bands],
        geobox=GeoBox(area.shape, Affine(*area.transform), "EPSG:3857"),
        resampling="bilinear",
        chunks={"x": 1024, "y": 1024},
    ).compute(scheduler="threads", num_workers=task.concurrency)


WAYS: dict[str, Callable[[Task, int], None]] = {
    "ours": by_us,
    "rio-tiler": by_rio_tiler,
    "odc-stac": by_odc_stac,
}


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """Start a server in its own process; give its address and a function that counts its requests."""
    ours, theirs = (context := get_context("spawn")).Pipe()
    process = context.Process(target=serve_forever, args=(folder, theirs), daemon=True)
    process.start()
    url = ours.recv()

    def requests() -> int:
        ours.send(True)
        return int(ours.recv())

    try:
        yield url, requests
    finally:
        ours.send(False)
        process.join()


def measure(task: Task, rounds: int, requests: Callable[[], int]) -> dict[str, tuple[float, float]]:
    """Measure each way: requests per tile, tiles per second."""
    os.environ["SALIBI_HTTP_PARALLEL"] = str(task.concurrency)
    tiles = num_tiles(task.photograph.blocks)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    num_requests = dict.fromkeys(WAYS, 0)
    for turn in range(-1, rounds):  # the first warms up: imports, connections
        for name, way in WAYS.items():
            before, started = requests(), time.perf_counter()
            way(task, next(_turns))
            took = time.perf_counter() - started
            num_requests[name] = requests() - before
            if turn >= 0:
                seconds[name].append(took)
    return {
        name: (num_requests[name] / tiles, tiles / statistics.median(seconds[name]))
        for name in WAYS
    }


_turns: Final = count()


def main() -> None:
    """Print the table, or write it as a report."""
    arguments = parser(__doc__).parse_args()
    blocks = by_form(arguments, full=2, quick=1, smallest=1)
    rounds = by_form(arguments, full=3, quick=1, smallest=1)
    across = by_form(arguments, full=4, quick=4, smallest=2)
    concurrencies = by_form(arguments, full=(1, 8, 32), quick=(1, 8, 32), smallest=(8,))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photographs = {
            "Sentinel-2 to zoom 15": optical(folder, zoom=15, blocks=blocks, across=across),
            "NAIP to zoom 18": aerial(folder, zoom=18, blocks=blocks, across=across, edge_px=2560),
        }
        with server(folder) as (base, requests):
            for name, photograph in photographs.items():
                for concurrency in concurrencies:
                    task = Task(photograph=photograph, base=base, concurrency=concurrency)
                    figures = measure(task, rounds, requests)
                    rows.append([name, str(concurrency), *_figures(figures)])
    head = ["task", "at a time", *(f"requests per tile, {name}" for name in WAYS)]
    head += [f"tiles per second, {name}" for name in WAYS]
    head += ["ours / rio-tiler", "ours / odc-stac"]
    lines = [
        describe("rio-tiler", "odc-stac", "rasterio", "requests"),
        f"{LATENCY_S * 1000:.0f} ms before every answer; GDAL {rasterio.__gdal_version__}.",
        *table(head, rows),
    ]
    report(arguments.report, "Tiling from a server", lines)


def _figures(figures: dict[str, tuple[float, float]]) -> list[str]:
    rate = {name: per_s for name, (_, per_s) in figures.items()}
    return [
        *(f"{num_requests:.2f}" for num_requests, _ in figures.values()),
        *(f"{per_s:,.1f}" for per_s in rate.values()),
        *(f"{rate['ours'] / rate[peer]:.1f}" for peer in ("rio-tiler", "odc-stac")),
    ]


if __name__ == "__main__":
    main()
