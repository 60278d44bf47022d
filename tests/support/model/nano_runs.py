"""Configurations and weights of the smallest training runs."""

from __future__ import annotations

import torch

from salibi_model.training.config import TrainingConfig


def config(store, **changes):
    return TrainingConfig(**{"stores": (str(store),), "steps": 4, "batch_size": 4, **changes})


def weights(run):
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    return state["model"]
