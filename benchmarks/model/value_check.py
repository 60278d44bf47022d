"""Measure what the check of images' values costs ``encode``.

Claim: no measurable cost. 8-bit images are not looked at; of others some 4,000 pixels are, and floating ones were
searched for NaN before. Each turn encodes one batch with the check and without it, on the same model and images.

Run: python -m benchmarks.model.value_check [--quick] [--device cuda] [--report benchmarks/reports/value_check.md]
"""

from __future__ import annotations

from functools import partial

import torch

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from salibi_data.store.schema import Modality
from salibi_model.models.config import SIZES, ModelConfig
from salibi_model.models.registry import build_model
from salibi_model.models.stored_images import check_stored

LORES = Modality(
    name="lores",
    sensor="sentinel-2",
    zoom=15,
    gsd_ratio=1.0,
    size_px=256,
    bands=("red", "green", "blue"),
    units="display",
    scale=(1.0, 1.0, 1.0),
    offset=(0.0, 0.0, 0.0),
    mean=(110.0, 115.0, 105.0),
    std=(50.0, 45.0, 40.0),
)
TYPES = (torch.uint8, torch.float32, torch.bfloat16, torch.int32)


def main() -> None:
    """Print milliseconds with and without the check, and of the check alone."""
    argument_parser = parser(__doc__)
    argument_parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = argument_parser.parse_args()
    device = torch.device(arguments.device)
    sizes, batches, rounds = by_form(
        arguments,
        full=(("tiny", "small"), (1, 8), 9),
        quick=(("tiny",), (1, 16), 9),
        smallest=(("tiny",), (1,), 1),
    )
    rows = []
    for size in sizes:
        config = ModelConfig(
            architecture="scale-mae",
            size=SIZES[size],
            modalities=(LORES,),
            objectives=("reconstruction",),
        )
        model = build_model(config).to(device).eval()
        for batch in batches:
            stored = torch.randint(1, 256, (batch, 3, 256, 256), dtype=torch.uint8)
            for dtype in TYPES:
                images = stored.to(device, dtype)

                @torch.inference_mode()
                def encode(images: torch.Tensor, check: bool) -> float:
                    _, vectors = model.encode(images, "lores", check_values=check)  # noqa: B023
                    return float(vectors[0, 0])  # waits for the device

                ways = {
                    "without": partial(encode, images, False),
                    "with": partial(encode, images, True),
                    "alone": partial(check_stored, images, LORES, 255.0),
                }
                median = medians(paired(ways, rounds))
                rows.append(
                    [
                        f"{size}, {batch} images, {str(dtype).removeprefix('torch.')}",
                        *(f"{1000 * median[way]:.3f}" for way in ways),
                        f"{median['with'] / median['without']:.3f}",
                    ]
                )
    head = ["images of 256 x 256", "without, ms", "with, ms", "check alone, ms", "ratio"]
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    lines = [f"{describe('torch')}; {where}; medians of {rounds} turns", *table(head, rows)]
    report(arguments.report, "Check of images' values", lines)


if __name__ == "__main__":
    main()
