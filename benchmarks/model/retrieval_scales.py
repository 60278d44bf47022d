"""Measure the effect of GSD scaling on retrieval between scales.

Hypothesis: a model trained on high-resolution images of GSD ratio 0.5 encodes those of ratio 1 (`hires`) and 0.25
(`hires_16x`), and another sensor's image finds the same place among them; without GSD scaling (`--no-gsd-scaling`:
distances count each image's own patches) the same training finds it less often. Both are trained on the same store,
in the same order, from the same seeds; only the bias differs. The last column is the difference in recall@1 with a
bootstrap over queries, the same queries for both: an interval that contains 0 shows no difference.

Note: the sample's NAIP has a native pixel of about 0.6 m; at zoom 17 a ratio of 0.25 is finer than that, so those
images are enlarged. `hires` is an average of true pixels. Among images of one sensor, every place is found by its
colours alone; those rows only show that the model encodes such images.

Run: python -m benchmarks.model.retrieval_scales [seeds] [folder]      (about 4 minutes per training on two cores)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._lib.machine import describe

if TYPE_CHECKING:
    from salibi_model.evals.retrieval import RetrievalReport

FINE = ("hires_4x", "hires", "hires_16x")
"""High-resolution modalities: that of training first."""
BOOTSTRAP_SAMPLES = 5000


def main() -> None:
    """Build the store, train both ways for each seed, measure retrieval, print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/scales")  # noqa: PLR2004
    reports = {
        scaling: [one_run(folder, seed, scaling=scaling) for seed in range(seeds)]
        for scaling in (True, False)
    }
    count = reports[True][0].num_samples
    print(describe("torch"))
    print(f"{count} queries, {seeds} seeds, chance {100 / count:.1f} %")
    print("| query > among | recall@1 %, scaling on | off | on - off (95 %) |")
    print("|---|---|---|---|")
    for query in ("sar", "lores", *FINE):
        for gallery in FINE:
            if query != gallery and (query not in FINE or "hires_4x" in (query, gallery)):
                on, off = (hits(reports[scaling], query, gallery) for scaling in (True, False))
                print(f"| {query} > {gallery} | {row(on, off)} |")


def one_run(folder: Path, seed: int, *, scaling: bool) -> RetrievalReport:
    """Train one way, or reuse a finished run, and measure retrieval on the validation samples."""
    from salibi_data import build
    from salibi_model.evals.retrieval import retrieval
    from salibi_model.training.config import TrainingConfig
    from salibi_model.training.trainer import train

    store = folder / "scales.zarr"
    build(
        store,
        variant=str(Path(__file__).with_name("retrieval_scales.toml")),
        catalog="sample",
        workers=2,
    )
    run = folder / f"seed-{seed}-{'on' if scaling else 'off'}"
    train(TrainingConfig(stores=(str(store),), seed=seed, gsd_scaling=scaling), out=run)
    return retrieval(run, store, split="validation", scales=True)


def hits(reports: list[RetrievalReport], query: str, gallery: str) -> np.ndarray:
    """Give whether each query ranked its own place first, (seeds, samples)."""
    return np.array(
        [
            direction.ranks == 0
            for report in reports
            for direction in report.directions
            if (direction.query, direction.gallery) == (query, gallery)
        ]
    )


def row(on: np.ndarray, off: np.ndarray) -> str:
    """Format both recalls, and their difference with an interval over the same queries."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, on.shape[1], (BOOTSTRAP_SAMPLES, on.shape[1]))
    difference = on.mean(axis=0) - off.mean(axis=0)
    low, high = np.percentile(difference[drawn].mean(axis=1), (2.5, 97.5))
    figures = (100 * value for value in (on.mean(), off.mean(), difference.mean(), low, high))
    return "{:.1f} | {:.1f} | {:+.1f} ({:+.1f} to {:+.1f})".format(*figures)


if __name__ == "__main__":
    main()
