"""The decoder and its targets: native resolution, exact masks, one modality at a time."""

from __future__ import annotations

import pytest
import torch

from salibi_model.models.config import TRI_ENCODER
from salibi_model.nn.decoder import anchor_order, sincos_positions
from salibi_model.nn.patches import patchify, take, unpatchify
from tests.support.model.nano import nano_images, nano_masks, nano_model


def test_first_anchor_predicts_the_four_patches_it_covers():
    order = anchor_order((16, 16), 2)
    assert [order.tolist().index(prediction) for prediction in range(4)] == [0, 1, 32, 33]


@pytest.mark.parametrize(("grid", "fineness"), [((2, 3), 1), ((2, 3), 2), ((3, 2), 4)])
def test_each_prediction_lies_within_its_anchor(grid, fineness):
    rows, cols = grid
    order = anchor_order(grid, fineness).reshape(rows * fineness, cols * fineness)
    assert sorted(order.flatten().tolist()) == list(range(order.numel()))
    for y in range(rows * fineness):
        for x in range(cols * fineness):
            anchor = (y // fineness) * cols + x // fineness
            assert int(order[y, x]) // fineness**2 == anchor


def test_positions_are_in_the_ground_frame():
    xy = torch.tensor([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    embedded = sincos_positions(xy, 16)
    assert embedded.shape == (3, 16)
    assert torch.pdist(embedded).min() > 0.1
    torch.testing.assert_close(sincos_positions(xy[:1], 16), embedded[:1])


def test_patchify_is_row_major_and_undone():
    images = torch.arange(2 * 3 * 32 * 48).reshape(2, 3, 32, 48)
    patches = patchify(images, 16)
    assert patches.shape == (2, 6, 768)
    torch.testing.assert_close(patches[0, 1].reshape(3, 16, 16), images[0, :, :16, 16:32])
    assert torch.equal(unpatchify(patches, (2, 3), 16), images)


def test_take_picks_rows_per_sample():
    rows = torch.arange(24).reshape(2, 4, 3)
    index = torch.tensor([[3, 0], [1, 1]])
    assert take(rows, index).tolist() == [[[9, 10, 11], [0, 1, 2]], [[15, 16, 17], [15, 16, 17]]]


def test_exactly_the_removed_patches_are_predicted():
    model, images = nano_model(), nano_images(batch=2)
    shapes = {}

    def keep(_module, _inputs, predicted):
        shapes.update({name: tuple(values.shape) for name, values in predicted.items()})

    model.decoder.register_forward_hook(keep)
    model(images, nano_masks(model, images))
    assert shapes == {"sar": (2, 12, 512), "lores": (2, 12, 768), "hires_4x": (2, 48, 768)}


@pytest.mark.parametrize("name", TRI_ENCODER)
def test_loss_sees_every_pixel_of_removed_patches_and_no_other(name):
    """Of the high-resolution image as well, where every second row and column was dropped."""
    model, images = nano_model(), nano_images(batch=1)
    masks = nano_masks(model, images)
    before = model(images, masks)
    grid = (int(images[name].shape[2] / 16), int(images[name].shape[3] / 16))
    for pixel in (0, 1, 16, 17, 255):
        changed = patchify(images[name], 16).clone()
        target = int(masks[name].removed[0, pixel % 5])
        changed[0, target, pixel] = 255 - changed[0, target, pixel].clamp(1, 200)
        after = model({**images, name: unpatchify(changed, grid, 16)}, masks)
        for other in TRI_ENCODER:
            key = f"reconstruction_{other}"
            assert (after[key] != before[key]) == (other == name), (other, pixel)
        torch.testing.assert_close(after["contrastive"], before["contrastive"])


def test_one_modality_does_not_normalise_another():
    """Targets are normalised per modality: another's contrast changes nothing."""
    model, images = nano_model(), nano_images(batch=1)
    masks = nano_masks(model, images)
    removed = masks["lores"].removed[0]
    flat = patchify(images["lores"], 16).clone()
    flat[0, removed] = flat[0, removed] // 4 + 1
    dimmed = {**images, "lores": unpatchify(flat, (4, 4), 16)}
    before, after = model(images, masks), model(dimmed, masks)
    torch.testing.assert_close(after["reconstruction_sar"], before["reconstruction_sar"])
    torch.testing.assert_close(after["reconstruction_hires_4x"], before["reconstruction_hires_4x"])
    # its own target is the same but for rounding: per patch, contrast cancels
    torch.testing.assert_close(
        after["reconstruction_lores"], before["reconstruction_lores"], atol=0.02, rtol=0
    )


def test_nodata_is_no_target():
    model, images = nano_model(), nano_images(batch=1)
    masks = nano_masks(model, images)
    hidden = patchify(images["sar"], 16).clone()
    hidden[0, masks["sar"].removed[0]] = 0
    losses = model({**images, "sar": unpatchify(hidden, (4, 4), 16)}, masks)
    assert losses["reconstruction_sar"] == 0
    assert losses["loss"].isfinite()
