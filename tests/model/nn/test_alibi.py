"""The biases against the paper's formula, written as plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias, slopes
from tests.support.model.alibi_loops import bias_by_loop, slopes_by_rule


@pytest.mark.parametrize("num_heads", range(1, 17))
def test_slopes_follow_the_rule_of_the_paper(num_heads):
    torch.testing.assert_close(slopes(num_heads), torch.tensor(slopes_by_rule(num_heads)))


def test_slopes_of_eight_heads():
    assert slopes(8).tolist() == [2.0**-k for k in range(1, 9)]


def test_no_heads_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        slopes(0)


@given(
    num_heads=st.integers(1, 16),
    ratios=st.sampled_from([(1.0, 1.0), (0.5, 0.5), (1.0, 0.5), (0.5, 1.0), (1.0, 0.25)]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_bias_of_kept_patches_is_the_formula(num_heads, ratios, data):
    query_ratio, key_ratio = ratios
    cols = (round(4 / query_ratio), round(4 / key_ratio))
    kept = [
        data.draw(st.lists(st.integers(0, 4 * c - 1), min_size=1, max_size=5, unique=True))
        for c in cols
    ]
    query_xy = patch_centres((4, cols[0]), query_ratio)[kept[0]][None]
    key_xy = patch_centres((4, cols[1]), key_ratio)[kept[1]][None]
    expected = bias_by_loop(
        *kept,
        query_cols=cols[0],
        key_cols=cols[1],
        query_ratio=query_ratio,
        key_ratio=key_ratio,
        num_heads=num_heads,
    )
    bias = scale_alibi_bias(query_xy, key_xy, num_heads)
    assert bias.shape == (1, num_heads, len(kept[0]), len(kept[1]))
    torch.testing.assert_close(bias[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_low_resolution_patch_is_equally_far_from_the_four_it_covers():
    coarse, fine = patch_centres((16, 16), 1.0)[None], patch_centres((32, 32), 0.5)[None]
    bias = scale_alibi_bias(coarse, fine, 1)[0, 0]
    covered = bias[0, [0, 1, 32, 33]]
    assert covered.unique().numel() == 1
    assert covered[0] > bias[0, [i for i in range(1024) if i not in (0, 1, 32, 33)]].max()


def test_finer_image_halves_every_bias():
    coarse, fine = patch_centres((5, 7), 1.0)[None], patch_centres((5, 7), 0.5)[None]
    torch.testing.assert_close(
        scale_alibi_bias(fine, fine, 8), scale_alibi_bias(coarse, coarse, 8) / 2
    )


def test_centres_are_row_major_x_before_y():
    assert patch_centres((2, 3), 1.0).tolist() == [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
    ]


def test_each_sample_may_have_its_own_ratio():
    ratios = torch.tensor([1.0, 0.5, 0.25])
    together = patch_centres((3, 4), ratios)
    assert together.shape == (3, 12, 2)
    for row, ratio in zip(together, ratios.tolist(), strict=True):
        torch.testing.assert_close(row, patch_centres((3, 4), ratio))
