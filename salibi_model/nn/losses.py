"""The losses of pre-training. Pure functions; sums over modalities and pairs are the caller's."""

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
    """Symmetric InfoNCE between two modalities of the same samples.

    ``(CE(scale * left all_right^T, labels) + CE(scale * right all_left^T, labels)) / 2`` with
    ``labels = offset + (0, 1, ..)``. Averaged over ranks of equal batches it is the loss of the
    global batch.

    Args:
        left: unit vectors of this rank's samples in one modality.
        right: unit vectors of the same samples in the other.
        all_left: ``left`` of all ranks, in rank order; gradient flows through it.
        all_right: ``right`` of all ranks.
        scale: inverse temperature.
        offset: index of this rank's first sample among all.
        all_compared: samples of all ranks that both modalities observed; the others are neither
            asked nor an answer. ``None``: all.

    Source: CROMA (Fuller et al. 2023), equation 1 (symmetric, both directions), after van den
    Oord et al. 2018.
    """
    if all_compared is None:
        all_compared = torch.ones(len(all_left), dtype=torch.bool, device=left.device)
    mine = all_compared[offset : offset + len(left)]
    labels = (all_compared.cumsum(0) - 1)[offset : offset + len(left)][mine]
    share = len(all_left) / len(left) / all_compared.sum().clamp(min=1)
    # Under autocast the products would be bf16: too coarse for logits up to the scale of 100.
    with torch.autocast(left.device.type, enabled=False):
        forth = scale * left[mine] @ all_right[all_compared].T
        back = scale * right[mine] @ all_left[all_compared].T
        errors = [F.cross_entropy(logits, labels, reduction="sum") for logits in (forth, back)]
    return torch.stack(errors).sum() * share / 2


@torch.no_grad()
def normalised_target(
    patches: Float[Tensor, "batch tokens values"], valid: Bool[Tensor, "batch tokens values"]
) -> Float[Tensor, "batch tokens values"]:
    """Bring each patch of one modality to mean 0 and variance 1 over its valid values.

    Args:
        patches: values of one modality, 0 where not valid.
        valid: where there was an observation.

    Source: MAE (He et al. 2022), section 4, normalised pixels. A patch's statistics are those of
    its own modality: the authors' code stacks the sensors first and normalises across them.
    """
    _, centred, variance = _centre(patches, valid)
    return centred.mul_(torch.rsqrt(variance))


@torch.no_grad()
def patch_statistics(
    patches: Float[Tensor, "batch tokens values"], valid: Bool[Tensor, "batch tokens values"]
) -> tuple[Float[Tensor, "batch tokens 1"], Float[Tensor, "batch tokens 1"]]:
    """Give each patch's mean and variance (plus 1e-6) over its valid values; others are 0."""
    mean, _, variance = _centre(patches, valid)
    return mean, variance


def _centre(patches: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give mean, centred values (0 where not valid) and variance, in few passes over memory."""
    count = valid.sum(dim=2, keepdim=True).clamp(min=1)
    mean = patches.sum(dim=2, keepdim=True) / count
    centred = (patches - mean).masked_fill_(~valid, 0.0)
    norm = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    return mean, centred, norm.square() / count + 1e-6


def masked_mse(
    predicted: Float[Tensor, "batch removed values"],
    target: Float[Tensor, "batch removed values"],
    valid: Bool[Tensor, "batch removed values"],
) -> Float[Tensor, ""]:
    """Mean squared error over the valid values of removed patches: per sample, then the batch.

    A sample without a valid value adds zero. Samples weigh the same, so that the mean over ranks
    is the loss of the global batch.

    Args:
        predicted: the decoder's values for the removed patches.
        target: from :func:`normalised_target`.
        valid: which values count.
    """
    # Where nothing was observed the target is the prediction itself: no error, no gradient.
    target = torch.where(valid, target, predicted.detach())
    error = F.mse_loss(predicted, target, reduction="none")
    return (error.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)).mean()
