"""Classifies images by the k nearest neighbours of their frozen features.

Source: weights by temperature as in Wu et al. 2018 (arXiv 1805.01978), section 3.4, as in DINO
(Caron et al. 2021, arXiv 2104.14294).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from salibi_model.evals.options import KnnOptions

_CHUNK_DISTANCES = 1 << 24
"""Distances held at a time (128 MiB)."""
_VOTE_TOLERANCE = 1e-9
"""Relative difference below which two sums of votes are equal."""


def knn_predict(
    train: Float[np.ndarray, "train dim"],
    labels: Int64[np.ndarray, " train *classes"],
    test: Float[np.ndarray, "test dim"],
    options: KnnOptions,
    *,
    num_classes: int,
    device: str | torch.device = "cpu",
) -> Int64[np.ndarray, " test *classes"]:
    """Predict labels of ``test`` by a vote of the nearest samples of ``train``.

    Ties in distance go to the first samples of ``train``, ties in votes to the class of the
    nearest neighbour. For several labels per sample, each label is predicted that has half of the
    votes or more.

    Args:
        train: features of the training samples.
        labels: classes of the training samples (train,), or 0/1 per class (train, classes).
        test: features of the samples to classify.
        options: number of neighbours, distance and weights.
        num_classes: number of classes of the task.
        device: device for the distances, which are computed in double precision.

    Returns:
        Classes (test,), or 0/1 per class (test, classes), as in ``labels``.
    """
    base = _prepared(train, options.distance, device)
    k = min(options.k, len(base))
    known_labels = torch.from_numpy(labels).to(device)
    predicted = []
    chunk = max(1, _CHUNK_DISTANCES // len(base))
    for first in range(0, len(test), chunk):
        queries = _prepared(test[first : first + chunk], options.distance, device)
        # A stable sort, not `topk`: the order of equal distances must not depend on the device.
        nearest, index = torch.sort(_distances(queries, base, options.distance), stable=True)
        weights = _weights(nearest[:, :k], options.temperature)
        votes = known_labels[index[:, :k]]
        if labels.ndim == 1:
            classes = _winners(votes, weights, num_classes)
        else:
            classes = _majority_labels(votes, weights).long()
        predicted.append(classes.cpu().numpy())
    return np.concatenate(predicted) if predicted else labels[:0]


def _prepared(vectors: np.ndarray, distance: str, device: str | torch.device) -> Tensor:
    # Double precision: in single, the squares of two near vectors lose their difference.
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
    # Expanded square: the difference of all pairs would take dim times the memory.
    squares = queries.square().sum(dim=1)[:, None] + base.square().sum(dim=1)
    return (squares - 2 * inner).clamp(min=0).sqrt()


def _weights(
    nearest: Float[Tensor, "queries k"], temperature: float | None
) -> Float[Tensor, "queries k"]:
    if temperature is None:
        return torch.ones_like(nearest)
    # Relative to the nearest neighbour, so that not all weights can underflow.
    return torch.exp((nearest[:, :1] - nearest) / temperature)


def _winners(
    classes: Int64[Tensor, "queries k"], weights: Float[Tensor, "queries k"], num_classes: int
) -> Int64[Tensor, " queries"]:
    votes = weights.new_zeros(len(classes), num_classes).scatter_add_(1, classes, weights)
    most = votes.amax(dim=1, keepdim=True)
    is_winner = votes.gather(1, classes) >= most * (1 - _VOTE_TOLERANCE)
    return classes.gather(1, is_winner.int().argmax(dim=1, keepdim=True))[:, 0]


def _majority_labels(
    labels: Int64[Tensor, "queries k classes"], weights: Float[Tensor, "queries k"]
) -> Bool[Tensor, "queries classes"]:
    votes = (labels * weights[:, :, None]).sum(dim=1)
    return votes >= weights.sum(dim=1, keepdim=True) * (0.5 - _VOTE_TOLERANCE)
