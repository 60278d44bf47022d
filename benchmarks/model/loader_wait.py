"""Measure the share of a training step spent waiting for data, at size base.

Claim: it is below 2 %. The figure is the trainer's own (`data_wait_share` of metrics.csv) in a run on a store of
synthetic landscapes, without the first step, which waits for the first batch. Beside it stands the time of reading
a batch alone.

Run: python -m benchmarks.model.loader_wait [--quick] [--device cuda]
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.models.config import TRI_ENCODER
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train

TARGET = 0.02
WORKERS = 2


def main() -> None:
    """Print the shares."""
    from tests.support.model.stores import write_store

    argument_parser = parser(__doc__)
    argument_parser.add_argument("--device", default="auto")
    arguments = argument_parser.parse_args()
    size, batch_size, steps = by_form(
        arguments, full=("base", 8, 7), quick=("base", 4, 4), smallest=("tiny", 2, 3)
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "a.zarr", num_samples=max(8, 3 * batch_size))
        for precision in ("float32", "bf16"):
            config = TrainingConfig(
                stores=(str(store),),
                size=size,
                batch_size=batch_size,
                steps=steps,
                workers=WORKERS,
                precision=precision,
                validation_samples=0,
            )
            seen: list[dict[str, float]] = []
            train(
                config,
                out=Path(folder) / precision,
                device=arguments.device,
                on_step=lambda _done, _total, row, seen=seen: seen.append(dict(row)),
            )
            step_s, share = (
                statistics.median(row[name] for row in seen[1:])
                for name in ("seconds", "data_wait_share")
            )
            rows.append([f"step, {precision}", f"{step_s:.2f}", f"{share:.2%}"])
        reader = iter(
            DataLoader(
                [SampleStore(store)], modalities=TRI_ENCODER, batch_size=batch_size, cache_bytes=0
            )
        )
        read_s = medians(paired({"read": lambda: next(reader)}, 2))["read"]
    rows += [
        ["reading a batch alone, one after another", f"{read_s:.2f}", ""],
        ["target", "", f"{TARGET:.0%}"],
    ]
    head = ["what", "seconds", "of it spent waiting"]
    setting = f"Size {size}, batch {batch_size}, {WORKERS} threads that read, {steps - 1} steps."
    lines = [describe("torch", "zarr"), setting, *table(head, rows)]
    report(arguments.report, "Waiting for data", lines)


if __name__ == "__main__":
    main()
