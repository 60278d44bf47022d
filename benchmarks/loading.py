"""Scattered samples of a sharded array against whole shards, from a disk and over a network.

Claim: a permutation of all samples, each read on its own, feeds training about as fast as whole
shards do, so that little would be gained by shuffling within a window of shards. A store as
`salibi-data build` writes it, with chunks of one sample and shards of 64: whole shards, and each
sample on its own in a random order, with several numbers of threads. The network is a server in a
process of its own that waits 30 ms before each answer. Medians of samples per second; the last
figure is without the shards' indexes being kept, which zarr asks for with every chunk.

Run: python benchmarks/loading.py [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from machine import describe
from obstore.store import from_url
from shards import sharded_array
from side_by_side import by_form, parser
from zarr.storage import ObjectStore

from salibi_model.locations import open_group

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

LATENCY_S = 0.03
SHARD, SHAPE = 64, (3, 512, 512)
THREADS = (2, 4, 16)


def serve_forever(folder: Path, ready: Connection) -> None:
    """Serve the folder until this process is ended."""
    from buckets import SuffixServer
    from servers import serve

    with serve(SuffixServer(folder, latency_s=LATENCY_S)) as server:
        ready.send(server.url)
        ready.recv()


def write(path: Path, num_samples: int) -> None:
    """Photographs of drawn landscapes, a few of them again and again."""
    from stores import landscape

    images = np.stack([landscape(np.random.default_rng(i))["hires_4x"] for i in range(8)])
    sharded_array(path, images, num_samples=num_samples, shard=SHARD)


def by_shards(array: Any, threads: int) -> None:
    """One request per shard, as many at a time as there are threads."""
    shards = [slice(start, start + SHARD) for start in range(0, array.shape[0], SHARD)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(array.__getitem__, shards):
            pass


def by_samples(array: Any, threads: int) -> None:
    """Each on its own, in a random order, as `Batches` reads."""
    order = np.random.default_rng(0).permutation(array.shape[0]).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(array.__getitem__, order):
            pass


def by_zarr(location: str) -> Any:
    """The array as zarr alone opens it: no shard's index is kept."""
    if "://" in location:
        storage = from_url(location, client_options={"allow_http": True})
        return zarr.open_group(ObjectStore(storage, read_only=True), mode="r")["hires_4x"]
    return zarr.open_group(location, mode="r")["hires_4x"]


def per_second(
    ways: dict[str, Callable[[], None]], num_samples: int, rounds: int
) -> dict[str, float]:
    """Medians over rounds in which every way has its turn; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                found[name].append(num_samples / (time.perf_counter() - start))
    return {name: statistics.median(rates) for name, rates in found.items()}


def main() -> None:
    """Print samples per second, from disk and over the network."""
    form = parser(__doc__).parse_args()
    num_samples, rounds = by_form(form, full=(256, 3), quick=(128, 1), smallest=(64, 1))
    print(describe("zarr", "obstore", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a.zarr", num_samples)
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        server = context.Process(target=serve_forever, args=(Path(folder), theirs), daemon=True)
        server.start()
        for place, location in {
            "disk": f"{folder}/a.zarr",
            "network": f"{ours.recv()}/a.zarr",
        }.items():
            array, most = open_group(location)["hires_4x"], THREADS[-1]
            ways = {f"shards, {n} threads": partial(by_shards, array, n) for n in (1, 2, 4)}
            for threads in THREADS:
                ways[f"samples, {threads} threads"] = partial(by_samples, array, threads)
            ways[f"samples, {most} threads, indexes not kept"] = partial(
                by_samples, by_zarr(location), most
            )
            rates = per_second(ways, num_samples, rounds)
            print(f"{place}: " + "; ".join(f"{way} {rate:.0f}/s" for way, rate in rates.items()))
        ours.send("done")
        server.join()


if __name__ == "__main__":
    main()
