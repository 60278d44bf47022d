"""Scattered samples of a sharded array against whole shards, from a disk and over a network.

Claim: a permutation of all samples, each read on its own, feeds training about as fast as whole
shards do, so that little would be gained by shuffling within a window of shards; and each thread's
own decoding (`salibi_model.data.chunk_reader`) is faster than Zarr's, whose threads share an event loop. A store
as `salibi-data build` writes it, with chunks of one sample and shards of 64: whole shards, and each
sample on its own in a random order, with several numbers of threads. The network is a server in a
process of its own that waits 30 ms before each answer. The limit is decoding alone, by one thread.

Last, what the length of a shard costs: files, bytes of indexes, and a first epoch over the network.

Run: python -m benchmarks.model.scattered [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Zstd

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe
from benchmarks._lib.shards import sharded_array
from salibi_data.store.open import open_group
from salibi_model.data.chunk_reader import ChunkReader

if TYPE_CHECKING:
    from collections.abc import Iterator


LATENCY_S = 0.03
SHARD, SHAPE = 64, (3, 512, 512)
SHARDS = (1, 16, 64, 256)
THREADS = (1, 2, 16)
PLACES = ("disk", "network")


def serve_forever(folder: Path, ready: Connection) -> None:
    """Serve the folder until this process is ended."""
    from tests.support.services.buckets import SuffixServer
    from tests.support.services.servers import serve

    with serve(SuffixServer(folder, latency_s=LATENCY_S)) as server:
        ready.send(server.url)
        ready.recv()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server of the folder in a process of its own, until the block ends."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_forever, args=(folder, theirs), daemon=True)
    server.start()
    try:
        yield ours.recv()
    finally:
        ours.send("done")
        server.join()


def landscapes() -> np.ndarray:
    """Photographs of drawn landscapes."""
    from tests.support.model.stores import landscape

    images = [landscape(np.random.default_rng(i))["hires_4x"] for i in range(8)]
    return np.ascontiguousarray(np.stack(images))


def of_threads(threads: int, way: Callable[[int], object], places: list[int]) -> None:
    """Do it at each place, as many at a time as there are threads."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(way, places):
            pass


def samples_of(location: str) -> Callable[[int, int], object]:
    """A run's samples, by Salibi's reader of an array opened anew: no index is known."""
    reader: Any = ChunkReader.for_array(open_group(location)["hires_4x"])
    return lambda start, stop: list(reader.read(start, stop))


def in_order(location: str, num_samples: int, threads: int) -> None:
    """Shard by shard."""
    read = samples_of(location)
    starts = list(range(0, num_samples, SHARD))
    of_threads(threads, lambda start: read(start, min(start + SHARD, num_samples)), starts)


def scattered(location: str, num_samples: int, threads: int) -> None:
    """Each on its own in a random order, as `DataLoader` reads."""
    read = samples_of(location)
    order = np.random.default_rng(0).permutation(num_samples).tolist()
    of_threads(threads, lambda i: read(i, i + 1), order)


def by_zarr(location: str, num_samples: int, threads: int) -> None:
    """The same through Zarr's array, with the shards' indexes kept."""
    array: Any = open_group(location)["hires_4x"]
    order = np.random.default_rng(0).permutation(num_samples).tolist()
    of_threads(threads, array.__getitem__, order)


WAYS = {"whole shards": in_order, "scattered": scattered, "scattered, by Zarr": by_zarr}


def decoded(packed: list[bytes], num_samples: int) -> None:
    """Decoding alone, one after the other."""
    for number in range(num_samples):
        Zstd().decode(packed[number % len(packed)])


def main() -> None:
    """Print samples per second by place, way and number of threads, and by the length of shards."""
    arguments = side_by_side.parser(__doc__).parse_args()
    num_samples = side_by_side.by_form(arguments, full=128, quick=64, smallest=8)
    rounds = side_by_side.by_form(arguments, full=3, quick=1, smallest=1)
    images = landscapes()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for shard in SHARDS:
            sharded_array(folder / f"{shard}.zarr", images, num_samples=num_samples, shard=shard)
        with served(folder) as url:
            figures = [
                describe("zarr", "obstore", "numpy"),
                *by_way(folder, url, images, num_samples, rounds),
                *by_length(url, num_samples, rounds),
            ]
    side_by_side.report(arguments.report, "Scattered samples", figures)


def by_way(folder: Path, url: str, images: np.ndarray, num_samples: int, rounds: int) -> list[str]:
    """Whole shards and scattered samples, from a disk and over a network."""
    packed = [Zstd(level=3).encode(image) for image in images]
    ways: dict[str, Callable[[], object]] = {
        f"{way} {place} {threads}": partial(
            how, f"{folder if place == 'disk' else url}/{SHARD}.zarr", num_samples, threads
        )
        for place in PLACES
        for way, how in WAYS.items()
        for threads in THREADS[place == "network" :]
    }
    ways["limit"] = lambda: decoded(packed, num_samples)
    seconds = side_by_side.medians(side_by_side.paired(ways, rounds))
    rates = {way: num_samples / found for way, found in seconds.items()}
    head = ["samples/s", *(f"{place}, {n} threads" for place in PLACES for n in THREADS)]
    rows = [
        [way, *(_rate(rates.get(f"{way} {place} {n}")) for place in PLACES for n in THREADS)]
        for way in WAYS
    ]
    return [
        *side_by_side.table(head, rows),
        f"Limit, decoding alone by one thread: {rates['limit']:.0f} samples/s.",
    ]


def by_length(url: str, num_samples: int, rounds: int) -> list[str]:
    """A first epoch over the network, from stores that differ in the length of their shards."""
    ways = {
        shard: partial(scattered, f"{url}/{shard}.zarr", num_samples, THREADS[-1])
        for shard in SHARDS
    }
    named = {str(shard): way for shard, way in ways.items()}
    seconds = side_by_side.medians(side_by_side.paired(named, rounds))
    rows = [
        [
            f"{shard}",
            f"{-(-188_060 // shard):,}",
            f"{16 + 4 / shard:.1f}",
            f"{shard * np.prod(SHAPE) / 1e6:.0f}",
            f"{1 + 1 / shard:.2f}",
            _rate(num_samples / seconds[str(shard)]),
        ]
        for shard in SHARDS
    ]
    head = [
        *("samples per shard", "files per modality of the full dataset", "index, bytes a sample"),
        *("MB of pixels to write a shard", "requests a sample, first epoch", "samples/s"),
    ]
    return side_by_side.table(head, rows)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0f}"


if __name__ == "__main__":
    main()
