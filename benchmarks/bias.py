"""What building the bias from the kept patches' coordinates saves, against gathering it from a full table.

Claim: for masked images `salibi_model.alibi.scale_alibi_bias` takes less time and memory than repeating the full
(heads, N, N) table for each sample and gathering the kept pairs, which is how published code does it. Both ways give
the same numbers (checked here). Side by side in one process, A B A B; medians and their ratio.

Run: python benchmarks/bias.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

import torch
from machine import describe

from salibi_model.alibi import patch_centres, scale_alibi_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HEADS, BATCH, EDGE, KEPT = 16, 8, 32, 256
"""Size base, the high-resolution image's 1024 patches, three quarters of them masked."""


def from_coordinates(kept: Tensor) -> Tensor:
    """The kept patches' centres, and their distances."""
    xy = patch_centres((EDGE, EDGE), 0.5)[kept]
    return scale_alibi_bias(xy, xy, HEADS)


def from_table(table: Tensor, kept: Tensor) -> Tensor:
    """The whole table for each sample, then the kept pairs of it."""
    pairs = (kept[:, :, None] * EDGE**2 + kept[:, None, :]).flatten(1)
    repeated = table.repeat(BATCH, 1, 1, 1).flatten(2)
    picked = repeated.gather(2, pairs[:, None].expand(-1, HEADS, -1))
    return picked.unflatten(2, (KEPT, KEPT))


def main() -> None:
    """Print the medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    kept = torch.stack([torch.randperm(EDGE**2)[:KEPT] for _ in range(BATCH)])
    xy = patch_centres((EDGE, EDGE), 0.5)[None]
    table = scale_alibi_bias(xy, xy, HEADS)
    ways: dict[str, Callable[[], Tensor]] = {
        "coordinates": lambda: from_coordinates(kept),
        "table": lambda: from_table(table, kept),
    }
    torch.testing.assert_close(ways["coordinates"](), ways["table"]())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(describe("torch"))
    for name, value in medians.items():
        print(f"{name}: {1000 * value:.1f} ms")
    print(f"table / coordinates: {medians['table'] / medians['coordinates']:.1f}")
    full = HEADS * EDGE**4 * 4 * BATCH
    print(f"largest tensor: {full / 1e6:.0f} MB against {HEADS * KEPT**2 * 4 * BATCH / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
