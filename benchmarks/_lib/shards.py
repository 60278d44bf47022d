"""Write arrays in a store's layout: chunks of one sample, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec


def sharded_array(
    path: Path, samples: np.ndarray, *, num_samples: int, shard: int, name: str = "hires_4x"
) -> Any:
    """Write ``samples`` (N, C, H, W) uint8 repeatedly until the array holds ``num_samples``.

    An array of that name in the group at ``path`` is replaced; a missing group is created.
    """
    shape = samples.shape[1:]
    array = zarr.open_group(path, mode="a").create_array(
        name,
        overwrite=True,
        shape=(num_samples, *shape),
        chunks=(1, *shape),
        shards=(shard, *shape),
        dtype="uint8",
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
    )
    for start in range(0, num_samples, shard):
        stop = min(start + shard, num_samples)
        array[start:stop] = samples[np.arange(start, stop) % len(samples)]
    return array
