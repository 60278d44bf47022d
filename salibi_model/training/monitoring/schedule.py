"""When what is watched while a model trains, and what is made of it."""

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
from salibi_model.training.monitoring.validation import FEWEST, Validator, collapsed, sample_images


class UnwatchedWarning(UserWarning):
    """A run is to stop on collapse, and has too few held-out samples to see one."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen after a step; nothing on most steps."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, UInt8[np.ndarray, "rows columns 3"]] = field(default_factory=dict)
    collapsed: tuple[str, ...] = ()
    """Modalities whose embeddings have been alike twice in succession."""


class Watch:
    """Looks at a model on the cadences of a run's configuration."""

    def __init__(
        self,
        stores: Sequence[SampleStore],
        config: TrainingConfig,
        model_config: ModelConfig,
        device: torch.device,
    ) -> None:
        """Set up; warn where collapse is to stop the run and cannot be seen.

        Raises:
            UsageError: there are no labelled images to probe with, or they do not fit.
        """
        self._config, self._stores, self._device = config, tuple(stores), device
        self._validate = Validator(stores, config, device)
        self._probe = Probe(config, model_config, device) if config.probe else None
        self._alike: set[str] = set()
        self._warn_of_few_samples()

    def __call__(self, step: int, model: PretrainModel) -> Watched:
        """Look at ``model`` after ``step`` steps; all processes call it.

        Raises:
            TrainingError: a loss on held-out samples is not finite.
        """
        config = self._config
        metrics: dict[str, float] = {}
        images: dict[str, np.ndarray] = {}
        gone: tuple[str, ...] = ()
        if is_due(step, config.validate_every, config.steps):
            metrics |= self._validate(model)
            _check_finite(metrics, step)
            gone = self._collapsed(metrics, step)
            if distributed.rank() == 0:
                images = self._images(model)
        if self._probe is not None and is_due(step, config.probe_every, config.steps):
            metrics |= self._probe(model)
        return Watched(metrics=metrics, images=images, collapsed=gone)

    def _warn_of_few_samples(self) -> None:
        """Say once, at the start, that a collapse would pass unseen; no validation was asked for."""
        config, seen = self._config, self._validate.num_samples
        asked = config.stop_on_collapse and config.validation_samples
        if asked and seen < FEWEST and distributed.rank() == 0:
            there = sum(len(store.split_indices("validation")) for store in self._stores)
            warnings.warn(
                f"collapse is not watched: validation sees {seen} of {there} samples of its split, in "
                f"whole batches of at most {config.batch_size}, and spread needs {FEWEST}. Give a "
                "store with more validation samples or a --batch-size that they fill, or "
                "--no-stop-on-collapse.",
                UnwatchedWarning,
                stacklevel=2,
            )

    def _collapsed(self, metrics: Mapping[str, float], step: int) -> tuple[str, ...]:
        """Modalities alike now and the time before; none during warm-up, where much is alike."""
        if not self._config.stop_on_collapse or step <= self._config.warmup_steps:
            return ()
        names = self._config.modalities
        alike = torch.tensor([float(name in collapsed(metrics)) for name in names])
        # Processes must agree, or some would go on without the others.
        shares = distributed.mean_over_ranks(alike.to(self._device)).tolist()
        now = {name for name, share in zip(names, shares, strict=True) if share}
        both, self._alike = now & self._alike, now
        return tuple(sorted(both))

    def _images(self, model: PretrainModel) -> dict[str, np.ndarray]:
        if not self._config.validation_samples:
            return {}
        drawn = sample_images(model, self._stores[0], mask_ratio=self._config.mask_ratio)
        return {} if drawn is None else {"reconstruction": drawn}


def is_due(step: int, every: int, steps: int) -> bool:
    """Tell whether something is to be done after ``step``: every so often, and at the end."""
    return step % every == 0 or step == steps


def _check_finite(metrics: Mapping[str, float], step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} after step {step}: the model makes no numbers of held-out "
                "samples. Lower --lr; --resume goes on from the last checkpoint."
            )
