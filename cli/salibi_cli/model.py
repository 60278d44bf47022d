"""The command ``salibi-model``: train on stores, and look at what was learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common

if TYPE_CHECKING:
    from salibi_model.evaluate import RetrievalReport
    from salibi_model.settings import TrainingConfig
    from salibi_model.trainer import TrainingResult

application = common.app(help="Train the Scale-ALiBi tri-encoder on Salibi stores, and use it.")
evaluation = common.app(help="Measure a checkpoint.")
application.add_typer(evaluation, name="eval")

Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


@application.command()
def train(
    stores: Annotated[
        list[str] | None,
        typer.Argument(help="Stores: folders or URLs.  [default: data/micro.zarr]"),
    ] = None,
    *,
    size: Annotated[str | None, typer.Option(help="tiny, small, base, large.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training split, not --steps.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.  [default: runs/SIZE]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, as it was set up.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per step, of all processes together.")
    ] = None,
    mask_ratio: Annotated[
        float | None, typer.Option(help="Share of patches removed.  [default: 0.75]")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's, on matrices only.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order, masks and turns.")] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Arrays to train on, the first is the anchor: sar,lores")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these options; those given here win.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train on stores; run it again and it goes on where it was.

    Example: `salibi-model train data/micro.zarr --size tiny --out runs/demo`

    On several GPUs: `torchrun --nproc-per-node 8 -m salibi_cli.model train data/full.zarr
    --size base --batch-size 1024 --precision bf16`
    """
    from salibi_model.trainer import train as run_training

    given: dict[str, Any] = {
        "stores": tuple(stores) if stores else None,
        "size": size,
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "mask_ratio": mask_ratio,
        "lr": lr,
        "weight_decay": weight_decay,
        "precision": precision,
        "seed": seed,
        "modalities": tuple(modalities.split(",")) if modalities else None,
        "checkpoint_every": checkpoint_every,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    folder = out or Path("runs") / (size or "tiny")
    settings = _settings(folder, changes, config=config, resume=resume)
    folder = out or Path("runs") / settings.size
    with common.progress("training", unit="steps", enabled=_is_first_process()) as advance:
        result = run_training(settings, out=folder, resume=resume, device=device, on_step=advance)
    if _is_first_process():
        _print_training(result)


@application.command()
def reconstruct(
    checkpoint: Checkpoint,
    store: Annotated[str, typer.Argument(help="A store: folder or URL.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure.")] = Path("grid.png"),
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Samples to show.")] = 4,
    split: Annotated[str, typer.Option(help="train, validation, test.")] = "validation",
    mask_ratio: Annotated[float, typer.Option(help="Share of patches removed.")] = 0.75,
    seed: Annotated[int, typer.Option(help="Of the masks.")] = 0,
    device: Device = "auto",
) -> None:
    """Draw what the model predicts for masked patches, beside what was there.

    Example: `salibi-model reconstruct runs/tiny data/micro.zarr -o grid.png -n 4`
    """
    from salibi_cli.panels import Panel, as_rgb, check_path, save_panels
    from salibi_model.distributed import choose_device
    from salibi_model.inpaint import reconstruct as predict

    check_path(out)
    shown = predict(
        checkpoint,
        store,
        split=split,
        num_samples=num_samples,
        mask_ratio=mask_ratio,
        seed=seed,
        device=str(choose_device(device)),
    )
    rows = [
        [
            Panel(title="original", image=as_rgb(row.original, row.modality)),
            Panel(title=f"seen ({1 - mask_ratio:.0%})", image=as_rgb(row.masked, row.modality)),
            Panel(title="predicted", image=as_rgb(row.predicted, row.modality)),
            Panel(title="seen + predicted", image=as_rgb(row.composite, row.modality)),
        ]
        for row in shown
    ]
    save_panels(
        rows,
        out,
        row_labels=[f"{row.sample}: {row.modality.name}" for row in shown],
        heading=(
            "Masked patches, predicted. Each patch's mean and contrast are the original's "
            "(as in MAE); its content is the model's."
        ),
    )
    typer.echo(f"wrote {out}")


@evaluation.command("retrieval")
def eval_retrieval(
    checkpoint: Checkpoint,
    *,
    data: Annotated[str, typer.Option(help="A store: folder or URL.")] = "data/micro.zarr",
    split: Annotated[str, typer.Option(help="train, validation, test.")] = "validation",
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Look up each image among those of the other sensors; recall against chance.

    Example: `salibi-model eval retrieval runs/tiny --data data/micro.zarr --json`
    """
    from salibi_model.distributed import choose_device
    from salibi_model.evaluate import retrieval

    with common.progress("encoding", unit="images") as advance:
        report = retrieval(
            checkpoint, data, split=split, device=str(choose_device(device)), on_sample=advance
        )
    if as_json:
        common.print_json(report.to_dict())
    else:
        _print_retrieval(report)


@application.command()
def info(checkpoint: Checkpoint, *, as_json: Json = False) -> None:
    """Tell what a checkpoint is: size, modalities, and how it was trained.

    Example: `salibi-model info runs/tiny`
    """
    from salibi_model.checkpoints import describe

    content = describe(checkpoint)
    if as_json:
        common.print_json(content)
        return
    size, training = content["size"], content["training"]
    typer.echo(
        f"{content['architecture']}, size {training['size']}: width {size['dim']}, depth "
        f"{size['depth']}, {size['num_heads']} heads, patch {content['patch_px']} px"
    )
    table = _table("modality", "bands", "units", "GSD ratio", "mean", "std")
    for modality in content["modalities"]:
        table.add_row(
            modality["name"],
            " ".join(modality["bands"]),
            modality["units"],
            f"{modality['gsd_ratio']:g}",
            " ".join(f"{value:.1f}" for value in modality["mean"]),
            " ".join(f"{value:.1f}" for value in modality["std"]),
        )
    _show(table)
    typer.echo(
        f"trained for {training['step']} of {training['steps']} steps, batch "
        f"{training['batch_size']}, mask ratio {training['mask_ratio']}, seed {training['seed']}"
    )
    for store, digest in zip(training["stores"], training["store_digests"], strict=True):
        typer.echo(f"on {store} (plan {digest[:12]})")


def main() -> None:
    """Entry point of ``salibi-model``."""
    common.run(application)


def _settings(
    folder: Path, changes: dict[str, Any], *, config: Path | None, resume: bool
) -> TrainingConfig:
    """Defaults, then the file or the run that is there, then what was given."""
    from salibi_model.settings import TrainingConfig, resumed_config

    if resume:
        return resumed_config(folder, **changes)
    settings = TrainingConfig.from_toml(config) if config else TrainingConfig()
    if "steps" in changes or "epochs" in changes:  # either one replaces the file's
        settings = dataclasses.replace(settings, steps=0, epochs=0)
    return dataclasses.replace(settings, **changes)


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"


def _print_training(result: TrainingResult) -> None:
    if not result.metrics:
        typer.echo(
            f"{result.out} is complete: {result.steps} steps. To go on, give --resume and more "
            "--steps; to start again, another --out."
        )
        return
    if result.first_step:
        typer.echo(f"went on from step {result.first_step}")
    table = _table("loss", "last step")
    for name, value in result.metrics.items():
        if name == "loss" or name.startswith(("contrastive", "reconstruction")):
            table.add_row(name.replace("_", " ", 1), f"{value:.3f}")
    _show(table)
    typer.echo(f"trained for {result.steps} steps: {result.out}")
    typer.echo(f"next: salibi-model eval retrieval {result.out}")


def _print_retrieval(report: RetrievalReport) -> None:
    table = _table("query > among", "recall@1 %", "chance", "recall@5 %", "chance")
    for direction in report.directions:
        cells = [f"{direction.query} > {direction.gallery}"]
        for recall in direction.recalls:
            low, value, high = (100 * share for share in (recall.low, recall.value, recall.high))
            cells += [f"{value:.1f} ({low:.1f}-{high:.1f})", f"x {value / recall.chance / 100:.1f}"]
        table.add_row(*cells)
    _show(table)
    chances = ", ".join(
        f"recall@{recall.k} {recall.chance:.1%}" for recall in report.directions[0].recalls
    )
    typer.echo(f"{report.num_samples} {report.split} samples, bootstrap 95 % intervals")
    typer.echo(f"chance: {chances}")


def _table(*columns: str) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE)
    for column in columns:
        table.add_column(column)
    return table


def _show(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


if __name__ == "__main__":
    main()
