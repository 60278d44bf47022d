"""Retrieval against plain loops, and reconstruction panels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nano import nano_model

from salibi_model.errors import StoreError
from salibi_model.evaluate import ranks, recalls, retrieval
from salibi_model.inpaint import HIDDEN, reconstruct
from salibi_model.patches import patchify


def test_ranks_are_those_of_a_plain_sort():
    queries, gallery = torch.randn(20, 8), torch.randn(20, 8)
    for i, found in enumerate(ranks(queries, gallery)):
        scores = [float(queries[i] @ gallery[j]) for j in range(20)]
        assert sorted(scores, reverse=True).index(scores[i]) == found


def test_equal_embeddings_score_zero():
    same = torch.ones(10, 4)
    assert ranks(same, same).tolist() == [9] * 10


def test_recalls_and_intervals():
    at1, at5 = recalls(np.array([0] * 30 + [3] * 30 + [9] * 40), np.random.default_rng(0))
    assert (at1.k, at1.hits, at1.value, at1.chance) == (1, 30, 0.3, 0.01)
    assert (at5.k, at5.hits, at5.value, at5.chance) == (5, 60, 0.6, 0.05)
    # normal approximation: 0.3 +- 1.96 * sqrt(0.3 * 0.7 / 100)
    assert at1.low == pytest.approx(0.21, abs=0.02)
    assert at1.high == pytest.approx(0.39, abs=0.02)


def test_retrieval_goes_in_every_direction(small_store):
    seen = []
    report = retrieval(nano_model(), small_store, on_sample=lambda *counts: seen.append(counts))
    assert report.num_samples == 6
    assert {(d.query, d.gallery) for d in report.directions} == {
        (a, b) for a in ("sar", "lores", "hires_4x") for b in ("sar", "lores", "hires_4x") if a != b
    }
    assert seen[-1] == (18, 18)
    assert report.to_dict()["directions"][0]["recalls"][0]["chance"] == pytest.approx(1 / 6)


def test_an_empty_split_is_explained(small_store):
    with pytest.raises(StoreError, match="no samples in the split 'test'"):
        retrieval(nano_model(), small_store, split="test")
    with pytest.raises(StoreError, match="no samples in the split 'test'"):
        reconstruct(nano_model(), small_store, split="test")


def test_panels_show_what_was_seen(small_store):
    rows = reconstruct(nano_model(), small_store, num_samples=2).shown
    assert [(row.sample, row.modality.name) for row in rows] == [
        (sample, name) for sample in (10, 15) for name in ("sar", "lores", "hires_4x")
    ]
    for row in rows:
        layers = {
            key: patchify(torch.from_numpy(getattr(row, key))[None], 16)[0]
            for key in ("original", "masked", "predicted", "composite")
        }
        removed = (layers["masked"] == HIDDEN).all(dim=1)
        assert removed.float().mean() == pytest.approx(0.75, abs=0.01)
        assert torch.equal(layers["composite"][removed], layers["predicted"][removed])
        assert torch.equal(layers["composite"][~removed], layers["original"][~removed])
        assert torch.equal(layers["masked"][~removed], layers["original"][~removed])
        assert row.predicted.dtype == np.uint8


def test_a_perfect_prediction_is_the_original(small_store, monkeypatch):
    """Per-patch normalised targets, brought back, are the stored values."""
    from salibi_model.losses import normalised_target
    from salibi_model.pretrain import ScaleAlibi

    def oracle(self, images, _masks, _names=None):
        return {
            name: normalised_target(*self.encoder(name).normalise(patchify(image, 16)))
            for name, image in images.items()
        }

    monkeypatch.setattr(ScaleAlibi, "predict_patches", oracle)
    report = reconstruct(nano_model(), small_store, num_samples=1)
    for error in report.errors:
        assert error.rmse < 1e-4 < error.flat_rmse
    for row in report.shown:
        assert np.array_equal(row.predicted, row.original), row.modality.name
