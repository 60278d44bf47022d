"""The losses against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from salibi_model.nn.losses import info_nce, masked_mse, normalised_target, patch_statistics


def unit(rows, dim, seed):
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)))


def alone(left, right, scale, rows=slice(None), counted=None):
    """The loss of the samples in ``rows``, as a rank that has these has it."""
    return info_nce(
        left[rows],
        right[rows],
        all_left=left,
        all_right=right,
        scale=torch.tensor(scale),
        offset=rows.start or 0,
        all_compared=counted,
    )


def test_info_nce_is_the_mean_of_both_directions():
    left, right, scale = unit(5, 8, 0), unit(5, 8, 1), 14.0
    logits = [[scale * float(a @ b) for b in right] for a in left]
    expected = 0.0
    for i in range(5):
        row = sum(math.exp(value) for value in logits[i])
        column = sum(math.exp(logits[j][i]) for j in range(5))
        expected -= (2 * logits[i][i] - math.log(row) - math.log(column)) / 10
    assert alone(left, right, scale).item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_is_small_for_matches_and_log_n_for_equal_vectors():
    match = unit(6, 16, 2)
    assert alone(match, match, 100.0) < 0.01
    same = torch.ones(6, 16) / 4
    assert alone(same, same, 14.0).item() == pytest.approx(math.log(6), rel=1e-5)


def test_ranks_together_have_the_loss_of_the_whole_batch():
    left, right = unit(6, 8, 3), unit(6, 8, 4)
    whole = alone(left, right, 10.0)
    parts = [alone(left, right, 10.0, slice(i, i + 3)) for i in (0, 3)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_targets_have_mean_0_and_variance_1_within_each_patch():
    patches = torch.randn(2, 5, 48) * 7 + 3
    target = normalised_target(patches, torch.ones_like(patches, dtype=torch.bool))
    torch.testing.assert_close(target.mean(dim=2), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(dim=2, correction=0), torch.ones(2, 5))


def test_nodata_has_no_part_in_targets_or_loss():
    patches = torch.randn(1, 1, 8)
    valid = torch.tensor([[[True] * 5 + [False] * 3]])
    patches = patches.masked_fill(~valid, 0.0)
    mean, variance = patch_statistics(patches, valid)
    seen = patches[0, 0, :5]
    torch.testing.assert_close(mean.squeeze(), seen.mean())
    torch.testing.assert_close(variance.squeeze(), seen.var(correction=0) + 1e-6)
    target = normalised_target(patches, valid)
    predicted = target + valid.float() + (~valid).float() * 1000
    assert masked_mse(predicted, target, valid).item() == pytest.approx(1.0)


def test_a_sample_without_valid_values_adds_nothing():
    target, valid = torch.zeros(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool)
    valid[1] = False
    assert masked_mse(target + 2, target, valid).item() == pytest.approx(2.0)  # (4 + 0) / 2


def test_samples_that_were_not_observed_are_neither_asked_nor_an_answer():
    left, right = unit(6, 8, 5), unit(6, 8, 6)
    left[[1, 4]] = 0
    counted = torch.tensor([True, False, True, True, False, True])
    expected = alone(left[counted], right[counted], 10.0)
    left.requires_grad_()
    loss = alone(left, right, 10.0, counted=counted)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not left.grad[~counted].any()
    halves = [alone(left, right, 10.0, slice(i, i + 3), counted) for i in (0, 3)]
    torch.testing.assert_close(sum(halves) / 2, expected)
    nobody = alone(left, right, 10.0, counted=torch.zeros(6, dtype=torch.bool))
    assert nobody == 0
