"""Read scattered samples of a sharded array by slices and by an index array.

Claim: `SampleStore.read` takes slices because an index array makes zarr decode whole shards to pick
samples from them. The ways take turns on one generated array; figures are medians and their ratio.
The limit is a plain copy of the same bytes in memory.

Run: python -m benchmarks.data.reading [--quick]
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._lib.machine import describe
from benchmarks._lib.shards import sharded_array
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table

SHARD, SHAPE = 32, (3, 512, 512)


def by_slices(array: Any, wanted: np.ndarray) -> np.ndarray:
    """Read runs of consecutive samples by slices, like `SampleStore.read`."""
    out = np.empty((len(wanted), *SHAPE), np.uint8)
    breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(wanted)]):
        out[start:stop] = array[int(wanted[start]) : int(wanted[stop - 1]) + 1]
    return out


def by_index_array(array: Any, wanted: np.ndarray) -> np.ndarray:
    """Read all samples by one index array, like NumPy."""
    return np.asarray(array.oindex[wanted])


def main() -> None:
    """Print medians, their ratio, and the distance from a copy in memory."""
    arguments = parser(__doc__).parse_args()
    num_samples, rounds = by_form(arguments, full=(96, 5), quick=(96, 1), smallest=(32, 1))
    rng = np.random.default_rng(0)
    smooth = rng.integers(90, 110, (SHARD, *SHAPE), dtype=np.uint8)
    wanted = np.sort(rng.choice(num_samples, num_samples * 3 // 4, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        array = sharded_array(Path(folder), smooth, num_samples=num_samples, shard=SHARD)
        ways = {
            "index array": lambda: by_index_array(array, wanted),
            "slices": lambda: by_slices(array, wanted),
            "copy in memory": lambda: np.resize(smooth, (len(wanted), *SHAPE)).copy(),
        }
        median = medians(paired(ways, rounds))
    rows = [[way, f"{s:.3f}", f"{median['index array'] / s:.1f}"] for way, s in median.items()]
    lines = [describe("zarr", "numpy"), *table(["way", "seconds", "times as fast"], rows)]
    report(arguments.report, "Scattered samples of a sharded array", lines)


if __name__ == "__main__":
    main()
