"""Load samples into torch batches in random order: the original's way, Salibi's, and a memmap.

Claim: a Salibi store feeds batches 20 times as fast as the original's archives, and half as fast as a
memmap of the same pixels, which is the limit. The same samples are stored as PNG tiles in three PMTiles
archives, as a store, and as plain arrays. A sample is SAR, low and high resolution and its four
children, all uint8, whole and not augmented, in batches of 16:

- the original's way: for each sample seven lookups of the `pmtiles` package and seven PNGs decoded by
  Pillow, and the children joined; in one process, and in two processes of torch's `DataLoader`;
- ours: `DataLoader` with 1 and 2 threads, read again each time (as for a store larger than memory) and
  kept in memory (as for a split up to `cache_bytes`, 2 GiB by default);
- memmap: rows of arrays copied into a batch by one thread.

The ways take turns (A B A B). Cold: the system is asked to drop the files' pages before each turn, as far
as it does so for an ordinary user. S3: a moto server on this machine, 16 threads. Turned: with the flips
and quarter turns of training, for the memmap as well.

Run: python -m benchmarks.model.loading [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pmtiles.reader import MmapSource, Reader
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe
from benchmarks._lib.shards import sharded_array
from salibi_model.data.loader import DataLoader, rotate_and_flip
from salibi_model.data.store import SampleStore

BATCH = 16
NAMES = ("sar", "lores", "hires", "hires_4x")
TARGET_ORIGINAL, TARGET_MEMMAP = 20.0, 0.5
MEANING = """\
Read anew, the time goes into Zstandard: about 1 GB of pixels a second and core, so that a sample of
1.3 MB takes more than a millisecond, which a memmap only copies. A split up to `cache_bytes` is kept in
memory, decoded, and is then near a memmap. The S3 server is one Python process and most
likely the limit there: from a range server with 30 ms latency the same reader does ten times as much
(`scattered.md`).
"""


def write_samples(folder: Path, num_samples: int) -> list[tuple[int, int]]:
    """Write the same landscapes as archives, a store and arrays; give their tiles."""
    from tests.support.data.released_archives import release, square
    from tests.support.model.stores import landscape, write_store

    edge = int(num_samples**0.5)
    tiles = square(edge)
    release(tiles).write(folder)
    drawn = [landscape(np.random.default_rng((0, x, y))) for x, y in tiles]
    write_store(folder / "a.zarr", num_samples=len(tiles), validation=0)
    for name in NAMES:
        images = np.ascontiguousarray(np.stack([sample[name] for sample in drawn]))
        np.save(folder / f"{name}.npy", images)
        sharded_array(folder / "a.zarr", images, name=name, num_samples=len(tiles), shard=64)
    return tiles


class Archives(Dataset[dict[str, torch.Tensor]]):
    """Data set that reads like the original: one tile after the other."""

    def __init__(self, folder: Path, tiles: list[tuple[int, int]]) -> None:
        self._folder, self._tiles = folder, tiles
        self._readers: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        from tests.support.data.released_archives import ZOOM

        if not self._readers:  # a worker process of torch must open its own files
            for name in ("sar", "lores", "hires"):
                file = (self._folder / f"{name}.pmtile").open("rb")
                self._readers[name] = Reader(MmapSource(file))
        x, y = self._tiles[index]
        rows = [
            np.concatenate(
                [self._tile("hires", ZOOM + 1, 2 * x + col, 2 * y + row) for col in (0, 1)], axis=1
            )
            for row in (0, 1)
        ]
        images = {
            "sar": self._tile("sar", ZOOM, x, y)[..., 1:],
            "lores": self._tile("lores", ZOOM, x, y),
            "hires": self._tile("hires", ZOOM, x, y),
            "hires_4x": np.concatenate(rows),
        }
        return {
            name: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            for name, image in images.items()
        }

    def _tile(self, name: str, z: int, x: int, y: int) -> np.ndarray:
        with Image.open(io.BytesIO(self._readers[name].get(z, x, y))) as image:
            return np.asarray(image)[..., :3]


def of_archives(archives: Archives, workers: int) -> Callable[[], None]:
    """Give an epoch of the original's way; its worker processes persist between epochs."""
    loader = TorchDataLoader(
        archives,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def of_memmaps(arrays: dict[str, np.ndarray], *, turned: bool) -> None:
    """Read an epoch of plain arrays, the limit."""
    order = np.random.default_rng(0).permutation(len(arrays["sar"]))
    for first in range(0, len(order) - BATCH + 1, BATCH):
        for array in arrays.values():
            batch = torch.empty((BATCH, *array.shape[1:]), dtype=torch.uint8)
            into = batch.numpy()
            for position, row in enumerate(order[first : first + BATCH].tolist()):
                into[position] = rotate_and_flip(array[row], row) if turned else array[row]


def of_batches(batches: DataLoader) -> None:
    """Read an epoch of Salibi's loader, with nothing read ahead."""
    reader = iter(batches)
    for _ in islice(reader, batches.steps_per_epoch):
        pass
    reader.close()


def forget(folder: Path, way: Callable[[], None]) -> None:
    """Ask the system to drop the pages of all files, then call ``way``."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    way()


def ways_of(folder: Path, tiles: list[tuple[int, int]], store: SampleStore) -> dict[str, Any]:
    """Give all ways by name; each reads an epoch."""
    archives = Archives(folder, tiles)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES}

    def ours(workers: int, *, keep: bool = False, turned: bool = False) -> Callable[[], None]:
        batches = DataLoader(
            [store],
            modalities=NAMES,
            batch_size=BATCH,
            workers=workers,
            augment=turned,
            cache_bytes=1 << 40 if keep else 0,
        )
        return partial(of_batches, batches)

    memmap = partial(of_memmaps, arrays, turned=False)
    return {
        "original": of_archives(archives, 0),
        "original, 2 processes": of_archives(archives, 2),
        "ours, 1 thread": ours(1),
        "ours, 2 threads": ours(2),
        "ours, kept in memory": ours(2, keep=True),
        "memmap": memmap,
        "original, cold": partial(forget, folder, of_archives(archives, 0)),
        "ours, 2 threads, cold": partial(forget, folder, ours(2)),
        "memmap, cold": partial(forget, folder, memmap),
        "ours, 2 threads, turned": ours(2, turned=True),
        "ours, kept in memory, turned": ours(2, keep=True, turned=True),
        "memmap, turned": partial(of_memmaps, arrays, turned=True),
    }


def main() -> None:
    """Print samples per second of all ways, and the comparison with the targets."""
    from tests.support.services.buckets import s3_server

    arguments = side_by_side.parser(__doc__).parse_args()
    wanted = side_by_side.by_form(arguments, full=144, quick=64, smallest=16)
    rounds = side_by_side.by_form(arguments, full=3, quick=2, smallest=1)
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as scratch,
        s3_server() as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        folder = Path(scratch)
        tiles = write_samples(folder, wanted)
        ways = ways_of(folder, tiles, SampleStore(folder / "a.zarr"))
        server.upload(folder / "a.zarr", "bench", "a.zarr")
        server.environment(environment)
        remote = DataLoader(
            [SampleStore("s3://bench/a.zarr")],
            modalities=NAMES,
            batch_size=BATCH,
            workers=16,
            augment=False,
            cache_bytes=0,
        )
        ways["ours, 16 threads, from S3"] = partial(of_batches, remote)
        seconds = side_by_side.medians(side_by_side.paired(ways, rounds))
    rates = {
        way: len(tiles) // BATCH * BATCH / seconds_taken for way, seconds_taken in seconds.items()
    }
    side_by_side.report(arguments.report, "Loading", lines_of(rates, len(tiles)))


def lines_of(rates: dict[str, float], num_samples: int) -> list[str]:
    """Format the table and the targets."""
    rows = [
        [
            way,
            f"{rate:,.0f}",
            f"{rate / rates['original']:.1f}",
            f"{rate / rates[_limit(way)]:.2f}",
        ]
        for way, rate in rates.items()
    ]
    read_anew, in_memory = rates["ours, 2 threads"], rates["ours, kept in memory"]
    of_original = (
        f"Target: {TARGET_ORIGINAL:g} times the original. Read anew {read_anew / rates['original']:.1f}, "
        f"kept {in_memory / rates['original']:.1f}; read anew against two processes of the original "
        f"{read_anew / rates['original, 2 processes']:.1f}."
    )
    of_memmap = (
        f"Target: {TARGET_MEMMAP:g} of a memmap. Read anew {read_anew / rates['memmap']:.2f}, kept "
        f"{in_memory / rates['memmap']:.2f}."
    )
    return [
        describe("torch", "zarr", "pmtiles", "pillow", "numpy"),
        "",
        f"{num_samples} samples of drawn landscapes.",
        *side_by_side.table(["way", "samples/s", "original = 1", "its memmap = 1"], rows),
        of_original,
        "",
        of_memmap,
        "",
        MEANING,
    ]


def _limit(way: str) -> str:
    kinds = [kind for kind in ("cold", "turned") if way.endswith(kind)]
    return ", ".join(["memmap", *kinds])


if __name__ == "__main__":
    main()
