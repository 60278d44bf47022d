"""The command ``salibi-model train``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common, options
from salibi_model.training.config import TrainingConfig

if TYPE_CHECKING:
    from salibi_model.training.trainer import TrainingResult

_MUCH_WAITING = 0.1
"""Share of a step spent waiting for data above which the progress bar shows it."""


@options.with_options
def train(
    stores: Annotated[
        list[str] | None, typer.Argument(help=options.help_of(TrainingConfig, "stores"))
    ] = None,
    *,
    given: Annotated[
        dict[str, Any],
        options.Fields(
            kind=TrainingConfig, without=("stores",), first=("model", "size", "steps", "epochs")
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.  [default: runs/SIZE]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with its own options.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with these options; options on the command line override it."),
    ] = None,
    device: common.Device = "auto",
) -> None:
    """Train on stores; run it again after a stop to continue.

    Example: `salibi-model train data/micro.zarr --size tiny --out runs/demo`

    On several GPUs: `torchrun --nproc-per-node 8 -m salibi_cli.model train data/full.zarr
    --size base --batch-size 1024 --precision bf16`
    """
    from salibi_model.training.trainer import train as run_training

    changes = given | ({"stores": tuple(stores)} if stores else {})
    folder = out or Path("runs") / given.get("size", TrainingConfig.size)
    settings = _settings(folder, changes, config=config, resume=resume)
    # The size may come from the file or from the run, so the folder is known only now.
    folder = out or Path("runs") / settings.size
    with common.progress("training", unit="steps", enabled=_is_first_process()) as advance:

        def on_step(done: int, total: int, metrics: Mapping[str, float]) -> None:
            advance(done, total, _progress_note(metrics))

        result = run_training(settings, out=folder, resume=resume, device=device, on_step=on_step)
    if _is_first_process():
        _print_training(result)


def _settings(
    folder: Path, changes: dict[str, Any], *, config: Path | None, resume: bool
) -> TrainingConfig:
    """Apply what was given to the run in the folder, or to the file and the defaults."""
    from salibi_model.training.applicability import check_resumed, check_used

    if resume:
        from salibi_model.training.resume import resumed_config

        check_resumed(config)
        settings = resumed_config(folder, **changes)
    else:
        settings = layered(config, changes)
    check_used(settings, changes)
    return settings


def layered(file: Path | None, changes: Mapping[str, Any]) -> TrainingConfig:
    """Apply what was given to the file's options, and these to the defaults.

    Steps or epochs that are given replace both of the file.
    """
    settings = TrainingConfig.from_toml(file) if file else TrainingConfig()
    if "steps" in changes or "epochs" in changes:
        # Both set would be refused, though the command line gave only one of them.
        settings = dataclasses.replace(settings, steps=0, epochs=0)
    return dataclasses.replace(settings, **changes)


def _progress_note(metrics: Mapping[str, float]) -> str:
    """Note beside the progress bar: losses, speed, share of time spent waiting for data."""
    totals = [name for name in ("contrastive", "reconstruction") if name in metrics]
    losses = ", ".join(f"{name} {metrics[name]:.3f}" for name in totals)
    waiting = metrics["data_wait_share"]
    return (
        f": {losses}, {metrics['images_per_second']:.0f} images/s"
        f"{f', {waiting:.0%} waiting for data' if waiting > _MUCH_WAITING else ''}"
    )


def _is_first_process() -> bool:
    from salibi_model.distributed import read_launch

    return read_launch().rank == 0


def _print_training(result: TrainingResult) -> None:
    if not result.metrics:
        typer.echo(
            f"{result.out} is complete: {result.steps} steps. To go on, give --resume and more "
            "--steps; to start again, another --out."
        )
        return
    if result.first_step:
        typer.echo(f"went on from step {result.first_step}")
    losses = {
        name: value
        for name, value in result.metrics.items()
        if name == "loss" or name.startswith(("contrastive", "reconstruction"))
    }
    common.print_table(
        [
            {"loss": name.replace("_", " ", 1), "last step": f"{value:.3f}"}
            for name, value in losses.items()
        ]
    )
    typer.echo(f"trained for {result.steps} steps: {result.out}")
    typer.echo(f"next: salibi-model eval retrieval {result.out}")
