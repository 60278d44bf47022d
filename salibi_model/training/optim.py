"""Optimiser, learning-rate schedule, and moving average of the weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from salibi_data.store.errors import UsageError


def adamw(
    model: nn.Module, *, weight_decay: float, lr_scales: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """Make AdamW that decays matrices only: not biases, norms, the mask token or temperature.

    Args:
        model: model to train.
        weight_decay: decay of the matrices.
        lr_scales: factors on the learning rate, by the beginning of parameters' names, such as
            ``decoder`` or ``encoders.sar``; the longest beginning counts.

    Source: Loshchilov & Hutter 2019; betas (0.9, 0.95) as in MAE (He et al. 2022).

    Raises:
        UsageError: no parameter's name has one of these beginnings.
    """
    scales = dict(lr_scales or {})
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = _part(name, scales)
            used.add(part)
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scales.get(part, 1.0), decay), []).append(parameter)
    if unused := sorted(set(scales) - used):
        parts = sorted({name.split(".")[0] for name, _ in model.named_parameters()})
        raise UsageError(
            f"no part of the model is called {', '.join(unused)}; it has {', '.join(parts)}, and parts "
            "of these, such as encoders.sar."
        )
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "scale": scale}
            for (scale, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.95),
        fused=True,  # one pass over memory in place of a dozen
    )


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore an optimiser's state, keeping its fused implementation.

    States of earlier versions, which did not fuse, hold the same values.

    Raises:
        ValueError: the state belongs to other parameters.
    """
    fused = [{**group, "fused": True} for group in state["param_groups"]]
    optimizer.load_state_dict({**state, "param_groups": fused})


def _part(name: str, scales: Mapping[str, float]) -> str:
    """Give the longest beginning of a parameter's name that has a scale; ``""``: none."""
    matching = [part for part in scales if f"{name}.".startswith(f"{part}.")]
    return max(matching, key=len, default="")


def learning_rate(step: int, *, steps: int, warmup_steps: int, peak: float) -> float:
    """Compute the rate of a step (0, 1, ..): linear warm-up, then a half cosine to zero.

    Source: Loshchilov & Hutter 2017 (SGDR, arXiv 1608.03983), equation 5, without restarts.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each parameter group, multiplied by the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Start the exponential moving average of a model's weights; ``None`` for a decay of 0.

    The average is the weights after the first step, then ``decay * average + (1 - decay) *
    weights`` after each step (Polyak & Juditsky 1992, with exponential weights).
    """
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
