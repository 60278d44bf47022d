"""State of a run at one step: everything that is saved and restored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel

from salibi_data.store.redaction import first_line
from salibi_model.checkpoints.files import RunFolder, describe, save_model
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError, TrainingError
from salibi_model.models.base import PretrainModel
from salibi_model.models.registry import build_model
from salibi_model.training import optim
from salibi_model.training.config import TrainingConfig
from salibi_model.training.option_syntax import read_factor
from salibi_model.training.resolution import describe_model


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Weights, optimiser, average and position in the data of a run."""

    config: TrainingConfig
    """Resolved configuration."""
    model: PretrainModel
    optimizer: torch.optim.Optimizer
    batches: DataLoader
    average: AveragedModel | None
    """Moving average of the weights; ``None`` where the run has none."""

    @classmethod
    def start(
        cls,
        config: TrainingConfig,
        stores: list[SampleStore],
        batches: DataLoader,
        device: torch.device,
    ) -> "RunState":
        """Set up a new run with weights drawn from its seed."""
        torch.manual_seed(config.seed)
        model = build_model(describe_model(config, stores)).to(device)
        model.use_attention(config.attention)
        scales = dict(read_factor(text) for text in config.lr_scales)
        return cls(
            config=config,
            model=model,
            optimizer=optim.adamw(model, weight_decay=config.weight_decay, lr_scales=scales),
            batches=batches,
            average=optim.moving_average(model, config.ema),
        )

    @property
    def product(self) -> PretrainModel:
        """The model that the run produces: the average where there is one."""
        if self.average is None:
            return self.model
        return cast("PretrainModel", self.average.module)

    @property
    def is_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(value.isfinite().all()) for value in self.model.state_dict().values())

    def check_finite(self, step: int) -> None:
        """Refuse weights that are not finite after ``step`` steps.

        Raises:
            TrainingError: a weight is not finite.
        """
        if not self.is_finite:
            raise TrainingError(
                f"weights are not finite after step {step}; they were not saved. Lower --lr; "
                "--resume goes on from the last checkpoint."
            )

    def save(
        self, folder: RunFolder, step: int, *, position: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a checkpoint after ``step`` steps, and the model that it produces.

        Args:
            folder: folder of the run.
            step: number of steps done.
            position: position in the data; by default that of ``batches`` now.

        Returns:
            The checkpoint's file.

        Raises:
            TrainingError: weights are not finite; nothing was written.
        """
        config = self.config
        self.check_finite(step)
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {
                "steps": config.steps,
                "lr": config.lr,
                "warmup_share": config.warmup_share,
            },
            "data": dict(position or self.batches.state_dict()),
            "rng": torch.get_rng_state(),
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        path = folder.save(step, content, keep=config.keep_checkpoints)
        self._save_product(folder, step)
        return path

    def renew_product(self, folder: RunFolder, step: int) -> None:
        """Write the run's model where the file is not that of ``step``.

        A run may have been killed after it wrote a checkpoint and before it wrote its model.
        """
        try:
            saved_step = describe(folder.path)["training"].get("step")
        except CheckpointError:
            saved_step = None
        if step and saved_step != step:
            self._save_product(folder, step)

    def _save_product(self, folder: RunFolder, step: int) -> None:
        save_model(self.product, folder.model, training={**asdict(self.config), "step": step})

    def restore(self, state: Mapping[str, Any] | None) -> int:
        """Restore the state of a checkpoint.

        Returns:
            Its number of steps; 0 without a state.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        if state is None:
            return 0
        try:
            self.model.load_state_dict(state["model"])
            optim.restore(self.optimizer, state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"the run's last checkpoint is not of this model ({first_line(error)}); "
                "write the name of an older one into its file `last`, or start again with another "
                "--out."
            ) from error
        self.batches.load_state_dict(state["data"])
        torch.set_rng_state(state["rng"].cpu())
        return int(state["step"])
