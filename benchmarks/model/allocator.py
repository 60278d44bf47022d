"""Time saved by keeping freed memory in a training step of size tiny on the CPU.

Claim: `salibi_model.training.allocator.keep_freed_memory` saves time, because the system does not map and
fault in the pages of large tensors in every step. Both ways run in processes of their own and take turns;
figures are medians and their ratio.

Run: python -m benchmarks.model.allocator [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, in_own_process, medians, parser, report, table


def one_way(*, keep: bool, batch_size: int, steps: int) -> float:
    """Give the median seconds of a forward and backward pass."""
    import torch

    from salibi_data.store.schema import Modality
    from salibi_model.models.config import SIZES, ModelConfig
    from salibi_model.models.scale_alibi import ScaleAlibi
    from salibi_model.nn.masking import random_masks
    from salibi_model.training.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    modalities = tuple(
        Modality(
            name=name,
            sensor=sensor,
            zoom=17 + finer,
            gsd_ratio=0.5**finer,
            size_px=256 * 2**finer,
            bands=bands,
            units="display",
            scale=(1.0,) * len(bands),
            offset=(0.0,) * len(bands),
            mean=(100.0,) * len(bands),
            std=(30.0,) * len(bands),
        )
        for name, sensor, bands, finer in (
            ("sar", "sentinel-1", ("vv", "vh"), 0),
            ("lores", "sentinel-2", ("red", "green", "blue"), 0),
            ("hires_4x", "naip", ("red", "green", "blue"), 1),
        )
    )
    model = ScaleAlibi(ModelConfig(size=SIZES["tiny"], modalities=modalities))
    images = {
        m.name: torch.randint(
            1, 255, (batch_size, len(m.bands), m.size_px, m.size_px), dtype=torch.uint8
        )
        for m in modalities
    }
    masks = random_masks(model.num_tokens(images), 0.75, range(batch_size))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model(images, masks)["loss"].backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    """Print both medians and their ratio."""
    arguments = _arguments()
    batch_size, steps, rounds = by_form(
        arguments, full=(16, 7, 3), quick=(16, 5, 1), smallest=(1, 1, 1)
    )
    if arguments.way:
        step_seconds = one_way(keep=arguments.way == "kept", batch_size=batch_size, steps=steps)
        print(json.dumps({"seconds": step_seconds}))
        return
    form = by_form(arguments, full=[], quick=["--quick"], smallest=["--smallest"])
    seconds_by_way: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(rounds):
        for way, step_seconds in seconds_by_way.items():
            step_seconds.append(in_own_process(__spec__.name, "--way", way, *form)["seconds"])
    median = medians(seconds_by_way)
    rows = [
        [f"memory {way}", f"{median[way]:.3f}", f"{median['given back'] / median[way]:.2f}"]
        for way in seconds_by_way
    ]
    lines = [describe("torch"), *table(["way", "seconds a step", "times as fast"], rows)]
    report(arguments.report, "Keeping freed memory", lines)


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--way", help=argparse.SUPPRESS)
    return arguments.parse_args()


if __name__ == "__main__":
    main()
