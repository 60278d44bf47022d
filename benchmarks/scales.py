"""What GSD scaling is worth when the same place is looked for at another scale.

Claim measured, whatever comes out: a model trained on high-resolution images of GSD ratio 0.5 encodes
images of ratio 0.25 and 1, and finds the same place among images of the trained ratio; with GSD scaling
turned off (`--no-gsd-scaling`: every image counts its own patches) the same training finds it less often.
Both are trained on the same store, in the same order, from the same seeds; only the bias differs.

Note: the sample's NAIP has a native pixel of about 0.6 m; at zoom 17 a ratio of 0.25 is finer than that, so
those images are enlarged ones. `hires` (ratio 1) is an average of true pixels.

Run: python benchmarks/scales.py [seeds] [folder]      (about 4 minutes per training on two cores)
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine import describe

SPLITS = ("validation", "test")
TRAINED = "hires_4x"


def main() -> None:
    """Build the store, train both ways for each seed, look places up, print the table."""
    from salibi_data import build
    from salibi_model.evaluate import retrieval
    from salibi_model.settings import TrainingConfig
    from salibi_model.trainer import train

    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/scales")  # noqa: PLR2004
    store = folder / "scales.zarr"
    variant = str(Path(__file__).with_name("scales.toml"))
    build(store, variant=variant, catalog="sample", workers=2)
    print(describe("torch"))
    print("| seed | GSD scaling | query > among | samples | recall@1 | recall@5 | chance @1 |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(seeds):
        for scaling in (True, False):
            run = folder / f"seed-{seed}-{'on' if scaling else 'off'}"
            config = TrainingConfig(stores=(str(store),), seed=seed, gsd_scaling=scaling)
            train(config, out=run)
            report = retrieval(run, store, split="validation", scales=True)
            for direction in report.directions:
                if TRAINED in (direction.query, direction.gallery) and "hires" in (
                    direction.query.split("_")[0],
                    direction.gallery.split("_")[0],
                ):
                    _print(seed, report.num_samples, direction, scaling=scaling)


def _print(seed: int, count: int, direction: object, *, scaling: bool) -> None:
    names = f"{direction.query} > {direction.gallery}"  # type: ignore[attr-defined]
    cells = [
        f"{100 * r.value:.1f} ({100 * r.low:.1f}-{100 * r.high:.1f})"
        for r in direction.recalls  # type: ignore[attr-defined]
    ]
    chance = direction.recalls[0].chance  # type: ignore[attr-defined]
    print(
        f"| {seed} | {'on' if scaling else 'off'} | {names} | {count} | {' | '.join(cells)} | "
        f"{100 * chance:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
