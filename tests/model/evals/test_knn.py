"""Nearest neighbours against scikit-learn, and what decides where votes are equal."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from salibi_data.store.errors import UsageError
from salibi_model.evals import knn
from salibi_model.evals.knn import knn_predict
from salibi_model.evals.options import KnnOptions


def clouds(seed=0, *, num_classes=4, count=300, dim=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    centres = rng.normal(0, 1, (num_classes, dim))
    vectors = (centres[labels] + rng.normal(0, 1, (count, dim))).astype(np.float32)
    return vectors[:200], labels[:200], vectors[200:], labels[200:]


def without_ties(model, vectors, temperature):
    """Queries whose two best classes do not have equal votes."""
    votes = np.sort(model.predict_proba(vectors), axis=1)
    return votes[:, -1] > votes[:, -2] + 1e-9 if temperature is None else np.full(len(vectors), 1)


METRICS = {"cosine": "cosine", "l2": "euclidean"}


@pytest.mark.parametrize("distance", METRICS)
@pytest.mark.parametrize("temperature", [None, 0.07, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_are_scikit_learns(distance, temperature, k):
    train, labels, test, truth = clouds()
    reference = KNeighborsClassifier(
        k,
        metric=METRICS[distance],
        algorithm="brute",
        weights="uniform" if temperature is None else lambda d: np.exp(-d / temperature),
    ).fit(train.astype(np.float64), labels)
    options = KnnOptions(k=k, distance=distance, temperature=temperature)
    predicted = knn_predict(train, labels, test, options, num_classes=4)
    clear = without_ties(reference, test.astype(np.float64), temperature).astype(bool)
    expected = reference.predict(test.astype(np.float64))
    assert clear.sum() > 60
    assert np.array_equal(predicted[clear], expected[clear])
    assert (predicted == truth).mean() > 0.4


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_several_labels_are_scikit_learns(temperature):
    train, classes, test, _ = clouds()
    labels = np.eye(4, dtype=np.int64)[classes] | np.eye(4, dtype=np.int64)[(classes * 2) % 4]
    reference = KNeighborsClassifier(
        7,
        metric="cosine",
        algorithm="brute",
        weights="uniform" if temperature is None else lambda d: np.exp(-d / temperature),
    ).fit(train.astype(np.float64), labels)
    options = KnnOptions(k=7, temperature=temperature)
    predicted = knn_predict(train, labels, test, options, num_classes=4)
    assert np.array_equal(predicted, reference.predict(test.astype(np.float64)))


def test_half_of_the_votes_are_enough():
    train = np.array([[1, 0], [1, 0.1]], np.float32)
    labels = np.array([[1, 0], [1, 1]])
    predicted = knn_predict(train, labels, train[:1], KnnOptions(k=2), num_classes=2)
    assert predicted.tolist() == [[1, 1]]


def test_of_equal_votes_the_nearest_decides():
    train = np.array([[0], [1], [2.1], [3]], np.float32)
    options = KnnOptions(k=4, distance="l2")
    for labels in ([0, 1, 0, 1], [1, 0, 1, 0]):
        predicted = knn_predict(train, np.array(labels), train[:1] - 1, options, num_classes=2)
        assert predicted.tolist() == [labels[0]]


def test_of_equally_near_ones_the_first_are_neighbours():
    train = np.ones((50, 3), np.float32)
    labels = np.array([2, *[1] * 49])
    test = np.array([[1, 1, 1], [0.5, 1, 2]], np.float32)
    assert knn_predict(train, labels, test, KnnOptions(k=1), num_classes=3).tolist() == [2, 2]


def test_a_low_temperature_leaves_the_nearest_alone():
    train, labels, test, _ = clouds()
    one = knn_predict(train, labels, test, KnnOptions(k=1), num_classes=4)
    cold = knn_predict(train, labels, test, KnnOptions(k=20, temperature=1e-6), num_classes=4)
    assert np.array_equal(one, cold)


def test_chunks_do_not_change_anything(monkeypatch):
    train, labels, test, _ = clouds()
    whole = knn_predict(train, labels, test, KnnOptions(), num_classes=4)
    monkeypatch.setattr(knn, "_CHUNK_DISTANCES", 3 * len(train))
    assert np.array_equal(knn_predict(train, labels, test, KnnOptions(), num_classes=4), whole)


def test_no_more_neighbours_than_there_are():
    train, _, test, _ = clouds()
    predicted = knn_predict(train[:3], np.array([0, 1, 1]), test, KnnOptions(k=20), num_classes=2)
    assert set(predicted.tolist()) == {1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k is 0"),
        ({"distance": "l1"}, "distance is 'l1'; expected one of cosine, l2"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        KnnOptions(**options)
