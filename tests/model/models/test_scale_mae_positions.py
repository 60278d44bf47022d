"""Position codes scaled by the ground sample distance, against the paper's equation."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.model.nano import SIZE
from tests.support.model.nano_scale_mae import nano, nano_batch, random_pixels

# Positions


def positions_by_equation(rows, cols, ratio, dim):
    """Equations 3 and 4 by loops: g / G is ``ratio``, half of the channels for each axis."""
    axis_dim = dim // 2
    positions = torch.zeros(rows * cols, dim, dtype=torch.float64)
    for row in range(rows):
        for col in range(cols):
            for axis, index in enumerate((col, row)):
                for i in range(axis_dim // 2):
                    angle = ratio * (index + 0.5) / 10_000 ** (2 * i / axis_dim)
                    token, first = row * cols + col, axis * axis_dim
                    positions[token, first + i] = math.sin(angle)
                    positions[token, first + axis_dim // 2 + i] = math.cos(angle)
    return positions


@pytest.mark.parametrize("ratio", [1.0, 0.5, 3.0])
def test_positions_are_those_of_the_paper(ratio):
    """What is added to embedded patches: seen where nothing else is, before the first block."""
    model = nano().eval()
    torch.nn.init.zeros_(model.embed.weight)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encode(random_pixels(1, 3, 32, 48), "lores", ratio)
    expected = positions_by_equation(2, 3, ratio, SIZE.dim)
    torch.testing.assert_close(seen[0][0].double(), expected, atol=1e-5, rtol=0)


def test_twice_the_gsd_and_half_the_pixels_is_the_same_ground():
    model = nano()
    fine = model.centres((4, 4), 1.0, torch.device("cpu")).reshape(4, 4, 2)
    coarse = model.centres((2, 2), 2.0, torch.device("cpu")).reshape(2, 2, 2)
    for row in range(2):
        for col in range(2):
            covered = fine[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].mean(dim=(0, 1))
            torch.testing.assert_close(coarse[row, col], covered)


def test_training_sees_half_the_pixels_at_twice_the_gsd():
    """The decoder is told the places of the input's patches: lores 2 x 2, hires_4x 4 x 4."""
    model = nano()
    images, masks = nano_batch(model)
    places = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: places.append(inputs[3]))
    model(images, masks)
    assert [tuple(xy.shape) for xy in places] == [(1, 4, 2), (1, 16, 2)]
    assert places[0][0].tolist() == [[1, 1], [3, 1], [1, 3], [3, 3]]
    assert places[1][0, :5].tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5], [0.5, 1.5]]


def test_tokens_stand_at_their_own_places():
    """Kept patches in the encoder; in the decoder these again, and mask tokens at all others."""
    model = nano().eval()
    torch.nn.init.zeros_(model.embed.weight)
    torch.nn.init.zeros_(model.decoder.embed.weight)
    torch.nn.init.constant_(model.decoder.embed.bias, 5.0)
    torch.nn.init.constant_(model.decoder.mask_token, -7.0)
    seen = []
    for blocks in (model.blocks, model.decoder.blocks):
        blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    images, masks = nano_batch(model, ["hires_4x"])
    model(images, masks)
    kept = masks["hires_4x"].kept
    # The image's GSD ratio of 0.5, doubled: that of the base zoom.
    encoder_places = positions_by_equation(4, 4, 1.0, SIZE.dim)
    decoder_places = positions_by_equation(4, 4, 1.0, SIZE.decoder_dim)
    for sample in range(2):
        torch.testing.assert_close(seen[0][sample], encoder_places[kept[sample]], atol=1e-5, rtol=0)
        for token in range(16):
            content = 5.0 if token in kept[sample] else -7.0
            torch.testing.assert_close(
                seen[1][sample, token], decoder_places[token] + content, atol=1e-5, rtol=0
            )
