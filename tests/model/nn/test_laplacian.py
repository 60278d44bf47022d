"""Targets of two frequencies, against plain loops: pyramids, and pixels without observation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salibi_model.models.scale_mae import ScaleMae
from salibi_model.nn.laplacian import enlarge, frequency_targets
from salibi_model.nn.targets import shrink
from tests.support.model.nano import nano_images
from tests.support.model.nano_scale_mae import nano, nano_masks
from tests.support.model.stores import describe

# Targets


def blur_by_loop(image, cell, size):
    """Cell means, then bilinear interpolation between cell centres, pixel by pixel."""
    rows, cols = image.shape[0] // cell, image.shape[1] // cell
    means = [
        [
            float(image[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].mean())
            for c in range(cols)
        ]
        for r in range(rows)
    ]
    blurred = torch.zeros(size, size, dtype=torch.float64)
    for y in range(size):
        for x in range(size):
            row, col = ((edge + 0.5) * rows / size - 0.5 for edge in (y, x))
            total = 0.0  # a tensor would take microseconds for each addition
            for r in range(rows):
                for c in range(cols):
                    # Beyond the outer centres, the outer cells hold.
                    near_row = max(0.0, 1 - abs(min(max(row, 0), rows - 1) - r))
                    near_col = max(0.0, 1 - abs(min(max(col, 0), cols - 1) - c))
                    total += near_row * near_col * means[r][c]
            blurred[y, x] = total
    return blurred


def test_targets_are_a_pyramid_by_loop():
    """Low: one value per patch of the input. High: what a mean of 8 px leaves over."""
    image = torch.randn(1, 1, 64, 64)
    targets = frequency_targets(image, torch.ones_like(image, dtype=torch.bool), 16)
    assert targets.low.shape == (1, 1, 32, 32)
    assert targets.high.shape == (1, 1, 64, 64)
    low, blurred = blur_by_loop(image[0, 0], 32, 32), blur_by_loop(image[0, 0], 8, 64)
    torch.testing.assert_close(targets.low[0, 0].double(), low, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        targets.high[0, 0].double(), image[0, 0].double() - blurred, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("patch_px", [8, 16])
def test_high_frequencies_and_the_level_below_are_the_image(patch_px):
    image = torch.randn(2, 3, 64, 96)
    valid = torch.ones_like(image, dtype=torch.bool)
    level = enlarge(*shrink(image, valid, patch_px // 2), (64, 96))
    targets = frequency_targets(image, valid, patch_px)
    torch.testing.assert_close(targets.high + level, image)
    assert targets.high.mean().abs() < 1e-2 * image.std()


def test_a_flat_image_is_all_low():
    image = torch.full((1, 1, 64, 64), 3.0)
    targets = frequency_targets(image, torch.ones_like(image, dtype=torch.bool), 16)
    torch.testing.assert_close(targets.low, torch.full((1, 1, 32, 32), 3.0))
    torch.testing.assert_close(targets.high, torch.zeros(1, 1, 64, 64), atol=1e-6, rtol=0)


# Nodata


def test_averages_are_over_valid_pixels():
    image, valid = torch.randn(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, :2, 2:] = False
    valid[0, 0, 2, 0] = False
    means, some = shrink(image, valid, 2)
    pixels = image[0, 0]
    expected = [
        [float(pixels[:2, :2].mean()), 0.0],
        [float((pixels[2, 1] + pixels[3, 0] + pixels[3, 1]) / 3), float(pixels[2:, 2:].mean())],
    ]
    torch.testing.assert_close(means[0, 0], torch.tensor(expected))
    assert some[0, 0].tolist() == [[True, False], [True, True]]


def test_what_lies_behind_nodata_changes_no_target():
    image = torch.randn(1, 1, 64, 64)
    valid = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    valid[0, 0, :40, :40] = False
    other = torch.where(valid, image, 1e3 * torch.randn(1, 1, 64, 64))
    for first, second in zip(
        frequency_targets(image, valid, 16), frequency_targets(other, valid, 16), strict=True
    ):
        assert torch.equal(first, second)


def test_nodata_does_not_dim_what_is_near_it():
    """A flat image with holes is flat where it is valid: no shadow of zeros."""
    image, valid = torch.full((1, 1, 64, 64), 3.0), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    valid[0, 0, :40, 8:50] = False
    targets = frequency_targets(image, valid, 16)
    torch.testing.assert_close(targets.high, torch.zeros(1, 1, 64, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.low, torch.full((1, 1, 32, 32), 3.0))


def test_the_value_of_nodata_does_not_matter():
    """Two stores that mark the same pixels with other values have the same loss."""
    images = nano_images(2, ["lores"])["lores"].clamp(10, 240)
    hidden = torch.zeros_like(images, dtype=torch.bool)
    hidden[:, :, 3:20, 5:41] = True
    losses = []
    for nodata in (0, 7, 255):
        model = nano(["lores"])
        modality = replace(describe("lores"), nodata=nodata)
        torch.manual_seed(0)
        model = ScaleMae(replace(model.config, modalities=(modality,)))
        marked = {"lores": images.masked_fill(hidden, nodata)}
        losses.append(model(marked, nano_masks(model, marked)))
    for name, loss in losses[0].items():
        assert loss == losses[1][name] == losses[2][name], name
