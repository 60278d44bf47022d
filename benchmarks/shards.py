"""Arrays laid out as a store's: chunks of one sample, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec


def sharded_array(path: Path, samples: np.ndarray, *, num_samples: int, shard: int) -> Any:
    """Write ``samples`` (N, C, H, W) uint8 again and again until there are ``num_samples``."""
    shape = samples.shape[1:]
    array = zarr.open_group(path, mode="w").create_array(
        "hires_4x",
        shape=(num_samples, *shape),
        chunks=(1, *shape),
        shards=(shard, *shape),
        dtype="uint8",
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
    )
    for start in range(0, num_samples, shard):
        array[start : start + shard] = np.resize(samples, (shard, *shape))
    return array
