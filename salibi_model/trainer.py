"""Training: a linear loop over batches that can be killed at any moment and run again."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from salibi_model import distributed, optim
from salibi_model.allocator import keep_freed_memory
from salibi_model.architectures import build_model
from salibi_model.batches import Batch, Batches
from salibi_model.checkpoints import RunFolder, save_model
from salibi_model.errors import CheckpointError, TrainingError, UsageError
from salibi_model.interface import PretrainModel
from salibi_model.masking import hidden_modalities, num_removed, random_masks
from salibi_model.metrics import MetricsLog
from salibi_model.settings import TrainingConfig, check_same_run
from salibi_model.store import SampleStore


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run came to."""

    out: Path
    steps: int
    first_step: int
    """The step it went on from; 0 for a new run."""
    metrics: dict[str, float]
    """The last step's row of ``metrics.csv``; empty where the run was complete already."""


def train(
    config: TrainingConfig,
    *,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    on_step: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train a model on stores; a run that is there already goes on from its last checkpoint.

    Args:
        config: how to train. It must agree with that of a run in ``out``; the number of steps
            may differ, the schedule is then that of the new number.
        out: the run's folder.
        resume: insist that there is a run to go on with.
        device: ``auto``, ``cpu``, ``cuda``, ...
        on_step: called with (done, total) after each step.

    Under ``torchrun`` each process takes its part of every batch. Batches, masks and turns are
    drawn per sample from the seed, so that their number does not change what is learned.

    Raises:
        UsageError: the stores, the configuration and the run in ``out`` do not fit together.
        StoreError: a store cannot be read.
        CheckpointError: there is nothing to resume, or it is damaged.
        TrainingError: the loss is not finite.
    """
    chosen = distributed.choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    with distributed.process_group(chosen):
        return _train(config, RunFolder(out), resume=resume, device=chosen, on_step=on_step)


def _train(
    config: TrainingConfig,
    folder: RunFolder,
    *,
    resume: bool,
    device: torch.device,
    on_step: Callable[[int, int], None] | None,
) -> TrainingResult:
    stores = [SampleStore(location) for location in config.stores]
    config = config.resolve(stores, world_size=distributed.world_size())
    torch.manual_seed(config.seed)
    model = build_model(config.model_config(stores)).to(device)
    model.use_attention(config.attention)
    optimizer = optim.adamw(model, weight_decay=config.weight_decay)
    batches = Batches(
        stores,
        modalities=config.modalities,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )
    check_same_run(config, folder, resume=resume)
    _check_shapes(model, config)
    first_step = _restore(folder.load_last(device), model, optimizer, batches)
    if first_step > config.steps:
        raise UsageError(
            f"{folder.path} has been trained for {first_step} steps already, more than the "
            f"{config.steps} asked for; give more --steps, or another --out."
        )
    distributed.wait_for_all()  # nobody writes before everybody has read
    is_writer = distributed.rank() == 0
    if is_writer:
        folder.write_config(asdict(config))
    wrapped = _data_parallel(model, device)
    metrics: dict[str, float] = {}
    log_context = (
        closing(MetricsLog(folder, first_step=first_step + 1)) if is_writer else nullcontext()
    )
    with log_context as log:
        reader = iter(batches)
        for step in range(first_step, config.steps):
            started = time.perf_counter()
            rate = learning_rate(config, step)
            optim.set_learning_rate(optimizer, rate)
            losses = _losses(wrapped, model, next(reader), config, device)
            mean_losses = _checked(losses, step + 1)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            _check_finite("the gradient's norm", norm.item(), step + 1)
            optimizer.step()
            metrics = {
                "step": float(step + 1),
                "epoch": step / batches.steps_per_epoch,
                "lr": rate,
                "gradient_norm": norm.item(),
                **{name: value.item() for name, value in model.monitors().items()},
                **mean_losses,
                "seconds": time.perf_counter() - started,
            }
            if log is not None:
                log.write(metrics)
                if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                    _save(folder, step + 1, model, optimizer, batches, config)
            if on_step is not None:
                on_step(step + 1, config.steps)
        reader.close()
    distributed.wait_for_all()
    return TrainingResult(
        out=folder.path, steps=config.steps, first_step=first_step, metrics=metrics
    )


def _check_shapes(model: PretrainModel, config: TrainingConfig) -> None:
    """Find out before anything is written whether images of the stores' sizes can be masked."""
    images = {
        m.name: torch.empty(1, len(m.bands), m.size_px, m.size_px, device="meta")
        for m in model.config.modalities
    }
    for count in model.num_tokens(images).values():
        num_removed(count, config.mask_ratio)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Give the rate of a step (0, 1, ..) of a resolved configuration."""
    return optim.learning_rate(
        step,
        steps=config.steps,
        warmup_steps=max(1, round(config.warmup_share * config.steps)),
        peak=config.lr,
    )


def _losses(
    wrapped: nn.Module,
    model: PretrainModel,
    batch: Batch,
    config: TrainingConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """Move a batch to the device, mask it, and give the loss and its parts."""
    num_tokens = model.num_tokens(batch.images)
    hidden = hidden_modalities(list(num_tokens), config.hide_share, batch.seed)
    masks = random_masks(num_tokens, config.mask_ratio, batch.seeds, hidden=hidden)
    images = {name: image.to(device, non_blocking=True) for name, image in batch.images.items()}
    on_device = {name: mask.to(device) for name, mask in masks.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        losses: dict[str, Tensor] = wrapped(images, on_device)
    return losses


def _checked(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """Average the losses over ranks, so that all ranks stop alike when one is not finite."""
    means = distributed.mean_over_ranks(torch.stack(list(losses.values())).float()).tolist()
    named = dict(zip(losses, means, strict=True))
    for name, value in named.items():
        _check_finite(name, value, step)
    return named


def _check_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at step {step}; nothing of that step was kept. Lower --lr, or "
            "look for damaged samples with `salibi-data verify`; --resume goes on from the last "
            "checkpoint."
        )


def _data_parallel(model: PretrainModel, device: torch.device) -> nn.Module:
    """Wrap the model so that gradients are averaged over ranks; itself when alone."""
    if distributed.world_size() == 1:
        return model
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)


def _save(
    folder: RunFolder,
    step: int,
    model: PretrainModel,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    config: TrainingConfig,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": {"steps": config.steps, "lr": config.lr, "warmup_share": config.warmup_share},
        "data": batches.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise TrainingError(
            f"weights are not finite after step {step}; they were not kept. Lower --lr; --resume "
            "goes on from the last checkpoint."
        )
    folder.save(step, state)
    save_model(model, folder.model, training={**asdict(config), "step": step})


def _restore(
    state: Mapping[str, Any] | None,
    model: PretrainModel,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
) -> int:
    """Put everything back as it was after a step; give that step, 0 without a state."""
    if state is None:
        return 0
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the run's last checkpoint is not of this model ({str(error).splitlines()[0]}); write "
            "the name of an older one into its file `last`, or start again with another --out."
        ) from error
    batches.load_state_dict(state["data"])
    torch.set_rng_state(state["rng"].cpu())
    return int(state["step"])
