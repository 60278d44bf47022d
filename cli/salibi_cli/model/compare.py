"""``salibi-model compare``: train and measure models alike, and print their differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common, options
from salibi_cli.model.evaluate import Data
from salibi_cli.model.train import layered
from salibi_data.store.validation import check_applicable, given_options
from salibi_model.evals.options import KNN, EvalOptions, KnnOptions, LinearOptions, SegmentOptions
from salibi_model.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from salibi_model.comparison import Comparison, Difference
    from salibi_model.evals.probes import ProbeOptions


@options.with_options
def compare(
    stores: Annotated[
        list[str], typer.Argument(help="Stores to train on: folders or URLs.", show_default=False)
    ],
    *,
    data: Data,
    models: Annotated[
        str,
        typer.Option(
            help="The reference first. scale-alibi, croma, scale-mae; no-gsd-scaling, no-contrast, "
            "no-reconstruction, no-hires, separate-fusion, original; or TOML files of options."
        ),
    ] = "scale-alibi,croma,scale-mae",
    methods: Annotated[
        str, typer.Option(help="knn, linear, segment, segment-conv: those that fit the data.")
    ] = "knn",
    knn: Annotated[KnnOptions, options.Fields(only=("k", "distance"))],
    inputs: Annotated[EvalOptions, options.Fields(only=("scales", "gsd_m", "units", "partition"))],
    given: Annotated[
        dict[str, Any],
        options.Fields(kind=TrainingConfig, only=("size", "steps", "epochs", "batch_size", "seed")),
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with options of `train`, for all models.")
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of runs and results; existing ones are reused."),
    ] = Path("comparison"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: common.Device = "auto",
) -> None:
    """Train models with one budget and one order of samples, measure them alike, and compare.

    Example: `salibi-model compare data/micro.zarr --data ~/geobench --scales 1,2,4 -o comparison`
    """
    from salibi_cli.figures.scores import save_score_figure
    from salibi_model.comparison import compare as train_and_measure
    from salibi_model.distributed import choose_device
    from salibi_model.evals.datasets.open import open_data

    chosen = _methods(methods, knn)
    labelled = open_data(data, gsd_m=inputs.gsd_m, partition=inputs.partition, units=inputs.units)
    with common.progress("comparing", unit="steps and images") as advance:

        def on_step(name: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
            advance(done, total, f": training {name}, loss {metrics['loss']:.3f}")

        comparison = train_and_measure(
            layered(config, {**given, "stores": tuple(stores)}),
            models=common.listed(models) or (),
            data=labelled,
            methods=chosen,
            out=out,
            scales=inputs.scales,
            device=str(choose_device(device)),
            on_step=on_step,
            on_progress=advance,
            on_skip=lambda why: typer.echo(f"skipped: {why}", err=True),
        )
    save_score_figure(comparison.scores, out / "results.png")
    if as_json:
        common.print_json(comparison.to_dict())
        return
    _print_table(comparison)
    _print_differences(comparison.differences)
    typer.echo(f"wrote {out}/results.md, results.json, results.png")


def _methods(text: str, knn: KnnOptions) -> list[ProbeOptions]:
    known: dict[str, ProbeOptions] = {
        "knn": knn,
        "linear": LinearOptions(),
        "segment": SegmentOptions(head="linear"),
        "segment-conv": SegmentOptions(head="conv"),
    }
    names = common.listed(text) or ()
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"no method {unknown[0]!r}; take some of {', '.join(known)}")
    if "knn" not in names:
        check_applicable(KnnOptions, given_options(knn), {KNN: f"--methods are {', '.join(names)}"})
    return [known[name] for name in names]


def _print_table(comparison: Comparison) -> None:
    """One row per model and encoder, one column per task, as on the slides."""
    from salibi_model.comparison import PUBLISHED
    from salibi_model.evals.results import percent

    columns: dict[tuple[str, ...], str] = {}
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in comparison.scores:
        column = (row.dataset, row.method, row.metric, f"{row.gsd_m:g}")
        columns[column] = f"{row.dataset} {row.metric} %, {row.method}, {row.gsd_m:.3g} m"
        cells.setdefault((row.model, row.encoder), {})[columns[column]] = percent(row)
    names = [columns[column] for column in sorted(columns, key=lambda c: (*c[:3], float(c[3])))]
    common.print_table(
        [
            {"model": model, "encoder": encoder, **{name: row.get(name, "-") for name in names}}
            for (model, encoder), row in cells.items()
        ]
    )
    for task in sorted({row.dataset for row in comparison.scores} & set(PUBLISHED)):
        listed = ", ".join(f"{name} {value:.2%}" for name, value in PUBLISHED[task].items())
        typer.echo(f"{task}, k-NN accuracy on the authors' slides: {listed}")


def _print_differences(differences: tuple[Difference, ...]) -> None:
    """Print each difference, and whether it is larger than its interval."""
    for difference in differences:
        values = f"{100 * difference.value:+.1f} points ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
        if difference.is_clear:
            # The slice reverses the pair where the other model is better.
            better, worse = (difference.reference, difference.other)[
                :: 1 if difference.value > 0 else -1
            ]
            verdict = f"{better} is better than {worse}"
        else:
            verdict = f"no clear difference between {difference.reference} and {difference.other}"
        typer.echo(
            f"{difference.dataset}, {difference.method} {difference.metric}: {verdict}: {values}"
        )
    clear = sum(difference.is_clear for difference in differences)
    typer.echo(
        f"{clear} of {len(differences)} differences are larger than their intervals (bootstrap 95 % "
        "over the same test images; another seed of training is not in them)."
    )
