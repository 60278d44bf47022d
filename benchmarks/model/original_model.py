"""Measure the cost of each mistake of the authors' model code in retrieval between sensors.

Hypothesis: with a mistake of `--compat original` (numbered as in
`salibi_model/models/original.py`) the same training finds the same place in another sensor's images less often.
Trained at size tiny on the `micro` store of the sample catalog: without mistakes (Scale-ALiBi whose
high-resolution target is averaged to the base grid, as in the original), with each alone, with all six.
Budget, order of the samples, masks and initial weights are the same in all runs of a seed, but for the
last layer of the decoder: the original's layout (one linear layer for three, positions half a patch off) is
none of the mistakes, and all runs but the one without mistakes have it.

Columns, on the validation split: recall, averaged over the six directions and over the two between low and
high resolution; and its share of the recall without mistakes. Intervals are bootstrap 95 % over samples: all
directions of a sample, and for the share both models, are drawn together.

The benchmark can show large effects of mistakes that keep the encoders from learning the match (1 leaves high
resolution without a pair). It cannot show small effects: the model is tiny, there are only 287 training and 82
validation samples of a synthetic landscape, and the intervals do not cover other seeds. Differences within the
intervals do not count, and those outside count only if other seeds repeat them. Mistakes 3, 4 and 5 affect the
reconstruction alone; retrieval depends on them only as far as that loss teaches the encoders.

Run: python -m benchmarks.model.original_model [seeds] [folder] [--steps N]     (8 trainings per seed, about 4 minutes
each on two cores; finished ones are not repeated)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._lib.machine import describe

if TYPE_CHECKING:
    from salibi_model.evals.retrieval import RetrievalReport

WAYS = {
    "none": "",
    "1 high resolution matched with itself": "original:1",
    "2 optical head for high resolution": "original:2",
    "3 bias between grids misread": "original:3",
    "4 optical positions in the joint encoder": "original:4",
    "5 target decimated, mask max-pooled": "original:5",
    "6 raw values, sensors normalised together": "original:6",
    "all six": "original",
}
SCALES = {"lores", "hires_4x"}
DRAWS = 2000


def main() -> None:
    """Build the store, train every way for each seed, measure retrieval, print the table."""
    from salibi_data import build
    from salibi_model.evals.metrics import RECALL_AT

    given = _arguments()
    store = given.folder / "micro.zarr"
    build(store, variant="micro", catalog="sample", workers=2)
    print(describe("torch"))
    kinds = [f"{what} @{k}" for k in RECALL_AT for what in ("recall", "lores/hires", "of none")]
    print(f"| seed | mistakes | {' | '.join(kinds)} |")
    print(f"|---|---|{'---|' * len(kinds)}", flush=True)
    for seed in range(given.seeds):
        none: RetrievalReport | None = None
        for label, compat in WAYS.items():
            report = _trained(given.folder, store, compat, seed=seed, steps=given.steps)
            none = none or report
            cells = []
            for k in RECALL_AT:
                hits, hits_without_mistakes = _hits(report, k), _hits(none, k)
                cells += [_recall(hits), _recall(_hits(report, k, scales=True))]
                cells.append("1" if report is none else _share(hits, hits_without_mistakes))
            print(f"| {seed} | {label} | {' | '.join(cells)} |", flush=True)
    if none is not None:
        chance = ", ".join(f"{100 * k / none.num_samples:.1f} @{k}" for k in RECALL_AT)
        print(f"\n{none.num_samples} samples of the validation split; by chance: {chance}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the cost of each mistake in retrieval.")
    parser.add_argument("seeds", nargs="?", type=int, default=1)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/mistakes"))
    parser.add_argument("--steps", type=int, default=0, help="by default those of size tiny")
    return parser.parse_args()


def _trained(folder: Path, store: Path, compat: str, *, seed: int, steps: int) -> RetrievalReport:
    """Train, or reuse a finished run, and measure its retrieval."""
    from salibi_model.evals.retrieval import retrieval
    from salibi_model.training.config import TrainingConfig
    from salibi_model.training.trainer import train

    way = compat.replace(":", "-") or "none"
    run = folder / f"seed-{seed}-{way}{f'-{steps}-steps' if steps else ''}"
    config = TrainingConfig(
        stores=(str(store),),
        size="tiny",
        compat=compat,
        fine_target="base",
        seed=seed,
        steps=steps,
    )
    train(config, out=run)
    return retrieval(run, store, split="validation")


def _hits(report: RetrievalReport, k: int, *, scales: bool = False) -> np.ndarray:
    """Give, per sample, the share of directions with a match among the first ``k``."""
    chosen = [d for d in report.directions if not scales or {d.query, d.gallery} == SCALES]
    return np.mean([direction.ranks < k for direction in chosen], axis=0)


def _drawn(count: int) -> np.ndarray:
    """Draw the samples of the bootstrap, the same ones for all ways."""
    return np.random.default_rng(0).integers(0, count, (DRAWS, count))


def _recall(hits: np.ndarray) -> str:
    low, high = np.percentile(hits[_drawn(len(hits))].mean(axis=1), (2.5, 97.5))
    return f"{100 * hits.mean():.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _share(hits: np.ndarray, best: np.ndarray) -> str:
    """Format recall over that without mistakes; a dash where a draw of the latter has no hit."""
    drawn = _drawn(len(hits))
    below = best[drawn].mean(axis=1)
    if not below.all():
        return "-"
    low, high = np.percentile(hits[drawn].mean(axis=1) / below, (2.5, 97.5))
    return f"{hits.mean() / best.mean():.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
