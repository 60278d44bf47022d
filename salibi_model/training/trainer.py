"""Train a model: a loop over batches that can be killed at any moment and resumed."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import hold_lock, remove_partials
from salibi_model import distributed
from salibi_model.checkpoints.files import RunFolder
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError, StoppedError, TrainingError
from salibi_model.models.base import PretrainModel
from salibi_model.nn.masking import num_removed
from salibi_model.training import optim
from salibi_model.training.allocator import keep_freed_memory
from salibi_model.training.applicability import check_used
from salibi_model.training.config import TrainingConfig
from salibi_model.training.grad_cache import LossStep, MaskedBatch, add_gradients, mask_batch
from salibi_model.training.monitoring.schedule import MonitorResult, MonitorSchedule, is_due
from salibi_model.training.resolution import crop, resolve
from salibi_model.training.resume import check_same_run
from salibi_model.training.signals import StopSignals, agree_on_signal
from salibi_model.training.state import RunState
from salibi_model.training.tracking.metrics_log import MetricsLog
from salibi_model.training.tracking.trackers import check_trackers


@runtime_checkable
class TrainingProgress(Protocol):
    """Receives the metrics of each training step."""

    def __call__(self, done: int, total: int, metrics: Mapping[str, float], /) -> None:
        """Receive the number of steps done and in all, and the step's row of ``metrics.csv``."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training run."""

    out: Path
    """Folder of the run."""
    steps: int
    """Number of steps in all."""
    first_step: int
    """Number of steps that were done before; 0 for a new run."""
    metrics: dict[str, float]
    """Last step's row of ``metrics.csv``; empty where the run was complete already."""


def train(
    config: TrainingConfig,
    *,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    on_step: TrainingProgress | None = None,
) -> TrainingResult:
    """Train a model on stores; a run in ``out`` continues from its last checkpoint.

    Under ``torchrun`` each process takes its share of every batch. Batches, masks and rotations are
    drawn per sample from the seed, so the number of processes does not change the result.

    On SIGTERM and SIGUSR1, by which clusters announce the end of a job's time, the current step
    ends and a checkpoint is written.

    Args:
        config: configuration. It must agree with that of a run in ``out``, except for options that
            may change on resuming; a new number of steps changes the schedule.
        out: folder of the run.
        resume: whether to refuse a folder without a run.
        device: ``auto``, ``cpu``, ``cuda``, ...
        on_step: called with (done, total, the step's row of ``metrics.csv``) after each step.

    Raises:
        UsageError: the stores, the configuration and the run in ``out`` do not fit together.
        StoreError: a store cannot be read.
        CheckpointError: there is nothing to resume, or it is damaged.
        TrainingError: the loss is not finite, or all embeddings are alike; the last finite step is
            saved as a checkpoint.
        StoppedError: a signal stopped the run; its last step is saved as a checkpoint.

    Example:
        >>> config = salibi_model.TrainingConfig(
        ...     stores=(str(store_path),), modalities=("sar", "lores"), crop_px=64, steps=2, batch_size=4
        ... )
        >>> result = salibi_model.train(config, out=folder / "trained", device="cpu")
        >>> result.steps, sorted(path.name for path in result.out.iterdir())[:3]
        (2, ['checkpoints', 'config.toml', 'events'])
    """
    if not RunFolder(out).exists():
        check_used(config)
    chosen = distributed.choose_device(device)
    if chosen.type == "cpu":
        keep_freed_memory()
    folder = RunFolder(out)
    if not out or (folder.path / "zarr.json").exists():
        raise UsageError(
            f"{folder.path} cannot hold a run: it is a store, or empty. Give another --out."
        )
    with distributed.process_group(chosen):
        return _train(config, folder, resume=resume, device=chosen, on_step=on_step)


def _train(
    config: TrainingConfig,
    folder: RunFolder,
    *,
    resume: bool,
    device: torch.device,
    on_step: TrainingProgress | None,
) -> TrainingResult:
    stores = [SampleStore(location) for location in config.stores]
    config = resolve(config, stores, world_size=distributed.world_size())
    check_same_run(config, folder, resume=resume)
    check_trackers(config.trackers)
    state = RunState.start(config, stores, _batches(config, stores, device), device)
    _check_shapes(state.model, config)
    schedule = MonitorSchedule(stores, config, state.model.config, device)
    is_writer = distributed.rank() == 0
    with _claimed(folder.path) if is_writer else nullcontext():
        return _run(state, schedule, folder, device=device, on_step=on_step)


@contextmanager
def _claimed(run: Path) -> Iterator[None]:
    """Lock the folder of a run, and remove partial files of a killed process.

    Raises:
        UsageError: another process trains in it.
    """
    run.mkdir(parents=True, exist_ok=True)
    busy = UsageError(
        f"another process is training in {run}; wait for it or stop it, or give another --out."
    )
    with hold_lock(run, busy=busy):
        remove_partials(run)
        yield


def _run(
    state: RunState,
    schedule: MonitorSchedule,
    folder: RunFolder,
    *,
    device: torch.device,
    on_step: TrainingProgress | None,
) -> TrainingResult:
    config, model, batches, optimizer = state.config, state.model, state.batches, state.optimizer
    first_step = state.restore(folder.load_last(device))
    _check_start(folder, config, first_step, device)
    is_writer = distributed.rank() == 0
    if is_writer:
        folder.write_config(asdict(config))
        state.renew_product(folder, first_step)
    if config.compile:
        model.compile()
    loss_step = _data_parallel(model, device, compiled=config.compile)
    metrics: dict[str, float] = {}
    with (
        _metrics_log(folder, config, first_step) as log,
        StopSignals() as signals,
        closing(iter(batches)) as reader,
    ):
        for step in range(first_step, config.steps):
            started, position = time.perf_counter(), batches.state_dict()
            rate = optim.learning_rate(
                step, steps=config.steps, warmup_steps=config.warmup_steps, peak=config.lr
            )
            optim.set_learning_rate(optimizer, rate)
            optimizer.zero_grad(set_to_none=True)
            with _saved_on_error(state, folder, step, position):
                batch = mask_batch(
                    model,
                    next(reader),
                    mask_ratio=config.mask_ratio,
                    hide_share=config.hide_share,
                    device=device,
                )
                losses = _compute_gradients(loss_step, batch, config, step + 1)
                norm = _clip_gradients(model, config.clip_norm, step + 1)
            optimizer.step()
            if state.average is not None:
                state.average.update_parameters(model)
            seconds = time.perf_counter() - started
            metrics = {
                "step": float(step + 1),
                "epoch": step / batches.steps_per_epoch,
                "lr": rate,
                "gradient_norm": norm,
                **{name: value.item() for name, value in model.extra_metrics().items()},
                **losses,
                "seconds": seconds,
                "images_per_second": config.batch_size * len(batch.images) / seconds,
                "data_wait_share": min(1.0, batches.waited_s / seconds),
            }
            due = is_due(step + 1, config.checkpoint_every, config.steps)
            if due:
                state.check_finite(step + 1)
            result = MonitorResult()
            try:
                with _saved_on_error(state, folder, step + 1, batches.state_dict()):
                    result = schedule(step + 1, state.product)
            finally:  # a step that is saved has its row in metrics.csv, also after an error
                metrics |= result.metrics
                _write_metrics(log, metrics, result)
            stop = agree_on_signal(signals.requested, device)
            if is_writer and (due or stop or result.collapsed):
                state.save(folder, step + 1)
            if on_step is not None:
                on_step(step + 1, config.steps, metrics)
            if stop or result.collapsed:
                distributed.wait_for_all()
            _check_continues(folder, result, stop, step + 1, config.steps)
    distributed.wait_for_all()
    return TrainingResult(
        out=folder.path, steps=config.steps, first_step=first_step, metrics=metrics
    )


def _batches(config: TrainingConfig, stores: list[SampleStore], device: torch.device) -> DataLoader:
    return DataLoader(
        stores,
        modalities=config.modalities,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        weights=config.weights,
        crop=crop(config),
        workers=config.workers,
        pin=device.type == "cuda",
    )


def _check_shapes(model: PretrainModel, config: TrainingConfig) -> None:
    """Refuse images of sizes that cannot be masked, before anything is written."""
    images = {}
    for modality in model.config.modalities:
        edge = round(config.crop_px / modality.gsd_ratio) or modality.size_px
        shape = (1, len(modality.bands), edge, edge)
        images[modality.name] = torch.empty(shape, device="meta")
    for count in model.num_tokens(images).values():
        num_removed(count, config.mask_ratio)


def _check_start(
    folder: RunFolder, config: TrainingConfig, first_step: int, device: torch.device
) -> None:
    """Check that all processes start at the same step; none writes before all have read.

    Raises:
        UsageError: the run has more steps already than ``config.steps``.
        CheckpointError: processes read different checkpoints.
    """
    if first_step > config.steps:
        raise UsageError(
            f"{folder.path} has been trained for {first_step} steps already, more than the "
            f"{config.steps} asked for; give more --steps, or another --out."
        )
    own = torch.tensor([float(first_step)], device=device)
    mean = distributed.mean_over_ranks(own).item()
    if mean != first_step:
        raise CheckpointError(
            f"process {distributed.rank()} read the checkpoint of step {first_step} from "
            f"{folder.path}, others that of another step; give a folder that all processes share."
        )


@contextmanager
def _metrics_log(
    folder: RunFolder, config: TrainingConfig, first_step: int
) -> Iterator[MetricsLog | None]:
    """Open the run's log in the process that writes it; ``None`` in others."""
    if distributed.rank():
        yield None
        return
    with closing(
        MetricsLog(
            folder, first_step=first_step + 1, trackers=config.trackers, config=asdict(config)
        )
    ) as log:
        yield log


def _compute_gradients(
    loss_step: LossStep | DistributedDataParallel,
    batch: MaskedBatch,
    config: TrainingConfig,
    step: int,
) -> dict[str, float]:
    """Compute the weights' gradients; give the losses, averaged over processes.

    As all processes see the same averages, all stop where one loss is not finite.
    """
    losses = add_gradients(
        loss_step,
        batch,
        num_parts=config.accumulate,
        bf16=config.precision == "bf16",
    )
    means = distributed.mean_over_ranks(torch.stack(list(losses.values())).float()).tolist()
    named = dict(zip(losses, means, strict=True))
    for name, value in named.items():
        _check_finite(name, value, step)
    return named


def _clip_gradients(model: PretrainModel, max_norm: float, step: int) -> float:
    """Reduce the gradient's norm to ``max_norm`` at most; give the norm before."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm).item()
    _check_finite("the gradient's norm", norm, step)
    return norm


def _check_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at step {step}; nothing of that step was saved. Lower --lr, or "
            "look for damaged samples with `salibi-data verify`; --resume goes on from the last "
            "checkpoint."
        )


@contextmanager
def _saved_on_error(
    state: RunState, folder: RunFolder, step: int, position: Mapping[str, Any]
) -> Iterator[None]:
    """Save the last complete step on an error: the last checkpoint may be hours old."""
    try:
        yield
    except Exception as error:  # of any kind: a bucket is unreachable, or memory is full
        if distributed.rank() == 0 and state.is_finite:
            state.save(folder, step, position=position)
        if isinstance(error, TrainingError):
            # All processes raise it, and a launcher kills all others when the first one ends.
            distributed.wait_for_all()
        raise


def _write_metrics(
    log: MetricsLog | None, metrics: Mapping[str, float], result: MonitorResult
) -> None:
    """Write a step's row and images, in the process that has the log."""
    if log is not None:
        log.write(metrics)
        for name, image in result.images.items():
            log.write_image(name, int(metrics["step"]), image)


def _check_continues(
    folder: RunFolder, result: MonitorResult, stop: int, step: int, steps: int
) -> None:
    """End a run that has collapsed or received a signal; its state has been saved.

    Raises:
        TrainingError: the model has collapsed.
        StoppedError: the signal ``stop`` was received.
    """
    if result.collapsed:
        raise TrainingError(
            f"embeddings of {', '.join(result.collapsed)} are alike for all samples at step {step}: "
            f"the model has collapsed. The checkpoint of this step is in {folder.path}. Lower --lr, "
            "raise the batch size or take both objectives; --no-stop-on-collapse continues "
            "nevertheless."
        )
    if stop:
        raise StoppedError(
            f"stopped by signal {stop} after step {step} of {steps}; the checkpoint is in "
            f"{folder.path}. Run the same command again to go on.",
            signal_number=stop,
        )


def _data_parallel(
    model: PretrainModel, device: torch.device, *, compiled: bool
) -> LossStep | DistributedDataParallel:
    """Wrap the model in its step; with several processes, average gradients over them."""
    step = LossStep(model)
    if compiled:
        step.compile()
    if distributed.world_size() == 1:
        return step
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(step, device_ids=device_ids)
