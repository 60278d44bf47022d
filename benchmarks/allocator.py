"""What keeping freed memory saves in a training step of size tiny on the CPU.

Claim: `salibi_model.allocator.keep_freed_memory` saves time, because large tensors are not mapped and
faulted in anew in every step. Both ways run in processes of their own, A B A B; medians and their ratio.

Run: python benchmarks/allocator.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from machine import describe

STEPS = 8
BATCH = 16


def one_way(*, keep: bool) -> float:
    """Median seconds of a forward and backward pass."""
    import torch

    from salibi_data.schema import Modality
    from salibi_model.allocator import keep_freed_memory
    from salibi_model.config import SIZES, ModelConfig
    from salibi_model.masking import random_masks
    from salibi_model.pretrain import ScaleAlibi

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
            1, 255, (BATCH, len(m.bands), m.size_px, m.size_px), dtype=torch.uint8
        )
        for m in modalities
    }
    masks = random_masks(model.num_tokens(images), 0.75, range(BATCH))
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model(images, masks)["loss"].backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def main(rounds: int = 3) -> None:
    """Print both medians and their ratio."""
    print(describe("torch"))
    found: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(rounds):
        for way, seconds in found.items():
            command = [sys.executable, __file__, f"--{way == 'kept'}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(float(done.stdout))
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    ratio = medians["given back"] / medians["kept"]
    print(
        f"step with memory given back {medians['given back']:.3f} s, kept {medians['kept']:.3f} s"
    )
    print(f"ratio {ratio:.2f} (above 1: keeping it is faster)")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--True"], ["--False"]):
        print(one_way(keep=sys.argv[1] == "--True"))
    else:
        main(*(int(argument) for argument in sys.argv[1:2]))
