"""Configurations and weights of the smallest training runs."""

from __future__ import annotations

import torch

from salibi_model.training.config import TrainingConfig


def config(store, **changes):
    """Four steps without validation, which takes as long as a step."""
    settings = {"stores": (str(store),), "steps": 4, "batch_size": 4, "validation_samples": 0}
    return TrainingConfig(**settings | changes)


def weights(run):
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    return state["model"]
