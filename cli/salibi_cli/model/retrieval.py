"""The command ``salibi-model eval retrieval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_cli.options import arguments_of, with_options
from salibi_data.store.errors import UsageError
from salibi_model.evals.options import RetrievalOptions
from salibi_model.training.config import DEFAULT_STORE

if TYPE_CHECKING:
    from salibi_model.evals.retrieval import RetrievalReport

Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[
    str | None, typer.Option(help="Name of the model in the rows.  [default: the folder's]")
]


@with_options
def eval_retrieval(
    checkpoint: Checkpoint,
    *,
    data: Annotated[str, typer.Option(help="A store: folder or URL.")] = DEFAULT_STORE,
    options: RetrievalOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results to add rows to.")
    ] = None,
    name: Name = None,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Look up each image among those of the other sensors, and compare recall with chance.

    Example: `salibi-model eval retrieval runs/tiny --data data/micro.zarr --json`

    Between years: `salibi-model eval retrieval runs/tiny --data 2020.zarr --against 2021.zarr`
    """
    from salibi_cli.figures.scores import save_score_figure
    from salibi_model.distributed import choose_device
    from salibi_model.evals.results import Results
    from salibi_model.evals.retrieval import record, retrieval

    if out is None and name is not None:
        raise UsageError("--name is for rows of results, but --out is not given. Leave it out.")
    results = Results(out) if out is not None else None
    with common.progress("encoding", unit="images") as advance:
        report = retrieval(
            checkpoint,
            data,
            **arguments_of(options),
            device=str(choose_device(device)),
            on_sample=advance,
        )
    if results is not None:
        record(report, results, name=name or name_of(checkpoint))
        save_score_figure(results.scores, results.folder / "results.png")
    if as_json:
        common.print_json(report.to_dict())
    else:
        _print_retrieval(report)


def name_of(checkpoint: Path) -> str:
    """Name of the run's folder, also where its ``model/`` folder was given."""
    folder = checkpoint.resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def _print_retrieval(report: RetrievalReport) -> None:
    rows = []
    for direction in report.directions:
        row = {"query > among": f"{direction.query} > {direction.gallery}"}
        for recall in direction.recalls:
            low, value, high = (100 * share for share in (recall.low, recall.value, recall.high))
            row[f"recall@{recall.k} %"] = f"{value:.1f} ({low:.1f}-{high:.1f})"
            row[f"x@{recall.k}"] = f"{value / recall.chance / 100:.1f}"
        rows.append(row)
    common.print_table(rows)
    chances = ", ".join(
        f"recall@{recall.k} {recall.chance:.1%}" for recall in report.directions[0].recalls
    )
    among = f", looked up among those of {report.against}" if report.against else ""
    typer.echo(f"{report.num_samples} {report.split} samples{among}, bootstrap 95 % intervals")
    typer.echo(f"x: times chance, which is {chances}")
