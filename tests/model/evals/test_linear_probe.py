"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from salibi_data.store.errors import UsageError
from salibi_model.evals.linear_probe import choose_linear, fit_linear
from salibi_model.evals.options import LinearOptions

pytestmark = pytest.mark.usefixtures("one_thread")


def clouds(seed=0, *, num_classes=3, count=240, dim=5, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    centres = rng.normal(0, 1, (num_classes, dim))
    scales = np.geomspace(0.01, 100, dim)
    vectors = (centres[labels] + rng.normal(0, spread, (count, dim))) * scales + 3
    return vectors.astype(np.float32), labels


@pytest.mark.parametrize("num_classes", [2, 3, 6])
@pytest.mark.parametrize("c", [0.01, 1.0, 10.0])
def test_weights_are_scikit_learns(num_classes, c):
    vectors, labels = clouds(num_classes=num_classes)
    probe = fit_linear(vectors, labels, c=c, num_classes=num_classes)
    scaled = StandardScaler().fit_transform(vectors.astype(np.float64))
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=10000).fit(scaled, labels)
    assert np.allclose(probe.weights.numpy().T, reference.coef_, atol=1e-4)
    # A constant added to all intercepts of a softmax changes nothing.
    ours, theirs = (
        values - (values.mean() if num_classes > 2 else 0)
        for values in (probe.intercept.numpy(), reference.intercept_)
    )
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert np.array_equal(probe.predict(vectors), reference.predict(scaled))


def test_several_labels_are_one_against_the_rest():
    vectors, classes = clouds(num_classes=4)
    labels = np.eye(4, dtype=np.int64)[classes] | np.eye(4, dtype=np.int64)[(classes * 3) % 4]
    probe = fit_linear(vectors, labels, c=0.3, num_classes=4)
    scaled = StandardScaler().fit_transform(vectors.astype(np.float64))
    reference = OneVsRestClassifier(LogisticRegression(C=0.3, tol=1e-10, max_iter=10000))
    reference.fit(scaled, labels)
    coefficients = np.concatenate([estimator.coef_ for estimator in reference.estimators_])
    assert np.allclose(probe.weights.numpy().T, coefficients, atol=1e-4)
    assert np.array_equal(probe.predict(vectors), reference.predict(scaled))


def test_a_class_that_never_occurs_is_never_predicted():
    vectors, classes = clouds(num_classes=2)
    labels = np.stack([classes, np.zeros_like(classes)], axis=1)
    assert not fit_linear(vectors, labels, c=1.0, num_classes=2).predict(vectors)[:, 1].any()
    many = fit_linear(vectors, classes, c=1.0, num_classes=5).predict(vectors)
    assert set(many.tolist()) == {0, 1}


def test_a_feature_that_never_changes_does_no_harm():
    vectors, labels = clouds()
    with_constant = np.concatenate([vectors, np.full((len(vectors), 1), 7, np.float32)], axis=1)
    a = fit_linear(vectors, labels, c=1.0, num_classes=3).predict(vectors)
    b = fit_linear(with_constant, labels, c=1.0, num_classes=3).predict(with_constant)
    assert np.array_equal(a, b)


def test_starting_elsewhere_ends_in_the_same_place():
    vectors, labels = clouds()
    start = fit_linear(vectors, labels, c=10.0, num_classes=3)
    restarted = fit_linear(vectors, labels, c=0.1, num_classes=3, start=start)
    fresh = fit_linear(vectors, labels, c=0.1, num_classes=3)
    assert restarted.weights.numpy() == pytest.approx(fresh.weights.numpy(), abs=1e-5)
    again = fit_linear(vectors, labels, c=0.1, num_classes=3)
    assert np.array_equal(fresh.weights.numpy(), again.weights.numpy())


def test_validation_chooses_the_regularisation():
    vectors, labels = clouds(count=400, dim=100, spread=4.0)
    train, validation = (vectors[:120], labels[:120]), (vectors[120:], labels[120:])
    seen = []
    chosen = choose_linear(
        train, validation, LinearOptions(), num_classes=3, on_fit=lambda *n: seen.append(n)
    )
    values = {
        c: (fit_linear(*train, c=c, num_classes=3).predict(validation[0]) == labels[120:]).mean()
        for c in LinearOptions().regularisations
    }
    assert chosen.c == min(c for c, value in values.items() if value == max(values.values()))
    assert len(set(values.values())) > 2
    assert seen[-1] == (6, 6)


def test_without_validation_the_middle_is_taken():
    vectors, labels = clouds()
    nothing = vectors[:0], labels[:0]
    options = LinearOptions(regularisations=(0.1, 1.0, 10.0))
    assert choose_linear((vectors, labels), nothing, options, num_classes=3).c == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "are empty; give one number above 0 or more"),
        ((0.0,), r"regularisations\[0\] is 0.0; expected a finite number above 0"),
        ((1.0, -1.0), r"regularisations\[1\] is -1.0; expected a finite number above 0"),
        ((float("inf"),), r"regularisations\[0\] is inf; expected a finite number"),
    ],
)
def test_regularisations_out_of_range_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        LinearOptions(regularisations=given)
