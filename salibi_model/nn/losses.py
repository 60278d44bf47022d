"""Losses of pre-training for one pair or one modality; the caller sums them. Pure functions."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def info_nce(
    left: Float[Tensor, "local dim"],
    right: Float[Tensor, "local dim"],
    *,
    all_left: Float[Tensor, "total dim"],
    all_right: Float[Tensor, "total dim"],
    scale: Float[Tensor, ""],
    offset: int,
    all_compared: Bool[Tensor, " total"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the symmetric InfoNCE between two modalities of the same samples.

    ``(CE(scale * left all_right^T, labels) + CE(scale * right all_left^T, labels)) / 2`` with
    ``labels = offset + (0, 1, ..)``. Its mean over ranks of equal batches is the loss of the
    global batch.

    Args:
        left: unit vectors of this rank's samples in one modality.
        right: unit vectors of the same samples in the other modality.
        all_left: ``left`` of all ranks, in rank order; gradients flow through it.
        all_right: ``right`` of all ranks.
        scale: inverse temperature.
        offset: index of this rank's first sample among all.
        all_compared: True for samples of all ranks that both modalities observed; the others are
            neither queries nor keys. ``None``: all.

    Source: CROMA (Fuller et al. 2023), equation 1 (symmetric, both directions), after van den
    Oord et al. 2018.
    """
    if all_compared is None:
        all_compared = torch.ones(len(all_left), dtype=torch.bool, device=left.device)
    compared = all_compared[offset : offset + len(left)]
    labels = (all_compared.cumsum(0) - 1)[offset : offset + len(left)][compared]
    # Ranks differ in how many samples they compare: each weighs its sum so that the mean over
    # ranks divides by the number of the whole batch.
    weight = len(all_left) / len(left) / all_compared.sum().clamp(min=1)
    # Under autocast the products would be bf16: too coarse for logits up to the scale of 100.
    with torch.autocast(left.device.type, enabled=False):
        left_logits = scale * left[compared] @ all_right[all_compared].T
        right_logits = scale * right[compared] @ all_left[all_compared].T
        errors = [
            F.cross_entropy(logits, labels, reduction="sum")
            for logits in (left_logits, right_logits)
        ]
    return torch.stack(errors).sum() * weight / 2


@torch.no_grad()
def normalised_target(
    patches: Float[Tensor, "batch tokens values"], valid: Bool[Tensor, "batch tokens values"]
) -> Float[Tensor, "batch tokens values"]:
    """Normalise each patch of one modality to mean 0 and variance 1 over its valid values.

    Args:
        patches: values of one modality, 0 where not valid.
        valid: True where there was an observation.

    Returns:
        Normalised values, 0 where not valid.

    Source: MAE (He et al. 2022), section 4, normalised pixels. A patch's statistics are those of
    its own modality: the authors' code stacks the sensors first and normalises across them.
    """
    _, centred, variance = _centre(patches, valid)
    return centred.mul_(torch.rsqrt(variance))


@torch.no_grad()
def patch_statistics(
    patches: Float[Tensor, "batch tokens values"], valid: Bool[Tensor, "batch tokens values"]
) -> tuple[Float[Tensor, "batch tokens 1"], Float[Tensor, "batch tokens 1"]]:
    """Compute each patch's mean and variance (plus 1e-6) over its valid values.

    Args:
        patches: values of one modality, 0 where not valid.
        valid: True where there was an observation.
    """
    mean, _, variance = _centre(patches, valid)
    return mean, variance


def _centre(patches: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean, centred values (0 where not valid) and variance."""
    count = valid.sum(dim=2, keepdim=True).clamp(min=1)
    mean = patches.sum(dim=2, keepdim=True) / count
    centred = (patches - mean).masked_fill_(~valid, 0.0)
    # The norm squares and sums in one pass over memory, without a tensor of squares.
    norm = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    return mean, centred, norm.square() / count + 1e-6


def masked_mse(
    predicted: Float[Tensor, "batch removed values"],
    target: Float[Tensor, "batch removed values"],
    valid: Bool[Tensor, "batch removed values"],
) -> Float[Tensor, ""]:
    """Compute the mean squared error over the valid values of removed patches.

    The mean over a sample comes first, then the mean over samples. A sample without a valid value
    adds zero. Samples weigh the same, so that the mean over ranks is the loss of the global batch.

    Args:
        predicted: values that the decoder predicts for the removed patches.
        target: values of :func:`normalised_target`.
        valid: True for values that count.

    Source: MAE (He et al. 2022), section 3, "Reconstruction target".
    """
    # Where nothing was observed the target is the prediction: no error, no gradient.
    target = torch.where(valid, target, predicted.detach())
    error = F.mse_loss(predicted, target, reduction="none")
    return (error.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)).mean()
