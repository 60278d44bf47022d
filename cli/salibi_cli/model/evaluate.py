"""The commands ``salibi-model eval knn, linear, segment``: what frozen features are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_cli.model.retrieval import Checkpoint, Json, Name, eval_retrieval, name_of

if TYPE_CHECKING:
    from salibi_model.evals.metrics import Score
    from salibi_model.evals.probes import ProbeOptions

evaluation = common.app(help="Measure a checkpoint.")
evaluation.command("retrieval")(eval_retrieval)

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="A GEO-Bench task, a folder of tasks, or one with a folder of images per class; again "
        "for more.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder of results; rows that are there are not repeated."),
]
Modality = Annotated[
    str | None,
    typer.Option(help="Whose encoder sees the images.  [default: all whose bands the data has]"),
]
Gsd = Annotated[
    float | None, typer.Option("--gsd-m", min=0.001, help="Metres per pixel, of plain images.")
]
Partition = Annotated[str, typer.Option(help="GEO-Bench partition, such as 0.10x_train.")]
Scales = Annotated[
    str, typer.Option(help="Show images so many times coarser: 1,2,4 draws accuracy over GSD.")
]
ImagePx = Annotated[
    int | None, typer.Option("--px", min=1, help="Longer edge to bring images to.  [default: own]")
]
Floors = Annotated[
    bool, typer.Option("--floors", help="Also measure mean colours and random weights.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images encoded at a time.")]
Seed = Annotated[int, typer.Option(help="Of random weights, and of a segmentation head.")]


@evaluation.command("knn")
def eval_knn(
    checkpoint: Checkpoint,
    *,
    data: Data,
    k: Annotated[int, typer.Option("-k", help="Neighbours that vote.")] = 20,
    distance: Annotated[str, typer.Option(help="cosine or l2.")] = "cosine",
    temperature: Annotated[
        float | None,
        typer.Option(help="Weigh by exp(-distance / T), as 0.07.  [default: all alike]"),
    ] = None,
    out: Out = Path("results"),
    name: Name = None,
    modality: Modality = None,
    gsd_m: Gsd = None,
    partition: Partition = "default",
    scales: Scales = "1",
    image_px: ImagePx = None,
    floors: Floors = False,
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Classify test images by their nearest neighbours among the training images.

    Example: `salibi-model eval knn runs/tiny --data ~/geobench/classification_v1.0/m-eurosat`
    """
    from salibi_model.evals.knn import KnnOptions

    options = KnnOptions(k=k, distance=distance, temperature=temperature)
    asked = _Asked(
        data=data,
        out=out,
        name=name or name_of(checkpoint),
        modality=modality,
        gsd_m=gsd_m,
        partition=partition,
        scales=common.numbers("--scales", scales) or (),
        image_px=image_px,
        floors=floors,
        seed=seed,
        batch_size=batch_size,
        device=device,
        as_json=as_json,
    )
    _evaluate(checkpoint, options, asked)


@evaluation.command("linear")
def eval_linear(
    checkpoint: Checkpoint,
    *,
    data: Data,
    out: Out = Path("results"),
    name: Name = None,
    modality: Modality = None,
    gsd_m: Gsd = None,
    partition: Partition = "default",
    scales: Scales = "1",
    image_px: ImagePx = None,
    floors: Floors = False,
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Classify test images by logistic regression on frozen features.

    The regularisation is chosen on the validation images. Several labels per image give micro and
    macro F1.

    Example: `salibi-model eval linear runs/tiny --data m-bigearthnet --modality lores --floors`
    """
    from salibi_model.evals.linear_probe import LinearOptions

    asked = _Asked(
        data=data,
        out=out,
        name=name or name_of(checkpoint),
        modality=modality,
        gsd_m=gsd_m,
        partition=partition,
        scales=common.numbers("--scales", scales) or (),
        image_px=image_px,
        floors=floors,
        seed=seed,
        batch_size=batch_size,
        device=device,
        as_json=as_json,
    )
    _evaluate(checkpoint, LinearOptions(), asked)


@evaluation.command("segment")
def eval_segment(
    checkpoint: Checkpoint,
    *,
    data: Data,
    head: Annotated[str, typer.Option(help="linear or conv.")] = "linear",
    epochs: Annotated[int, typer.Option(min=1, help="Of training the head.")] = 50,
    rate: Annotated[float, typer.Option(help="Learning rate of the head.")] = 1e-3,
    out: Out = Path("results"),
    name: Name = None,
    modality: Modality = None,
    gsd_m: Gsd = None,
    partition: Partition = "default",
    scales: Scales = "1",
    image_px: ImagePx = None,
    floors: Floors = False,
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Train a head on frozen tokens to classify pixels; mean intersection over union.

    Example: `salibi-model eval segment runs/tiny --data m-pv4ger-seg --head conv`
    """
    from salibi_model.evals.segmentation import SegmentOptions

    options = SegmentOptions(head=head, epochs=epochs, rate=rate, seed=seed)
    asked = _Asked(
        data=data,
        out=out,
        name=name or name_of(checkpoint),
        modality=modality,
        gsd_m=gsd_m,
        partition=partition,
        scales=common.numbers("--scales", scales) or (),
        image_px=image_px,
        floors=floors,
        seed=seed,
        batch_size=batch_size,
        device=device,
        as_json=as_json,
    )
    _evaluate(checkpoint, options, asked)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Options that the three probes share."""

    data: list[str]
    out: Path
    name: str
    modality: str | None
    gsd_m: float | None
    partition: str
    scales: tuple[float, ...]
    image_px: int | None
    floors: bool
    seed: int
    batch_size: int
    device: str
    as_json: bool


def _evaluate(checkpoint: Path, options: ProbeOptions, asked: _Asked) -> None:
    from salibi_cli.figures.scores import save_score_figure
    from salibi_model.distributed import choose_device
    from salibi_model.evals.datasets.open import open_data
    from salibi_model.evals.evaluate import InputOptions, evaluate
    from salibi_model.evals.results import Results

    inputs = InputOptions(
        modality=asked.modality,
        scales=asked.scales,
        image_px=asked.image_px,
        floors=asked.floors,
        seed=asked.seed,
    )
    results = Results(asked.out)
    labelled = open_data(asked.data, gsd_m=asked.gsd_m, partition=asked.partition)
    with common.progress("encoding", unit="images") as advance:
        rows = evaluate(
            checkpoint,
            labelled,
            options,
            name=asked.name,
            inputs=inputs,
            results=results,
            recorded={"partition": asked.partition},
            device=choose_device(asked.device),
            batch_size=asked.batch_size,
            on_progress=advance,
            on_skip=lambda why: typer.echo(f"skipped: {why}", err=True),
        )
    save_score_figure(results.scores, asked.out / "results.png")
    if asked.as_json:
        common.print_json([row.to_dict() for row in rows])
        return
    _print_scores(rows)
    typer.echo(f"{rows[0].method}, bootstrap 95 % intervals over test images")
    typer.echo(f"wrote {asked.out}: results.md, results.json, results.png")


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
