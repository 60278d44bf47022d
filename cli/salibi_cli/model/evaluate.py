"""The commands ``salibi-model eval knn, linear, segment``: measure frozen features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_cli.model.retrieval import Checkpoint, Json, Name, eval_retrieval, name_of
from salibi_cli.options import Fields, with_options
from salibi_model.evals.options import (
    DEFAULT_PARTITION,
    EvalOptions,
    KnnOptions,
    LinearOptions,
    SegmentOptions,
)

if TYPE_CHECKING:
    from salibi_model.evals.metrics import Score
    from salibi_model.evals.probes import ProbeOptions

evaluation = common.app(help="Measure a checkpoint.")
evaluation.command("retrieval")(eval_retrieval)

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="A GEO-Bench task, a folder of tasks, or a folder with a folder of images per class; "
        "repeat it for more.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder of results; existing rows are not computed again."),
]
Options = Annotated[
    EvalOptions, Fields(first=("modality", "gsd_m", "units", "partition", "scales"))
]


@evaluation.command("knn")
@with_options
def eval_knn(
    checkpoint: Checkpoint,
    *,
    data: Data,
    method: KnnOptions,
    out: Out = Path("results"),
    name: Name = None,
    options: Options,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Classify test images by their nearest neighbours among the training images.

    Example: `salibi-model eval knn runs/tiny --data ~/geobench/classification_v1.0/m-eurosat`
    """
    _evaluate(
        checkpoint, method, options, data=data, out=out, name=name, device=device, as_json=as_json
    )


@evaluation.command("linear")
@with_options
def eval_linear(
    checkpoint: Checkpoint,
    *,
    data: Data,
    out: Out = Path("results"),
    name: Name = None,
    options: Options,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Classify test images by logistic regression on frozen features.

    The regularisation is chosen on the validation images. Several labels per image give micro and
    macro F1.

    Example: `salibi-model eval linear runs/tiny --data m-bigearthnet --modality lores --floors`
    """
    _evaluate(
        checkpoint,
        LinearOptions(),
        options,
        data=data,
        out=out,
        name=name,
        device=device,
        as_json=as_json,
    )


@evaluation.command("segment")
@with_options
def eval_segment(
    checkpoint: Checkpoint,
    *,
    data: Data,
    method: SegmentOptions,
    out: Out = Path("results"),
    name: Name = None,
    options: Options,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Train a head on frozen tokens to classify pixels; mean intersection over union.

    Example: `salibi-model eval segment runs/tiny --data m-pv4ger-seg --head conv`
    """
    _evaluate(
        checkpoint, method, options, data=data, out=out, name=name, device=device, as_json=as_json
    )


def _evaluate(
    checkpoint: Path,
    method: ProbeOptions,
    options: EvalOptions,
    *,
    data: list[str],
    out: Path,
    name: str | None,
    device: str,
    as_json: bool,
) -> None:
    from salibi_cli.figures.scores import save_score_figure
    from salibi_model.distributed import choose_device
    from salibi_model.evals.datasets.open import open_data
    from salibi_model.evals.evaluate import evaluate
    from salibi_model.evals.results import Results

    # Opened first: a damaged results folder is refused before hours of encoding.
    results = Results(out)
    labelled = open_data(
        data, gsd_m=options.gsd_m, partition=options.partition, units=options.units
    )
    with common.progress("encoding", unit="images") as advance:
        rows = evaluate(
            checkpoint,
            labelled,
            method,
            name=name or name_of(checkpoint),
            inputs=options,
            results=results,
            recorded={"partition": options.partition or DEFAULT_PARTITION},
            device=choose_device(device),
            batch_size=options.batch_size,
            on_progress=advance,
            on_skip=lambda why: typer.echo(f"skipped: {why}", err=True),
        )
    save_score_figure(results.scores, out / "results.png")
    if as_json:
        common.print_json([row.to_dict() for row in rows])
        return
    _print_scores(rows)
    typer.echo(f"{rows[0].method}, bootstrap 95 % intervals over test images")
    typer.echo(f"wrote {out}: results.md, results.json, results.png")


def _print_scores(rows: list[Score]) -> None:
    from salibi_model.evals.results import percent

    common.print_table(
        [
            {
                "data": row.dataset,
                "model": row.model,
                "encoder": row.encoder,
                "score % (95 %)": f"{row.metric} {percent(row)}",
                "GSD (m)": row.gsd_m,
            }
            for row in rows
        ]
    )
