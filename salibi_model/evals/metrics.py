"""Computes metrics and their intervals from the outcome of each test sample. Pure functions.

A metric is a function of outcomes summed over samples, so that a bootstrap draw costs no new
predictions. Outcomes are 1 or 0 per sample for shares (``accuracy``, ``recall@1``), and true
positives, false positives and false negatives per sample and class for ``f1-micro``, ``f1-macro``
and ``miou``.

Source: percentile bootstrap, Efron & Tibshirani 1993, section 13.3; mIoU as in PASCAL VOC
(Everingham et al. 2015): intersections and unions pooled over all images.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer, Shaped
from torch import Tensor

from salibi_model.errors import CheckpointError

BOOTSTRAP_SAMPLES = 2000
CONFIDENCE_PERCENT = (2.5, 97.5)
COUNTED = ("f1-micro", "f1-macro", "miou")
"""Metrics of counts per class; any other is a share of samples."""
RECALL_AT = (1, 5)
"""Numbers of neighbours, K of ``recall@K``."""
UNLABELLED = -1
"""Label of a pixel that nobody labelled; it counts nowhere."""

_CHUNK_DRAWS = 1 << 24
"""Numbers drawn at a time, to bound memory (128 MiB)."""

Outcomes = Shaped[np.ndarray, "samples ..."]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of results: one metric of one model on one data set by one method."""

    model: str
    """Name given by the caller."""
    encoder: str
    """Modality whose encoder saw the images, or what stood in its place."""
    dataset: str
    """Name of the data set."""
    method: str
    """Method: ``knn``, ``linear``, ``segment-linear``, ``segment-conv`` or ``retrieval``."""
    metric: str
    """Metric: ``accuracy``, ``f1-micro``, ``f1-macro``, ``miou`` or ``recall@K``."""
    value: float
    """Value of the metric, 0 to 1."""
    low: float
    """Lower end of the bootstrap 95 % interval over the test samples."""
    high: float
    """Upper end of the same interval."""
    num_train: int
    num_test: int
    gsd_m: float
    """Metres per pixel of the images after resizing."""
    settings: Mapping[str, Any]
    """Everything else that could change the value; JSON values."""
    weights_digest: str
    """SHA-256 of the model's configuration and weights; empty where there is no model."""
    data_digest: str
    """SHA-256 of the data's content and partition."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the method chose by itself on the validation split."""

    @property
    def key(self) -> str:
        """Digest of all that decides the value: rows of one key have one value."""
        return score_key(**{name: getattr(self, name) for name in IDENTITY})

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


IDENTITY = (
    *("model", "encoder", "dataset", "method", "metric", "num_train", "num_test", "gsd_m"),
    *("settings", "weights_digest", "data_digest"),
)
"""Fields of :class:`Score` that decide its value."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of queries whose own sample is among the ``k`` nearest of the gallery."""

    k: int
    hits: int
    """Number of such queries."""
    value: float
    """Share of such queries, 0 to 1."""
    low: float
    """Lower end of the bootstrap 95 % interval over queries."""
    high: float
    """Upper end of the same interval."""
    chance: float
    """Recall of a random order: ``k`` over the size of the gallery."""


def score_key(**identity: Any) -> str:
    """Return the key of a row from its fields :data:`IDENTITY`, before its value is known."""
    text = json.dumps({name: identity[name] for name in IDENTITY}, sort_keys=True)
    # 80 bits: short enough for a file name, and no two rows of a folder collide.
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def label_counts(
    labels: Integer[np.ndarray, "samples classes"],
    predicted: Integer[np.ndarray, "samples classes"],
) -> Int64[np.ndarray, "samples classes 3"]:
    """Count true positives, false positives and false negatives of 0/1 labels per sample."""
    actual, claimed = labels.astype(bool), predicted.astype(bool)
    counts = [actual & claimed, ~actual & claimed, actual & ~claimed]
    return np.stack(counts, axis=-1).astype(np.int64)


def confusion(
    labels: Integer[np.ndarray, "*shape"],
    predicted: Integer[np.ndarray, "*shape"],
    num_classes: int,
) -> Int64[np.ndarray, "classes classes"]:
    """Count pixels per label (row) and prediction (column), without unlabelled ones."""
    labelled = labels != UNLABELLED
    pairs = labels[labelled].astype(np.int64) * num_classes + predicted[labelled]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def pixel_counts(
    labels: Integer[np.ndarray, "samples rows cols"],
    predicted: Integer[np.ndarray, "samples rows cols"],
    num_classes: int,
) -> Int64[np.ndarray, "samples classes 3"]:
    """Count pixels that are true positives, false positives and false negatives per class."""
    counts = np.zeros((len(labels), num_classes, 3), np.int64)
    for row, image_labels, image_predicted in zip(counts, labels, predicted, strict=True):
        matrix = confusion(image_labels, image_predicted, num_classes)
        hits = matrix.diagonal()
        row[:] = np.stack([hits, matrix.sum(axis=0) - hits, matrix.sum(axis=1) - hits], axis=1)
    return counts


def ranks(
    queries: Float[Tensor, "samples dim"], gallery: Float[Tensor, "samples dim"]
) -> Int64[np.ndarray, " samples"]:
    """Return the rank (0 is best) of each query's own sample in the gallery; ties count as worse.

    Raises:
        CheckpointError: some vectors are not finite, so that they have no order.
    """
    check_finite("embeddings of the queries", queries)
    check_finite("embeddings of the gallery", gallery)
    # Vectors are normalised by the model's projection: a product is the cosine.
    similarity = queries @ gallery.T
    own = similarity.diagonal()[:, None]
    return ((similarity >= own).sum(dim=1) - 1).numpy()


def recalls(
    query_ranks: Int64[np.ndarray, " samples"], rng: np.random.Generator
) -> tuple[Recall, ...]:
    """Compute the recall at each k of :data:`RECALL_AT`, with bootstrap intervals over queries."""
    count = len(query_ranks)
    drawn = rng.integers(0, count, (BOOTSTRAP_SAMPLES, count))
    result = []
    for k in RECALL_AT:
        hit = query_ranks < k
        low, high = np.percentile(hit[drawn].mean(axis=1), CONFIDENCE_PERCENT)
        result.append(
            Recall(
                k=k,
                hits=int(hit.sum()),
                value=float(hit.mean()),
                low=float(low),
                high=float(high),
                chance=min(1.0, k / count),
            )
        )
    return tuple(result)


def check_finite(subject: str, vectors: Float[Tensor, "samples dim"]) -> None:
    """Refuse vectors that cannot be compared.

    Raises:
        CheckpointError: some are not finite.
    """
    num_bad = int((~vectors.isfinite().all(dim=1)).sum())
    if num_bad:
        raise CheckpointError(
            f"{subject} are not finite, {num_bad} of {len(vectors)}: expected numbers to compare. "
            "The model's weights are damaged, or it diverged; take another checkpoint."
        )


def metric_value(metric: str, outcomes: Outcomes) -> float:
    """Return the value of ``metric`` over all samples, 0 to 1.

    ``f1-macro`` and ``miou`` are means over the classes that occur, as label or as prediction.
    With nothing to find and nothing predicted, F1 and IoU are 0.
    """
    return float(_values(metric, outcomes.sum(axis=0)[None], len(outcomes))[0])


def bootstrap_interval(metric: str, outcomes: Outcomes, *, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap 95 % percentile interval of ``metric`` over samples."""
    values = [_values(metric, totals, len(outcomes)) for totals in _draws(outcomes, seed)]
    low, high = np.percentile(np.concatenate(values), CONFIDENCE_PERCENT)
    return float(low), float(high)


def paired_difference(
    metric: str, a: Outcomes, b: Shaped[np.ndarray, "others ..."], *, seed: int = 0
) -> tuple[float, float, float]:
    """Return ``metric`` of ``a`` minus that of ``b``, and its bootstrap 95 % interval.

    Both are drawn together, sample by sample: an interval that holds 0 is no difference.

    Args:
        metric: name of the metric.
        a: outcomes of one model per test sample.
        b: outcomes of another model on the same samples, in the same order.
        seed: random seed of the draws.

    Returns:
        (difference, low, high).

    Raises:
        ValueError: the outcomes are not of the same samples.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"outcomes of shape {a.shape} and {b.shape} are not of the same samples; compare two "
            "models on one test split."
        )
    both = np.stack([a, b], axis=1)
    differences = [
        _values(metric, totals[:, 0], len(a)) - _values(metric, totals[:, 1], len(a))
        for totals in _draws(both, seed)
    ]
    low, high = np.percentile(np.concatenate(differences), CONFIDENCE_PERCENT)
    return metric_value(metric, a) - metric_value(metric, b), float(low), float(high)


def _draws(outcomes: Outcomes, seed: int) -> Iterator[Float[np.ndarray, "draws ..."]]:
    """Yield outcomes summed over samples drawn with replacement, some of the draws at a time."""
    count = len(outcomes)
    flat = outcomes.reshape(count, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_DRAWS // count)
    for first in range(0, BOOTSTRAP_SAMPLES, chunk):
        num_draws = min(chunk, BOOTSTRAP_SAMPLES - first)
        drawn = rng.integers(0, count, (num_draws, count))
        # One bincount for all draws: each counts in a range of numbers of its own.
        drawn += count * np.arange(num_draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=num_draws * count)
        totals = times.reshape(num_draws, count).astype(np.float64) @ flat
        yield totals.reshape(num_draws, *outcomes.shape[1:])


def _values(
    metric: str, totals: Shaped[np.ndarray, "draws ..."], count: int
) -> Float[np.ndarray, " draws"]:
    """Return the metric of summed outcomes, per draw."""
    if metric not in COUNTED:
        return totals / count
    if metric == "f1-micro":
        totals = totals.sum(axis=1, keepdims=True)
    hits, false, missed = (totals[..., column].astype(np.float64) for column in range(3))
    if metric == "miou":
        above, below = hits, hits + false + missed
    else:
        above, below = 2 * hits, 2 * hits + false + missed
    occurs = below > 0
    per_class = np.divide(above, below, out=np.zeros_like(above), where=occurs)
    return np.asarray(per_class.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1))
