"""Reading scattered samples of a sharded array: by slices, and by an index array.

Claim: `SampleStore.read` takes slices because an index array makes zarr decode whole shards to pick
samples from them. A B A B on one generated array; medians and their ratio, and a plain copy of the same
bytes in memory as the limit.

Run: python benchmarks/reading.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from shards import sharded_array

SAMPLES, SHARD, SHAPE = 96, 32, (3, 512, 512)
ROUNDS = 3


def by_slices(array: Any, wanted: np.ndarray) -> np.ndarray:
    """As `SampleStore.read` does."""
    out = np.empty((len(wanted), *SHAPE), np.uint8)
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(wanted)]):
        out[start:stop] = array[int(wanted[start]) : int(wanted[stop - 1]) + 1]
    return out


def by_index_array(array: Any, wanted: np.ndarray) -> np.ndarray:
    """As numpy users would."""
    return np.asarray(array.oindex[wanted])


def seconds(way: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def main() -> None:
    """Print medians, their ratio, and the distance from a copy in memory."""
    print(describe("zarr", "numpy"))
    rng = np.random.default_rng(0)
    smooth = rng.integers(90, 110, (SHARD, *SHAPE), dtype=np.uint8)
    wanted = np.sort(rng.choice(SAMPLES, SAMPLES * 3 // 4, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        array = sharded_array(Path(folder), smooth, num_samples=SAMPLES, shard=SHARD)
        ways: dict[str, list[float]] = {"index array": [], "slices": [], "copy": []}
        for _ in range(ROUNDS):
            ways["index array"].append(seconds(lambda: by_index_array(array, wanted)))
            ways["slices"].append(seconds(lambda: by_slices(array, wanted)))
            ways["copy"].append(seconds(lambda: np.resize(smooth, (len(wanted), *SHAPE)).copy()))
    medians = {way: statistics.median(found) for way, found in ways.items()}
    print(", ".join(f"{way} {median:.3f} s" for way, median in medians.items()))
    print(f"ratio index array / slices {medians['index array'] / medians['slices']:.1f}")
    print(f"slices over a copy in memory {medians['slices'] / medians['copy']:.1f}")


if __name__ == "__main__":
    main()
