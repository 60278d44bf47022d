"""What building the bias from the kept patches' coordinates saves, against gathering it from a full table.

Claim: for masked images `salibi_model.nn.alibi.scale_alibi_bias` takes less time and memory than repeating the full
(heads, N, N) table for each sample and gathering the kept pairs, which is how published code does it. Both ways give
the same numbers (checked here). Side by side in one process, A B A B; medians and their ratio.

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
"""Size base, the high-resolution image's 1024 patches, three quarters of them masked."""


def from_coordinates(kept: Tensor) -> Tensor:
    """The kept patches' centres, and their distances."""
    xy = patch_centres((EDGE, EDGE), 0.5)[kept]
    return scale_alibi_bias(xy, xy, HEADS)


def from_table(everything: Tensor, kept: Tensor) -> Tensor:
    """The whole table for each sample, then the kept pairs of it."""
    pairs = (kept[:, :, None] * EDGE**2 + kept[:, None, :]).flatten(1)
    repeated = everything.repeat(BATCH, 1, 1, 1).flatten(2)
    picked = repeated.gather(2, pairs[:, None].expand(-1, HEADS, -1))
    return picked.unflatten(2, (KEPT, KEPT))


def main() -> None:
    """Print the medians and their ratio."""
    arguments = parser(__doc__).parse_args()
    rounds = by_form(arguments, full=15, quick=7, smallest=1)
    kept = torch.stack([torch.randperm(EDGE**2)[:KEPT] for _ in range(BATCH)])
    xy = patch_centres((EDGE, EDGE), 0.5)[None]
    everything = scale_alibi_bias(xy, xy, HEADS)
    ways: dict[str, Callable[[], Tensor]] = {
        "coordinates": lambda: from_coordinates(kept),
        "table": lambda: from_table(everything, kept),
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
