"""Arrays laid out as a store's: chunks of one sample, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec


def sharded_array(
    path: Path, samples: np.ndarray, *, num_samples: int, shard: int, name: str = "hires_4x"
) -> Any:
    """Write ``samples`` (N, C, H, W) uint8 again and again until there are ``num_samples``.

    The array is made anew in the group at ``path``, which is made if need be.
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
