"""Compare scattered samples of a sharded array with whole shards, from disk and network.

Claim: a permutation of all samples, each read on its own, feeds training about as fast as whole
shards, so that shuffling within a window of shards would gain little; and decoding in each thread
(`salibi_model.data.chunk_reader`) is faster than Zarr's, whose threads share an event loop. The
store has the layout of `salibi-data build`: chunks of one sample in shards of 64. It is read shard by
shard, and sample by sample in a random order, with several numbers of threads. The network is a
server in a process of its own that waits 30 ms before each answer. The limit is decoding alone, by
one thread.

The last table shows the cost of a shard's length: files, bytes of indexes, and a first epoch over
the network.

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
MEDIA = ("disk", "network")


def serve_forever(folder: Path, ready: Connection) -> None:
    """Serve the folder until the other end of ``ready`` sends something."""
    from tests.support.services.buckets import SuffixServer
    from tests.support.services.servers import serve

    with serve(SuffixServer(folder, latency_s=LATENCY_S)) as server:
        ready.send(server.url)
        ready.recv()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the folder from a process of its own; give the server's address."""
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
    """Draw high-resolution images of synthetic landscapes (N, C, H, W)."""
    from tests.support.model.stores import landscape

    images = [landscape(np.random.default_rng(i))["hires_4x"] for i in range(8)]
    return np.ascontiguousarray(np.stack(images))


def of_threads(threads: int, way: Callable[[int], object], positions: list[int]) -> None:
    """Call ``way`` with each position, in ``threads`` threads."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(way, positions):
            pass


def samples_of(location: str) -> Callable[[int, int], object]:
    """Give Salibi's reader of a run of samples, for a newly opened array without cached indexes."""
    reader: Any = ChunkReader.for_array(open_group(location)["hires_4x"])
    return lambda start, stop: list(reader.read(start, stop))


def in_order(location: str, num_samples: int, threads: int) -> None:
    """Read shard by shard."""
    read = samples_of(location)
    starts = list(range(0, num_samples, SHARD))
    of_threads(threads, lambda start: read(start, min(start + SHARD, num_samples)), starts)


def scattered(location: str, num_samples: int, threads: int) -> None:
    """Read each sample on its own in a random order, like `DataLoader`."""
    read = samples_of(location)
    order = np.random.default_rng(0).permutation(num_samples).tolist()
    of_threads(threads, lambda i: read(i, i + 1), order)


def by_zarr(location: str, num_samples: int, threads: int) -> None:
    """Read the same through Zarr's array, which keeps the shards' indexes."""
    array: Any = open_group(location)["hires_4x"]
    order = np.random.default_rng(0).permutation(num_samples).tolist()
    of_threads(threads, array.__getitem__, order)


WAYS = {"whole shards": in_order, "scattered": scattered, "scattered, by Zarr": by_zarr}


def decoded(packed: list[bytes], num_samples: int) -> None:
    """Only decode, one sample after the other."""
    for number in range(num_samples):
        Zstd().decode(packed[number % len(packed)])


def main() -> None:
    """Print samples per second by medium, way and number of threads, and by the length of shards."""
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
    """Measure whole shards and scattered samples, from disk and network."""
    packed = [Zstd(level=3).encode(image) for image in images]
    ways: dict[str, Callable[[], object]] = {
        f"{way} {medium} {threads}": partial(
            how, f"{folder if medium == 'disk' else url}/{SHARD}.zarr", num_samples, threads
        )
        for medium in MEDIA
        for way, how in WAYS.items()
        for threads in THREADS[medium == "network" :]
    }
    ways["limit"] = lambda: decoded(packed, num_samples)
    seconds = side_by_side.medians(side_by_side.paired(ways, rounds))
    rates = {way: num_samples / seconds_taken for way, seconds_taken in seconds.items()}
    head = ["samples/s", *(f"{medium}, {n} threads" for medium in MEDIA for n in THREADS)]
    rows = [
        [way, *(_rate(rates.get(f"{way} {medium} {n}")) for medium in MEDIA for n in THREADS)]
        for way in WAYS
    ]
    return [
        *side_by_side.table(head, rows),
        f"Limit, decoding alone by one thread: {rates['limit']:.0f} samples/s.",
    ]


def by_length(url: str, num_samples: int, rounds: int) -> list[str]:
    """Measure a first epoch over the network, from stores with shards of different length."""
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
