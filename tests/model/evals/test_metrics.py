"""Metrics and intervals against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from salibi_model.evals.metrics import (
    BOOTSTRAP_SAMPLES,
    bootstrap_interval,
    confusion,
    label_counts,
    metric_value,
    paired_difference,
    pixel_counts,
    score_key,
)
from tests.support.model.labelled.score_rows import score_row


def random_labels(seed, shape, *, share=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < share).astype(np.int64)
    wrong = rng.random(shape) < 0.2
    return labels, np.where(wrong, 1 - labels, labels)


def random_pixels(seed, *, images=6, classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, classes - 1, (images, 12, 9))
    predicted = np.where(rng.random(labels.shape) < 0.4, rng.integers(0, classes, labels.shape), 0)
    return labels, np.where(labels > 1, np.maximum(labels, 0), predicted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_is_scikit_learns(seed, average):
    labels, predicted = random_labels(seed, (40, 7))
    labels[:, 3] = predicted[:, 3] = 0
    expected = metrics.f1_score(labels, predicted, average=average, zero_division=np.nan)
    score = metric_value(f"f1-{average}", label_counts(labels, predicted))
    assert score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_miou_is_scikit_learns_jaccard_of_labelled_pixels(seed):
    labels, predicted = random_pixels(seed)
    known = labels >= 0
    expected = metrics.jaccard_score(labels[known], predicted[known], average="macro")
    counts = pixel_counts(labels, predicted, 6)
    assert metric_value("miou", counts) == pytest.approx(expected, abs=1e-12)
    matrix = metrics.confusion_matrix(labels[known], predicted[known], labels=range(6))
    assert np.array_equal(confusion(labels, predicted, 6), matrix)


def test_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 50))
    expected = metrics.accuracy_score(labels, predicted)
    assert metric_value("accuracy", labels == predicted) == expected


def test_nothing_found_and_nothing_to_find_is_zero():
    nothing = np.zeros((4, 3, 3), np.int64)
    assert [metric_value(name, nothing) for name in ("f1-micro", "f1-macro", "miou")] == [0, 0, 0]


def outcomes_of(metric):
    if metric == "accuracy":
        return (np.random.default_rng(1).random(60) < 0.7).astype(np.int64)
    if metric == "miou":
        return pixel_counts(*random_pixels(1, images=30), 6)
    return label_counts(*random_labels(1, (60, 7)))


@pytest.mark.parametrize("metric", ["accuracy", "f1-micro", "f1-macro", "miou"])
def test_intervals_are_scipys(metric):
    outcomes = outcomes_of(metric)
    interval = stats.bootstrap(
        (np.arange(len(outcomes)),),
        lambda chosen: metric_value(metric, outcomes[chosen]),
        method="percentile",
        n_resamples=BOOTSTRAP_SAMPLES,
        rng=np.random.default_rng(3),
        vectorized=False,
    ).confidence_interval
    assert bootstrap_interval(metric, outcomes, seed=3) == pytest.approx(
        (interval.low, interval.high), abs=1e-12
    )


@pytest.mark.parametrize("metric", ["accuracy", "f1-macro"])
def test_paired_differences_are_scipys(metric):
    a = outcomes_of(metric)
    b = np.roll(a, 5, axis=0).copy()
    b[:20] = a[:20]
    interval = stats.bootstrap(
        (np.arange(len(a)),),
        lambda chosen: metric_value(metric, a[chosen]) - metric_value(metric, b[chosen]),
        method="percentile",
        n_resamples=BOOTSTRAP_SAMPLES,
        rng=np.random.default_rng(0),
        vectorized=False,
    ).confidence_interval
    difference, low, high = paired_difference(metric, a, b)
    assert difference == pytest.approx(metric_value(metric, a) - metric_value(metric, b))
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_a_pair_is_told_apart_more_sharply_than_two_intervals_do():
    a = (np.random.default_rng(0).random(200) < 0.6).astype(np.int64)
    b = a.copy()
    b[np.flatnonzero(a)[:12]] = 0
    difference, low, high = paired_difference("accuracy", a, b)
    assert difference == pytest.approx(0.06)
    assert 0 < low < difference < high
    assert bootstrap_interval("accuracy", b)[1] > bootstrap_interval("accuracy", a)[0]


@pytest.mark.parametrize("metric", ["accuracy", "miou"])
def test_a_model_does_not_differ_from_itself(metric):
    outcomes = outcomes_of(metric)
    assert paired_difference(metric, outcomes, outcomes) == (0, 0, 0)


def test_other_samples_are_not_paired():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\) are not of the same samples"):
        paired_difference("accuracy", np.ones(3, np.int64), np.ones(4, np.int64))


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 2**31))
def test_the_interval_lies_within_what_can_be(hits, seed):
    outcomes = np.array(hits, np.int64)
    low, high = bootstrap_interval("accuracy", outcomes, seed=seed)
    assert 0 <= low <= high <= 1
    assert low <= outcomes.mean() <= high or len(hits) < 30


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_counts_add_up_to_what_is_labelled_and_predicted(num_classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, num_classes, (2, 5, 5))
    predicted = rng.integers(0, num_classes, (2, 5, 5))
    hits, false, missed = pixel_counts(labels, predicted, num_classes).sum(axis=(0, 1))
    assert hits + missed == (labels >= 0).sum() == hits + false


def test_the_key_tells_what_decides_the_figure():
    base = score_row()
    assert score_row(value=0.7, low=0.1, high=0.9, chosen={"c": 1}).key == base.key
    changes = {"model": "b", "gsd_m": 20.0, "settings": {"k": 6}, "data_digest": "y"}
    assert len({base.key, *(score_row(**{name: v}).key for name, v in changes.items())}) == 5
    identity = {
        k: v for k, v in base.to_dict().items() if k not in ("value", "low", "high", "chosen")
    }
    assert score_key(**identity) == base.key
