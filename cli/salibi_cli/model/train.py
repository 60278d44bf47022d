"""``salibi-model train``: its options, and what it says at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common

if TYPE_CHECKING:
    from salibi_model.training.config import TrainingConfig
    from salibi_model.training.trainer import TrainingResult

_MUCH_WAITING = 0.1


def train(
    stores: Annotated[
        list[str] | None,
        typer.Argument(help="Stores: folders or URLs.  [default: data/micro.zarr]"),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option(help="scale-alibi, croma, scale-mae.  [default: scale-alibi]")
    ] = None,
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
    lr_scales: Annotated[
        str | None, typer.Option(help="Factors on the rate of parts: decoder:2,encoders.sar:0.5")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Decay of the averaged weights kept as model, as 0.999.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts per step and process, to save memory.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Share of each store in the samples: 2,1")
    ] = None,
    crop_px: Annotated[
        int | None, typer.Option(min=0, help="Train on random squares brought to this edge.")
    ] = None,
    crop_share: Annotated[
        str | None, typer.Option(help="Smallest and largest such square: 0.25,1")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read ahead.")] = None,
    compile: Annotated[  # noqa: A002 - torch's own name
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile the model.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order, masks and turns.")] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Arrays to train on, the first is the anchor: sar,lores")
    ] = None,
    patch_px: Annotated[int | None, typer.Option(min=1, help="Edge of a patch.")] = None,
    objectives: Annotated[
        str | None, typer.Option(help="contrastive,reconstruction, or one of them.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of the contrastive loss: sar:lores,lores:hires_4x")
    ] = None,
    gsd_scaling: Annotated[
        bool | None,
        typer.Option(
            "--gsd-scaling/--no-gsd-scaling", help="Distances on the ground, or in patches."
        ),
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help="shared or separate blocks of the joint encoder's steps.")
    ] = None,
    fine_target: Annotated[
        str | None, typer.Option(help="Reconstruct finer modalities at native or base resolution.")
    ] = None,
    absolute_targets: Annotated[
        bool | None,
        typer.Option(
            "--absolute-targets/--relative-targets",
            help="Targets as they are, or relative to each patch's own mean and deviation.",
        ),
    ] = None,
    hide_share: Annotated[
        float | None, typer.Option(help="Chance of a modality to be hidden whole in a batch.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Depths of encoders that differ: sar:6,s2:4")
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option(
            help="original: train with the mistakes of the authors' code; original:1,4: with these."
        ),
    ] = None,
    attention: Annotated[
        str | None, typer.Option(help="auto, dense, flex: the same results.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints.")
    ] = None,
    keep_checkpoints: Annotated[
        int | None, typer.Option(min=1, help="How many of the newest to keep.  [default: 3]")
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between validations.")
    ] = None,
    validation_samples: Annotated[
        int | None, typer.Option(min=0, help="Samples to validate on; 0: none.  [default: 256]")
    ] = None,
    probe: Annotated[
        str | None, typer.Option(help="Labelled images to classify while training.")
    ] = None,
    probe_every: Annotated[int | None, typer.Option(min=1, help="Steps between probes.")] = None,
    probe_gsd_m: Annotated[
        float | None, typer.Option(help="Metres per pixel of these, where they do not say.")
    ] = None,
    stop_on_collapse: Annotated[
        bool | None,
        typer.Option(
            "--stop-on-collapse/--no-stop-on-collapse",
            help="Stop where embeddings are all alike; needs four validation samples.",
        ),
    ] = None,
    trackers: Annotated[
        str | None, typer.Option(help="wandb,mlflow: besides metrics.csv and TensorBoard.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these options; those given here win.")
    ] = None,
    device: common.Device = "auto",
) -> None:
    """Train on stores; run it again and it goes on where it was.

    Example: `salibi-model train data/micro.zarr --size tiny --out runs/demo`

    On several GPUs: `torchrun --nproc-per-node 8 -m salibi_cli.model.app train data/full.zarr
    --size base --batch-size 1024 --precision bf16`
    """
    from salibi_model.training.trainer import train as run_training

    given: dict[str, Any] = {
        "stores": tuple(stores) if stores else None,
        "model": model,
        "size": size,
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "mask_ratio": mask_ratio,
        "lr": lr,
        "weight_decay": weight_decay,
        "lr_scales": common.listed(lr_scales),
        "ema": ema,
        "accumulate": accumulate,
        "weights": common.numbers("--weights", weights),
        "crop_px": crop_px,
        "crop_share": common.numbers("--crop-share", crop_share),
        "workers": workers,
        "compile": compile,
        "precision": precision,
        "seed": seed,
        "modalities": common.listed(modalities),
        "patch_px": patch_px,
        "objectives": common.listed(objectives),
        "pairs": common.listed(pairs),
        "gsd_scaling": gsd_scaling,
        "fusion": fusion,
        "fine_target": fine_target,
        "normalise_patches": None if absolute_targets is None else not absolute_targets,
        "hide_share": hide_share,
        "depths": common.listed(depths),
        "compat": compat,
        "attention": attention,
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
        "validate_every": validate_every,
        "validation_samples": validation_samples,
        "probe": probe,
        "probe_every": probe_every,
        "probe_gsd_m": probe_gsd_m,
        "stop_on_collapse": stop_on_collapse,
        "trackers": common.listed(trackers),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    folder = out or Path("runs") / (size or "tiny")
    settings = _settings(folder, changes, config=config, resume=resume)
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
    """Defaults, then the file or the run that is there, then what was given."""
    from salibi_model.training.config import TrainingConfig
    from salibi_model.training.resume import resumed_config

    if resume:
        return resumed_config(folder, **changes)
    settings = TrainingConfig.from_toml(config) if config else TrainingConfig()
    if "steps" in changes or "epochs" in changes:  # either one replaces the file's
        settings = dataclasses.replace(settings, steps=0, epochs=0)
    return dataclasses.replace(settings, **changes)


def _progress_note(metrics: Mapping[str, float]) -> str:
    """Losses, speed and waiting, beside the progress bar."""
    totals = [name for name in ("contrastive", "reconstruction") if name in metrics]
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in totals)
    waiting = metrics["data_wait_share"]
    return (
        f": {shown}, {metrics['images_per_second']:.0f} images/s"
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
