"""Each mistake of the authors' model code: ``--compat original`` makes it, Scale-ALiBi does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from salibi_model.models import contrastive as contrast
from salibi_model.models import scale_alibi as pretrain
from salibi_model.models.config import TRI_ENCODER
from salibi_model.models.original import OriginalScaleAlibi
from salibi_model.models.original_parts import pool_mask
from salibi_model.nn.masking import Mask, random_masks
from salibi_model.nn.patches import patchify, take
from tests.support.model.nano import GRID, nano_images, nano_masks, nano_model
from tests.support.model.stores import describe
from tests.support.model.weights.original_models import (
    HEADS,
    gradients,
    ground_bias,
    joint_biases,
    original,
    original_config,
    shuffled,
)
from tests.support.model.weights.reference_models import (
    grid_bias,
    picked_bias,
    removed_table,
    strided_bias,
)


def same_masks(model, images):
    """Masks that are the same for all samples of a batch."""
    return {
        name: Mask(*(index[:1].expand(len(index), -1).contiguous() for index in mask))
        for name, mask in nano_masks(model, images).items()
    }


# 1: hi-res is matched with itself.


@torch.no_grad()
def test_1_hires_of_other_places_cost_the_original_nothing():
    images = nano_images(batch=4)
    exchanged = {**images, "hires_4x": images["hires_4x"].flip(0)}
    for model, alike in ((original(), True), (nano_model(), False)):
        masks = same_masks(model, images)
        before, after = (model(i, masks)["contrastive"] for i in (images, exchanged))
        assert (abs(before - after) < 1e-5) == alike


def test_1_the_loss_is_the_mean_of_three():
    model, images = original(), nano_images(batch=4)
    losses = model(images, nano_masks(model, images))
    parts = [
        losses[f"contrastive_{pair}"] for pair in ("lores_sar", "sar_lores", "hires_4x_hires_4x")
    ]
    assert torch.isclose(losses["contrastive"], sum(parts) / 3)
    assert torch.isclose(losses["loss"], losses["contrastive"] + losses["reconstruction"])


def test_1_no_gradient_reaches_the_columns():
    for model, part, taught in (
        (original(), "contrastive_lores_sar", {"lores"}),
        (original(), "contrastive_sar_lores", {"sar"}),
        (original(), "contrastive_hires_4x_hires_4x", {"hires_4x"}),
        (nano_model(), "contrastive_sar_lores", {"sar", "lores"}),
    ):
        images = nano_images(batch=4)
        model(images, nano_masks(model, images))[part].backward()
        moved = {name for name in TRI_ENCODER if max(gradients(model.projections[name])) > 0}
        assert moved == taught, part


def test_1_the_scale_is_not_clamped():
    for model, scale in ((original(), 1000), (nano_model(), contrast.MAX_SCALE)):
        model.log_scale.data.fill_(math.log(1000))
        assert model.scale.item() == pytest.approx(scale)


# 2: the hi-res head is never used.


def test_2_the_optical_head_serves_hires():
    for model, used in ((original(), "lores"), (nano_model(), "hires_4x")):
        tokens, embedding = model.encode(nano_images()["hires_4x"], "hires_4x")
        assert torch.equal(embedding, model.heads[used](tokens))


def test_2_the_hires_head_learns_nothing():
    for model, learns in ((original(), False), (nano_model(), True)):
        images = nano_images()
        model(images, nano_masks(model, images))["loss"].backward()
        assert (max(gradients(model.heads["hires_4x"])) > 0) == learns
        # Processes of a group wait for a gradient of every parameter.
        assert all(p.grad is not None for p in model.parameters())


# 3: the bias between grids is read at the wrong places.


def test_3_the_bias_between_grids_is_misread():
    model, images = original(), nano_images()
    masks = shuffled(nano_masks(model, images))
    kept = {name: mask.kept for name, mask in masks.items()}
    _, (_, across) = joint_biases(model, images, masks)
    expected = strided_bias(GRID, HEADS, kept["lores"], kept["hires_4x"])
    assert torch.allclose(across.double(), expected, atol=1e-6)


def test_3_scale_alibi_reads_ground_distances():
    model, images = nano_model(), nano_images()
    masks = nano_masks(model, images)
    _, (_, across) = joint_biases(model, images, masks)
    expected = ground_bias(masks["sar"].kept, masks["hires_4x"].kept)
    assert torch.allclose(across.double(), expected, atol=1e-6)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.05), (0.5, 0.04)])
def test_3_the_misread_bias_says_nothing_of_distance(shift, expected):
    """Its correlation with the right one at the published 16x16 and 32x32 patches.

    It is 0.05 with distances between the patches' corners, 0.04 between their centres.
    """
    every = {"lores": torch.arange(256)[None], "hires_4x": torch.arange(1024)[None]}
    misread = original()._cross_scale_bias(every, (16, 16))[0, 0]
    base, fine = torch.arange(256)[:, None], torch.arange(1024)[None]
    x = (base % 16 + shift) - (fine % 32 + shift) / 2
    y = (base // 16 + shift) - (fine // 32 + shift) / 2
    right = -torch.hypot(x, y)
    correlation = torch.corrcoef(torch.stack([misread.flatten(), right.flatten()]))[0, 1]
    assert correlation.item() == pytest.approx(expected, abs=0.002)


# 4: optical positions in the joint encoder.


def test_4_self_attention_has_the_bias_between_sar_and_optical():
    images = nano_images()
    for model in (original(), nano_model()):
        masks = shuffled(nano_masks(model, images))
        sar, lores = masks["sar"].kept, masks["lores"].kept
        keys = lores if isinstance(model, OriginalScaleAlibi) else sar
        expected = picked_bias(grid_bias(GRID, HEADS), sar, keys)
        for self_bias, _ in joint_biases(model, images, masks):
            assert torch.allclose(self_bias.double(), expected, atol=1e-6)


def test_4_the_second_step_asks_from_optical_positions():
    images = nano_images()
    for model, moves in ((original(), True), (nano_model(), False)):
        masks = shuffled(nano_masks(model, images))
        moved = {**masks, "lores": Mask(masks["lores"].kept.flip(1), masks["lores"].removed)}
        before, after = (joint_biases(model, images, m)[1][1] for m in (masks, moved))
        assert torch.equal(before, after) != moves


def test_4_the_order_of_kept_patches_matters_and_is_the_samples_own():
    model, images = original(), nano_images(batch=4)
    masks = nano_masks(model, images)
    state = torch.get_rng_state()
    losses = model(images, masks)
    assert torch.equal(torch.get_rng_state(), state)
    assert losses["reconstruction"] == model(images, masks)["reconstruction"]
    assert losses["reconstruction"] != model(images, shuffled(masks))["reconstruction"]


@torch.no_grad()
def test_4_the_order_is_nothing_to_scale_alibi():
    """The n-th SAR patch meets the n-th optical patch in the original alone."""
    images = nano_images()
    for model, matters in ((original(), True), (nano_model(), False)):
        masks = random_masks(model.num_tokens(images), 0.5, range(3))
        plain, mixed = (fused_by_place(model, images, m) for m in (masks, shuffled(masks)))
        assert ((plain - mixed).abs().max() > 1e-3) == matters
        assert matters or torch.allclose(plain, mixed, atol=1e-5)


def fused_by_place(model, images, masks):
    """What the joint encoder gives for the kept SAR patches, in order of place."""
    seen = []
    hook = model.joint.norm.register_forward_hook(lambda _, __, out: seen.append(out))
    model(images, masks)
    hook.remove()
    return take(seen[-1], masks["sar"].kept.argsort(dim=1))


# 5: the hi-res target is decimated, its mask max-pooled.


def stacked_target(images):
    """What the original is to predict of a 4x4 grid of patches: low-res, SAR, hi-res."""
    model = original()
    masks = nano_masks(model, images)
    truths = {
        name: model.reconstruction_target(
            name, patchify(images[name], 16), masks[name].removed, (GRID, GRID)
        )
        for name in ("lores", "sar", "hires_4x")
    }
    return torch.cat(list(model._normalise_targets(truths).values()), dim=2)


def test_5_three_pixels_of_four_are_no_target(monkeypatch):
    images = nano_images()
    odd = {**images, "hires_4x": images["hires_4x"].clone()}
    odd["hires_4x"][:, :, 1::2] = 7
    odd["hires_4x"][:, :, :, 1::2] = 7
    assert torch.equal(stacked_target(images), stacked_target(odd))
    before, after = (seen_by_the_loss(monkeypatch, i)["hires_4x"] for i in (images, odd))
    assert not torch.equal(before, after)


def seen_by_the_loss(monkeypatch, images):
    """The targets that Scale-ALiBi's reconstruction loss is given, per modality."""
    targets = []
    keep = pretrain.masked_mse
    model = nano_model()
    with monkeypatch.context() as patch:
        patch.setattr(
            pretrain, "masked_mse", lambda p, t, *rest: targets.append(t) or keep(p, t, *rest)
        )
        model(images, nano_masks(model, images))
    return dict(zip(TRI_ENCODER, targets, strict=True))


def test_5_a_patch_counts_as_removed_if_any_of_its_four_is(monkeypatch):
    model, images = original(), nano_images()
    masks = nano_masks(model, images)
    for name, fineness in (("sar", 1), ("lores", 1), ("hires_4x", 2)):
        removed = pool_mask(masks[name].removed, (GRID, GRID), fineness)
        assert torch.equal(removed, removed_table(masks[name].kept, GRID, name))
    # Scale-ALiBi compares what was removed, patch by patch of its own grid.
    assert seen_by_the_loss(monkeypatch, images)["hires_4x"].shape[1] == 3 * (2 * GRID) ** 2 // 4


def test_5_most_patches_count_as_removed():
    """87 % at the published ratio of 0.4."""
    removed = torch.stack([torch.randperm(1024)[:410] for _ in range(50)])
    assert pool_mask(removed, (16, 16), 2).float().mean().item() == pytest.approx(0.87, abs=0.01)


# 6: raw inputs, targets normalised across sensors.


def test_6_inputs_are_raw_nodata_included():
    patches = torch.tensor([[[0, 1, 255, 128] * 128]], dtype=torch.uint8)
    raw, _ = original().encoder("sar").normalise(patches)
    normalised, valid = nano_model().encoder("sar").normalise(patches)
    assert torch.equal(raw, patches.float())
    assert normalised[0, 0, 1] == pytest.approx((1 - 120) / 50)
    assert not valid[0, 0, 0]


def test_6_what_the_store_says_of_its_values_is_ignored():
    bright = tuple(replace(m, mean=(9.0,) * len(m.bands)) for m in map(describe, TRI_ENCODER))
    other = OriginalScaleAlibi(replace(original_config(), modalities=bright))
    assert other.config == original().config
    assert {value for m in other.config.modalities for value in m.mean} == {0.0}


def test_6_one_sensor_changes_the_target_of_another(monkeypatch):
    images = nano_images()
    dark = {**images, "lores": images["lores"] // 4 + 1}
    pixels = 16 * 16
    before, after = (stacked_target(i)[:, :, 3 * pixels : 5 * pixels] for i in (images, dark))
    assert not torch.allclose(before, after, atol=1e-2)
    before, after = (seen_by_the_loss(monkeypatch, i)["sar"] for i in (images, dark))
    assert torch.equal(before, after)


def test_6_the_variance_is_unbiased_over_all_sensors():
    images = nano_images(batch=1)
    sensors = (images["lores"], images["sar"], images["hires_4x"][:, :, ::2, ::2])
    stacked = torch.cat(sensors, dim=1)
    first = stacked[0, :, :16, :16].flatten().double()
    deviation = (((first - first.mean()) ** 2).sum() / (len(first) - 1) + 1e-6).sqrt()
    expected = (first - first.mean()) / deviation
    assert torch.allclose(stacked_target(images)[0, 0].double(), expected, atol=1e-5)
