"""The optimiser and its schedule."""

import math

import torch
from torch import nn


def adamw(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """Make AdamW that decays matrices only: not biases, norms, the mask token or temperature.

    Source: Loshchilov & Hutter 2019; betas (0.9, 0.95) as in MAE (He et al. 2022).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def learning_rate(step: int, *, steps: int, warmup_steps: int, peak: float) -> float:
    """Give the rate of a step (0, 1, ..): up linearly, then down a half cosine to zero."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
