"""A head on frozen tokens: what it can learn, what it must leave out, and how it is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from salibi_data.store.errors import UsageError
from salibi_model.evals.features import FrozenModel, MeanColour
from salibi_model.evals.metrics import metric_value
from salibi_model.evals.options import SegmentOptions
from salibi_model.evals.segmentation import (
    LabelledTokens,
    count_pixels,
    fit_head,
    segmentation_loss,
)
from tests.support.model.labelled.labelled_arrays import painted
from tests.support.model.nano import nano_model

RGB = ("red", "green", "blue")


pytestmark = pytest.mark.usefixtures("one_thread")


def options(head="linear", **changes):
    return SegmentOptions(**{"head": head, "epochs": 12, "rate": 0.02, "width": 16} | changes)


def miou(frozen, chosen, **cache):
    head = fit_head(LabelledTokens(frozen, "train", **cache), chosen, num_classes=2)
    counts = count_pixels(head, LabelledTokens(frozen, "test"), num_classes=2)
    return metric_value("miou", counts), counts, head


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_what_tokens_tell_apart_is_learned(head):
    value, counts, _ = miou(MeanColour(painted(), RGB), options(head))
    assert value > 0.85
    assert counts.shape == (8, 2, 3)
    # A row of each image is not labelled.
    assert counts[:, :, [0, 2]].sum() == 8 * 47 * 48


def test_a_models_tokens_serve_as_well():
    value, _, _ = miou(FrozenModel(nano_model().eval(), painted(), "lores"), options())
    assert value > 0.7


def test_counts_are_those_of_the_predicted_pixels():
    data = painted()
    value, _, head = miou(MeanColour(data, RGB), options(epochs=1))
    tokens, labels = LabelledTokens(MeanColour(data, RGB), "test").take(np.arange(8))
    with torch.inference_mode():
        predicted = head(tokens, (48, 48)).argmax(dim=1)
    known = labels >= 0
    expected = jaccard_score(labels[known].numpy(), predicted[known].numpy(), average="macro")
    assert value == pytest.approx(expected)


def test_the_same_seed_gives_the_same_head_cached_or_not():
    frozen = MeanColour(painted(), RGB)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    _, _, kept = miou(frozen, options(epochs=2))
    _, _, again = miou(frozen, options(epochs=2))
    _, _, read_again = miou(frozen, options(epochs=2), cache_bytes=0)
    _, _, other = miou(frozen, options(epochs=2, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [head.layers[0].weight for head in (kept, again, other, read_again)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    # Other batches are encoded, whose sums are rounded differently.
    assert torch.allclose(weights[0], weights[3], atol=1e-4)


def test_images_are_encoded_once_where_they_fit():
    frozen = MeanColour(painted(), RGB)
    for cache_bytes, expected in ((1 << 30, 24), (1000, 24 * 4)):
        seen = []
        train = LabelledTokens(
            frozen, "train", batch_size=7, cache_bytes=cache_bytes, on_image=seen.append
        )
        fit_head(train, options(epochs=3), num_classes=2)
        assert sum(seen) == expected


def test_order_is_kept_when_some_are_there_already():
    frozen = MeanColour(painted(), RGB)
    fresh = LabelledTokens(frozen, "train", cache_bytes=0)
    kept = LabelledTokens(frozen, "train")
    kept.take(np.array([3, 8]))
    for wanted in ([8, 1, 3], [0, 3], [5]):
        for a, b in zip(kept.take(np.array(wanted)), fresh.take(np.array(wanted)), strict=True):
            assert torch.equal(a, b)


def test_unlabelled_pixels_cost_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 4))
    labels[0] = -1
    loss = segmentation_loss(logits, labels)
    loss.backward()
    assert not logits.grad[0].any()
    expected = torch.nn.functional.cross_entropy(logits[1:], labels[1:])
    assert loss.item() == pytest.approx(expected.item())
    assert segmentation_loss(logits, torch.full_like(labels, -1)).item() == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": "unet"}, "head is 'unet'; expected one of linear, conv"),
        ({"epochs": 0}, "epochs is 0; expected a whole number of 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        SegmentOptions(**given)
