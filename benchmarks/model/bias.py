"""Time and memory saved by computing the bias from coordinates instead of gathering it from a table.

Claim: for masked images `salibi_model.nn.alibi.scale_alibi_bias` takes less time and memory than repeating the full
(heads, N, N) table for each sample and gathering the kept pairs, like published code. Both ways give the same
numbers (checked here). They take turns in one process; figures are medians and their ratio.

Run: python -m benchmarks.model.bias [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HEADS, BATCH, EDGE, KEPT = 16, 8, 32, 256
"""Heads of size base, and the high-resolution image's 1024 patches, three quarters of them masked."""


def from_coordinates(kept_patches: Tensor) -> Tensor:
    """Compute the bias from the centres of the kept patches."""
    xy = patch_centres((EDGE, EDGE), 0.5)[kept_patches]
    return scale_alibi_bias(xy, xy, HEADS)


def from_table(full_bias: Tensor, kept_patches: Tensor) -> Tensor:
    """Repeat the full table for each sample, then gather the kept pairs."""
    pairs = (kept_patches[:, :, None] * EDGE**2 + kept_patches[:, None, :]).flatten(1)
    repeated = full_bias.repeat(BATCH, 1, 1, 1).flatten(2)
    picked = repeated.gather(2, pairs[:, None].expand(-1, HEADS, -1))
    return picked.unflatten(2, (KEPT, KEPT))


def main() -> None:
    """Print the medians and their ratio."""
    arguments = parser(__doc__).parse_args()
    rounds = by_form(arguments, full=15, quick=7, smallest=1)
    kept_patches = torch.stack([torch.randperm(EDGE**2)[:KEPT] for _ in range(BATCH)])
    xy = patch_centres((EDGE, EDGE), 0.5)[None]
    full_bias = scale_alibi_bias(xy, xy, HEADS)
    ways: dict[str, Callable[[], Tensor]] = {
        "coordinates": lambda: from_coordinates(kept_patches),
        "table": lambda: from_table(full_bias, kept_patches),
    }
    torch.testing.assert_close(ways["coordinates"](), ways["table"]())
    median = medians(paired(ways, rounds))
    largest_bytes = {
        "coordinates": HEADS * KEPT**2 * 4 * BATCH,
        "table": HEADS * EDGE**4 * 4 * BATCH,
    }
    rows = [
        [way, f"{1000 * s:.1f}", f"{median['table'] / s:.1f}", f"{largest_bytes[way] / 1e6:.0f}"]
        for way, s in median.items()
    ]
    head = ["from", "ms", "times as fast", "largest tensor, MB"]
    report(arguments.report, "The bias of kept patches", [describe("torch"), *table(head, rows)])


if __name__ == "__main__":
    main()
