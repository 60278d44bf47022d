"""Collapse meters: against plain formulas, and at their ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salibi_model.training.monitoring.collapse import MIN_FEATURE_STD, effective_rank, feature_std


def test_equal_embeddings_have_neither_spread_nor_rank():
    alike = torch.ones(16, 8) * torch.linspace(1, 3, 16)[:, None]  # the length says nothing
    assert feature_std(alike) < MIN_FEATURE_STD
    assert effective_rank(alike) == 0.0


def test_directions_drawn_evenly_have_all_of_both():
    drawn = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    assert feature_std(drawn) == pytest.approx(1.0, abs=0.02)
    assert effective_rank(drawn) == pytest.approx(16, abs=0.2)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_rank_counts_directions(rank):
    rng = np.random.default_rng(rank)
    axes = np.linalg.qr(rng.normal(size=(12, rank)))[0]
    signs = np.concatenate([np.eye(rank), -np.eye(rank)])
    assert effective_rank(torch.from_numpy(signs @ axes.T)) == pytest.approx(rank)


def test_rank_is_that_of_the_formula():
    rows = np.random.default_rng(1).normal(size=(40, 6)) * [5, 3, 1, 1, 0.3, 0.1]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    values = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0))
    share = values / values.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(torch.from_numpy(rows)) == pytest.approx(expected)
    assert feature_std(torch.from_numpy(rows)) == pytest.approx(unit.std(axis=0).mean() * 6**0.5)
