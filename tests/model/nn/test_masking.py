"""Masks: exact counts, independence, and the seed that decides them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_model.nn.masking import num_removed, random_masks

TOKENS = {"sar": 256, "lores": 256, "hires_4x": 1024}


def test_mask_ratio_is_the_share_removed():
    masks = random_masks(TOKENS, 0.75, [1, 2])
    assert {name: mask.kept.shape[1] for name, mask in masks.items()} == {
        "sar": 64,
        "lores": 64,
        "hires_4x": 256,
    }
    assert masks["hires_4x"].removed.shape == (2, 768)


@given(count=st.integers(4, 200), ratio=st.floats(0.15, 0.85), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=40, deadline=None)
def test_every_patch_is_kept_or_removed_once(count, ratio, seed):
    mask = random_masks({"sar": count}, ratio, [seed])["sar"]
    assert mask.removed.shape[1] == num_removed(count, ratio)
    together = torch.cat([mask.kept, mask.removed], dim=1)[0]
    assert sorted(together.tolist()) == list(range(count))


def test_modalities_are_masked_independently():
    masks = random_masks({"sar": 256, "lores": 256}, 0.5, range(50))
    shared = [
        len(set(a) & set(b))
        for a, b in zip(masks["sar"].kept.tolist(), masks["lores"].kept.tolist(), strict=True)
    ]
    assert 59 < sum(shared) / len(shared) < 69  # 64 expected of independent draws


def test_a_sample_has_the_same_mask_in_any_batch():
    alone = random_masks(TOKENS, 0.75, [7])
    within = random_masks(TOKENS, 0.75, [3, 7, 9])
    for name in TOKENS:
        assert torch.equal(alone[name].kept[0], within[name].kept[1])
        assert not torch.equal(within[name].kept[0], within[name].kept[1])


def test_kept_patches_of_two_modalities_are_not_paired_by_place():
    """Their order is random, so that the n-th of one and the n-th of another are no neighbours."""
    masks = random_masks({"sar": 256, "lores": 256}, 0.75, range(40))
    rows = [masks[name].kept.double().flatten() for name in masks]
    assert abs(float(torch.corrcoef(torch.stack(rows))[0, 1])) < 0.1


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.0, 75.0, float("nan"), float("inf")])
def test_a_ratio_that_keeps_or_removes_nothing_is_refused(ratio):
    with pytest.raises(UsageError, match="share to"):
        num_removed(256, ratio)
