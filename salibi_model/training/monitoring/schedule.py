"""Schedule of the measurements during training, and the decision whether a model has collapsed."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8

from salibi_model import distributed
from salibi_model.data.store import SampleStore
from salibi_model.errors import TrainingError
from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig
from salibi_model.training.config import TrainingConfig
from salibi_model.training.monitoring.knn_probe import Probe
from salibi_model.training.monitoring.validation import (
    MIN_SAMPLES,
    Validator,
    collapsed_modalities,
    draw_samples,
)


class CollapseUnseenWarning(UserWarning):
    """A run should stop on collapse, but has too few held-out samples to detect one."""


@dataclass(frozen=True, kw_only=True)
class MonitorResult:
    """Measurements after a step; empty on most steps."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values for ``metrics.csv``, by column."""
    images: Mapping[str, UInt8[np.ndarray, "rows columns 3"]] = field(default_factory=dict)
    """RGB images by name."""
    collapsed: tuple[str, ...] = ()
    """Modalities whose embeddings were alike in two validations in succession."""


class MonitorSchedule:
    """Measures a model at the intervals of a run's configuration."""

    def __init__(
        self,
        stores: Sequence[SampleStore],
        config: TrainingConfig,
        model_config: ModelConfig,
        device: torch.device,
    ) -> None:
        """Open the held-out data; warn where a collapse should stop the run but cannot be detected.

        Raises:
            UsageError: there are no labelled images to probe with, or they do not fit.
        """
        self._config, self._stores, self._device = config, tuple(stores), device
        self._validate = Validator(stores, config, device)
        self._probe = Probe(config, model_config, device) if config.probe else None
        self._alike_before: set[str] = set()
        self._warn_of_few_samples()

    def __call__(self, step: int, model: PretrainModel) -> MonitorResult:
        """Measure ``model`` after ``step`` steps, where that is due; all processes call it.

        Raises:
            TrainingError: a loss on held-out samples is not finite.
        """
        config = self._config
        metrics: dict[str, float] = {}
        images: dict[str, np.ndarray] = {}
        collapsed: tuple[str, ...] = ()
        if is_due(step, config.validate_every, config.steps):
            metrics |= self._validate(model)
            _check_finite(metrics, step)
            collapsed = self._collapsed(metrics, step)
            if distributed.rank() == 0:
                images = self._images(model)
        if self._probe is not None and is_due(step, config.probe_every, config.steps):
            metrics |= self._probe(model)
        return MonitorResult(metrics=metrics, images=images, collapsed=collapsed)

    def _warn_of_few_samples(self) -> None:
        """Warn once, at the start, where validation has too few samples to detect a collapse."""
        config, num_samples = self._config, self._validate.num_samples
        is_wanted = config.stop_on_collapse and config.validation_samples
        if is_wanted and num_samples < MIN_SAMPLES and distributed.rank() == 0:
            available = sum(len(store.split_indices("validation")) for store in self._stores)
            warnings.warn(
                f"collapse cannot be detected: validation takes {num_samples} of {available} samples "
                f"of its split, in whole batches of at most {config.batch_size}, and needs "
                f"{MIN_SAMPLES}. Give a store with more validation samples or a --batch-size that they "
                "fill, or --no-stop-on-collapse.",
                CollapseUnseenWarning,
                stacklevel=2,
            )

    def _collapsed(self, metrics: Mapping[str, float], step: int) -> tuple[str, ...]:
        """List the modalities that were alike in this validation and in the one before.

        None are listed during warm-up, when embeddings of a sound model are alike, too.
        """
        if not self._config.stop_on_collapse or step <= self._config.warmup_steps:
            return ()
        names = self._config.modalities
        alike = torch.tensor([float(name in collapsed_modalities(metrics)) for name in names])
        # Processes must agree, or some would go on without the others.
        shares = distributed.mean_over_ranks(alike.to(self._device)).tolist()
        alike_now = {name for name, share in zip(names, shares, strict=True) if share}
        alike_twice, self._alike_before = alike_now & self._alike_before, alike_now
        return tuple(sorted(alike_twice))

    def _images(self, model: PretrainModel) -> dict[str, np.ndarray]:
        if not self._config.validation_samples:
            return {}
        image = draw_samples(model, self._stores[0], mask_ratio=self._config.mask_ratio)
        return {} if image is None else {"reconstruction": image}


def is_due(step: int, every: int, steps: int) -> bool:
    """Tell whether ``step`` is a multiple of ``every``, or the last of ``steps``."""
    return step % every == 0 or step == steps


def _check_finite(metrics: Mapping[str, float], step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} after step {step}: the model's values for held-out samples are "
                "not finite. Lower --lr; --resume goes on from the last checkpoint."
            )
