"""Figures of merit and their intervals, from what came out for each test sample. Pure functions.

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

BOOTSTRAP_SAMPLES = 2000
CONFIDENCE_PERCENT = (2.5, 97.5)
COUNTED = ("f1-micro", "f1-macro", "miou")
"""Metrics of counts per class; any other is a share of samples."""
UNLABELLED = -1
"""Label of a pixel that nobody labelled; it counts nowhere."""

_DRAWN_AT_ONCE = 1 << 24
"""Numbers drawn at a time, to bound memory (128 MiB)."""

Outcomes = Shaped[np.ndarray, "samples ..."]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of results: how well one model did at one task by one method."""

    model: str
    """Name given by the caller."""
    encoder: str
    """Modality whose encoder saw the images, or what stood in its place."""
    dataset: str
    method: str
    """``knn``, ``linear``, ``segment-linear``, ``segment-conv`` or ``retrieval``."""
    metric: str
    """``accuracy``, ``f1-micro``, ``f1-macro``, ``miou`` or ``recall@K``."""
    value: float
    """0..1, as the interval."""
    low: float
    high: float
    """``low`` and ``high``: bootstrap 95 % interval over the test samples."""
    num_train: int
    num_test: int
    gsd_m: float
    """Metres per pixel of the images as they were shown to the model."""
    settings: Mapping[str, Any]
    """Everything else that could change the figure; JSON values."""
    weights_digest: str
    """SHA-256 of the model's configuration and weights; empty where there is no model."""
    data_digest: str
    """Of the data's content and partition."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What the method chose by itself on the validation split."""

    @property
    def key(self) -> str:
        """Digest of all that decides the figure: rows of one key have one value."""
        return key(**{name: getattr(self, name) for name in IDENTITY})

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


IDENTITY = (
    *("model", "encoder", "dataset", "method", "metric", "num_train", "num_test", "gsd_m"),
    *("settings", "weights_digest", "data_digest"),
)
"""Fields of :class:`Score` that decide its figure."""


def key(**identity: Any) -> str:
    """Give the key of the row whose fields of :data:`IDENTITY` these are, before it is known."""
    text = json.dumps({name: identity[name] for name in IDENTITY}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def label_counts(
    labels: Integer[np.ndarray, "samples classes"],
    predicted: Integer[np.ndarray, "samples classes"],
) -> Int64[np.ndarray, "samples classes 3"]:
    """Count true positives, false positives and false negatives of 0/1 labels per sample."""
    true, found = labels.astype(bool), predicted.astype(bool)
    return np.stack([true & found, ~true & found, true & ~found], axis=-1).astype(np.int64)


def confusion(
    labels: Integer[np.ndarray, "*shape"],
    predicted: Integer[np.ndarray, "*shape"],
    num_classes: int,
) -> Int64[np.ndarray, "classes classes"]:
    """Count pixels per label (row) and prediction (column), without unlabelled ones."""
    known = labels != UNLABELLED
    pairs = labels[known].astype(np.int64) * num_classes + predicted[known]
    counted = np.bincount(pairs, minlength=num_classes**2)
    return counted.reshape(num_classes, num_classes).astype(np.int64)


def pixel_counts(
    labels: Integer[np.ndarray, "samples rows cols"],
    predicted: Integer[np.ndarray, "samples rows cols"],
    num_classes: int,
) -> Int64[np.ndarray, "samples classes 3"]:
    """Count true positives, false positives and false negatives of pixels, from confusions."""
    counts = np.zeros((len(labels), num_classes, 3), np.int64)
    for row, one, other in zip(counts, labels, predicted, strict=True):
        matrix = confusion(one, other, num_classes)
        hits = matrix.diagonal()
        row[:] = np.stack([hits, matrix.sum(axis=0) - hits, matrix.sum(axis=1) - hits], axis=1)
    return counts


def measure(metric: str, outcomes: Outcomes) -> float:
    """Give the value of ``metric`` over all samples.

    ``f1-macro`` and ``miou`` are means over the classes that occur, as label or as prediction. Of
    nothing to find and nothing found, F1 and IoU are 0.
    """
    return float(_values(metric, outcomes.sum(axis=0)[None], len(outcomes))[0])


def interval(metric: str, outcomes: Outcomes, *, seed: int = 0) -> tuple[float, float]:
    """Give the bootstrap 95 % percentile interval of ``metric`` over samples."""
    found = [_values(metric, totals, len(outcomes)) for totals in _draws(outcomes, seed)]
    low, high = np.percentile(np.concatenate(found), CONFIDENCE_PERCENT)
    return float(low), float(high)


def paired_difference(
    metric: str, a: Outcomes, b: Shaped[np.ndarray, "others ..."], *, seed: int = 0
) -> tuple[float, float, float]:
    """Give ``metric`` of ``a`` less that of ``b``, and its bootstrap 95 % interval.

    Both are drawn together, sample by sample: an interval that holds 0 is no difference.

    Args:
        metric: what is compared.
        a: outcomes of one model per test sample.
        b: of another one on the same samples, in the same order.
        seed: of the draws.

    Returns:
        (difference, low, high).

    Raises:
        ValueError: they are not of the same samples.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"outcomes of shape {a.shape} and {b.shape} are not of the same samples; compare two "
            "models on one test split."
        )
    both = np.stack([a, b], axis=1)
    found = [
        _values(metric, totals[:, 0], len(a)) - _values(metric, totals[:, 1], len(a))
        for totals in _draws(both, seed)
    ]
    low, high = np.percentile(np.concatenate(found), CONFIDENCE_PERCENT)
    return measure(metric, a) - measure(metric, b), float(low), float(high)


def _draws(outcomes: Outcomes, seed: int) -> Iterator[Float[np.ndarray, "draws ..."]]:
    """Outcomes summed over samples drawn with replacement, for all draws, some at a time."""
    count = len(outcomes)
    flat = outcomes.reshape(count, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    for first in range(0, BOOTSTRAP_SAMPLES, at_once):
        num_draws = min(at_once, BOOTSTRAP_SAMPLES - first)
        drawn = rng.integers(0, count, (num_draws, count))
        drawn += count * np.arange(num_draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=num_draws * count)
        totals = times.reshape(num_draws, count).astype(np.float64) @ flat
        yield totals.reshape(num_draws, *outcomes.shape[1:])


def _values(
    metric: str, totals: Shaped[np.ndarray, "draws ..."], count: int
) -> Float[np.ndarray, " draws"]:
    """The metric of summed outcomes, per draw."""
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
    each = np.divide(above, below, out=np.zeros_like(above), where=occurs)
    return np.asarray(each.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1))
