"""k nearest neighbours on frozen features.

Source: weights by temperature as in Wu et al. 2018 (arXiv 1805.01978), section 3.4, which DINO
(Caron et al. 2021, arXiv 2104.14294) uses, too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from salibi_data.store.errors import UsageError

DISTANCES = ("cosine", "l2")
_AT_ONCE = 1 << 24
"""Distances held at a time (128 MiB)."""
_EQUAL = 1e-9
"""Relative difference below which two sums of votes are the same."""


@dataclass(frozen=True, kw_only=True)
class KnnOptions:
    """How neighbours are found and vote.

    Raises:
        UsageError: a field is out of range.
    """

    k: int = 20
    """Neighbours that vote; no more than there are training samples."""
    distance: str = "cosine"
    """``cosine`` (1 - cosine of the angle) or ``l2``."""
    temperature: float | None = None
    """A neighbour at distance d weighs exp(-d / temperature); ``None``: all alike."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k is {self.k}; take one neighbour or more.")
        if self.distance not in DISTANCES:
            raise UsageError(f"no distance {self.distance!r}; take {' or '.join(DISTANCES)}.")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}; take a number above 0.")


def knn_predict(
    train: Float[np.ndarray, "train dim"],
    labels: Int64[np.ndarray, " train *classes"],
    test: Float[np.ndarray, "test dim"],
    options: KnnOptions,
    *,
    num_classes: int,
    device: str | torch.device = "cpu",
) -> Int64[np.ndarray, " test *classes"]:
    """Predict labels of ``test`` by a vote of the nearest of ``train``.

    Of equally near samples, the first ones of ``train`` are neighbours. Of classes with equal
    votes, that of the nearest neighbour wins. Of several labels at once, those are predicted that
    half of the votes or more have.

    Args:
        train: features of the training samples.
        labels: their classes (train,), or 0/1 per class (train, classes).
        test: features to find neighbours of.
        options: how they are found and vote.
        num_classes: classes of the task.
        device: where distances are computed, in double precision.

    Returns:
        Classes (test,), or 0/1 per class (test, classes), as ``labels`` are.
    """
    base = _prepared(train, options.distance, device)
    k = min(options.k, len(base))
    known = torch.from_numpy(labels).to(device)
    predicted = []
    at_once = max(1, _AT_ONCE // len(base))
    for first in range(0, len(test), at_once):
        queries = _prepared(test[first : first + at_once], options.distance, device)
        # Sorted, not `topk`: which of equal distances comes first must not depend on the device.
        nearest, index = torch.sort(_distances(queries, base, options.distance), stable=True)
        weights = _weights(nearest[:, :k], options.temperature)
        votes = known[index[:, :k]]
        if labels.ndim == 1:
            found = _winners(votes, weights, num_classes)
        else:
            found = _shared_by_half(votes, weights).long()
        predicted.append(found.cpu().numpy())
    return np.concatenate(predicted) if predicted else labels[:0]


def _prepared(vectors: np.ndarray, distance: str, device: str | torch.device) -> Tensor:
    # In double precision: sums of squares of near vectors lose their difference in single.
    values = torch.from_numpy(vectors).to(device, torch.float64)
    if distance == "l2":
        return values
    return torch.nn.functional.normalize(values, dim=1)


def _distances(
    queries: Float[Tensor, "queries dim"], base: Float[Tensor, "train dim"], distance: str
) -> Float[Tensor, "queries train"]:
    inner = queries @ base.T
    if distance == "cosine":
        return 1 - inner
    squares = queries.square().sum(dim=1)[:, None] + base.square().sum(dim=1)
    return (squares - 2 * inner).clamp(min=0).sqrt()


def _weights(
    nearest: Float[Tensor, "queries k"], temperature: float | None
) -> Float[Tensor, "queries k"]:
    if temperature is None:
        return torch.ones_like(nearest)
    # Relative to the nearest one, whose weight cannot vanish then.
    return torch.exp((nearest[:, :1] - nearest) / temperature)


def _winners(
    classes: Int64[Tensor, "queries k"], weights: Float[Tensor, "queries k"], num_classes: int
) -> Int64[Tensor, " queries"]:
    votes = weights.new_zeros(len(classes), num_classes).scatter_add_(1, classes, weights)
    most = votes.amax(dim=1, keepdim=True)
    among_first = votes.gather(1, classes) >= most * (1 - _EQUAL)
    return classes.gather(1, among_first.int().argmax(dim=1, keepdim=True))[:, 0]


def _shared_by_half(
    labels: Int64[Tensor, "queries k classes"], weights: Float[Tensor, "queries k"]
) -> Bool[Tensor, "queries classes"]:
    votes = (labels * weights[:, :, None]).sum(dim=1)
    return votes >= weights.sum(dim=1, keepdim=True) * (0.5 - _EQUAL)
