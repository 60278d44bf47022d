"""Each mistake of the authors' model code: ``--compat original`` makes it, Scale-ALiBi does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from salibi_cli.model import app as command_line
from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import describe as described
from salibi_model.checkpoints.files import load_model
from salibi_model.data.store import SampleStore
from salibi_model.evals.reconstruction import reconstruct
from salibi_model.models import config as configuration
from salibi_model.models import contrastive as contrast
from salibi_model.models import scale_alibi as pretrain
from salibi_model.models.config import MISTAKES, TRI_ENCODER, ModelConfig
from salibi_model.models.original import OriginalScaleAlibi
from salibi_model.models.original_parts import Mistake, pooled_mask
from salibi_model.nn import decoder as decoding
from salibi_model.nn.layers import JointBlock
from salibi_model.nn.masking import Mask, random_masks
from salibi_model.nn.patches import patchify, take
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.model.nano import GRID, SIZE, nano_images, nano_masks, nano_model
from tests.support.model.reference_models import (
    cut,
    grid_bias,
    picked_bias,
    removed_table,
    strided_bias,
)
from tests.support.model.stores import describe

HEADS = SIZE.num_heads


def original_config(names=TRI_ENCODER, *, mistakes=MISTAKES, **choices):
    modalities = tuple(map(describe, names))
    return ModelConfig(
        size=SIZE, modalities=modalities, architecture="original", mistakes=mistakes, **choices
    )


def original(*mistakes, seed=0):
    """With these mistakes; by default with all."""
    torch.manual_seed(seed)
    return OriginalScaleAlibi(original_config(mistakes=mistakes or MISTAKES))


def same_masks(model, images):
    """Masks that are the same for all samples of a batch."""
    return {
        name: Mask(*(index[:1].expand(len(index), -1).contiguous() for index in mask))
        for name, mask in nano_masks(model, images).items()
    }


def gradients(module):
    return [0.0 if p.grad is None else float(p.grad.abs().max()) for p in module.parameters()]


def joint_biases(model, images, masks):
    """The biases that each block of the joint encoder is given, step by step."""
    seen = []
    hooks = [
        block.register_forward_pre_hook(lambda _, given: seen.append(given[2:]))
        for block in model.modules()
        if isinstance(block, JointBlock)
    ]
    model(images, masks)
    for hook in hooks:
        hook.remove()
    return [tuple(getattr(bias, "dense", bias) for bias in biases) for biases in seen]


def shuffled(masks):
    """The same patches, the kept ones in another order for each sample."""
    generator = torch.Generator().manual_seed(1)
    mixed = {}
    for name, mask in masks.items():
        order = torch.stack(
            [torch.randperm(mask.kept.shape[1], generator=generator) for _ in mask.kept]
        )
        mixed[name] = Mask(mask.kept.gather(1, order), mask.removed)
    return mixed


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


def ground_bias(base, fine):
    """Distances between centres of base and fine patches in base-zoom patches, by loops."""
    table = []
    for queries, keys in zip(base.tolist(), fine.tolist(), strict=True):
        rows = []
        for q in queries:
            centre = (q // GRID + 0.5, q % GRID + 0.5)
            others = [((k // (2 * GRID) + 0.5) / 2, (k % (2 * GRID) + 0.5) / 2) for k in keys]
            rows.append([math.dist(centre, other) for other in others])
        table.append(
            [[[-(2 ** (-8 * (h + 1) / HEADS)) * d for d in r] for r in rows] for h in range(HEADS)]
        )
    return torch.tensor(table, dtype=torch.float64)


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
        name: model.truth(name, patchify(images[name], 16), masks[name].removed, (GRID, GRID))
        for name in ("lores", "sar", "hires_4x")
    }
    return torch.cat(list(model._targets(truths).values()), dim=2)


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
        found = pooled_mask(masks[name].removed, (GRID, GRID), fineness)
        assert torch.equal(found, removed_table(masks[name].kept, GRID, name))
    # Scale-ALiBi compares what was removed, patch by patch of its own grid.
    assert seen_by_the_loss(monkeypatch, images)["hires_4x"].shape[1] == 3 * (2 * GRID) ** 2 // 4


def test_5_most_patches_count_as_removed():
    """87 % at the published ratio of 0.4."""
    removed = torch.stack([torch.randperm(1024)[:410] for _ in range(50)])
    assert pooled_mask(removed, (16, 16), 2).float().mean().item() == pytest.approx(0.87, abs=0.01)


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


# What the mode refuses, and that it trains.


@pytest.mark.parametrize(
    ("names", "choices", "message"),
    [
        (("sar", "lores"), {}, r"takes sar \(2 bands\).*got sar \(2\), lores \(3\)"),
        (("lores", "sar", "hires_4x"), {}, "in this order"),
        (("sar", "lores", "hires"), {}, "in this order"),
        (TRI_ENCODER, {"objectives": ("contrastive",)}, "no ablations"),
        (TRI_ENCODER, {"pairs": (("sar", "lores"),)}, "no ablations"),
        (TRI_ENCODER, {"fusion": "separate"}, "no ablations"),
        (TRI_ENCODER, {"gsd_scaling": False}, "no ablations"),
        (TRI_ENCODER, {"normalise_patches": False}, "no ablations"),
    ],
)
def test_what_the_original_has_not_is_refused(names, choices, message):
    with pytest.raises(UsageError, match=message):
        OriginalScaleAlibi(original_config(names, **choices))


def test_a_missing_or_hidden_modality_is_refused():
    model, images = original(), nano_images()
    masks = nano_masks(model, images)
    with pytest.raises(UsageError, match="lores is missing or hidden"):
        model({name: image for name, image in images.items() if name != "lores"}, masks)
    hidden = Mask(masks["sar"].kept[:, :0], torch.arange(GRID**2).expand(3, -1))
    with pytest.raises(UsageError, match="sar is missing or hidden"):
        model(images, {**masks, "sar": hidden})


def test_unequal_masks_are_refused():
    model, images = original(), nano_images()
    masks = nano_masks(model, images)
    kept, removed = masks["sar"]
    fewer = Mask(kept[:, 1:], torch.cat([removed, kept[:, :1]], dim=1))
    with pytest.raises(UsageError, match="as many patches"):
        model(images, {**masks, "sar": fewer})


def test_figures_of_its_reconstruction_are_refused(small_store):
    model, images = original(), nano_images()
    with pytest.raises(UsageError, match="reconstruct with a scale-alibi model"):
        model.predict_patches(images, nano_masks(model, images))
    with pytest.raises(UsageError, match="reconstruct with a scale-alibi model"):
        reconstruct(model, small_store, num_samples=1, max_samples=1)


def test_encodings_are_those_of_scale_alibi_on_raw_values():
    """The mistakes are in losses and fusion: an encoder's bias is the same."""
    model = original()
    plain = nano_model(fine_target="base")
    encoders = {k: v for k, v in model.state_dict().items() if k.startswith("encoders.")}
    plain.load_state_dict(encoders, strict=False)
    for name, images in nano_images().items():
        spec = plain.config[name]
        stretched = images * spec.std[0] + spec.mean[0]
        tokens, _ = plain.encode(stretched, name)
        assert torch.allclose(model.encode(images, name)[0], tokens, atol=1e-4)


@pytest.mark.parametrize(
    ("compat", "mistakes"), [("original", MISTAKES), ("original:3", (3,)), ("original:2,6", (2, 6))]
)
def test_it_is_trained_and_loaded_like_any_other(
    small_store, tmp_path, monkeypatch, compat, mistakes
):
    monkeypatch.setitem(configuration.SIZES, "tiny", SIZE)
    config = TrainingConfig(
        stores=(str(small_store),), compat=compat, steps=2, batch_size=4, checkpoint_every=1
    )
    train(config, out=tmp_path)
    model = load_model(tmp_path)
    assert isinstance(model, OriginalScaleAlibi)
    assert model.config.mistakes == mistakes
    assert described(tmp_path)["architecture"] == "original"
    assert described(tmp_path)["mistakes"] == list(mistakes)
    assert [set(m.std) == {1.0} for m in model.config.modalities] == 3 * [6 in mistakes]
    tokens, embedding = model.encode(nano_images()["lores"], "lores")
    assert tokens.shape == (3, GRID**2, SIZE.dim)
    assert torch.equal(embedding, model.heads["lores"](tokens))
    assert train(config, out=tmp_path).metrics == {}


def test_it_can_be_trained():
    model, images = original(), nano_images(batch=4)
    masks = nano_masks(model, images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(images, masks)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])


# Mistakes one by one.


def twin(model, monkeypatch, modalities=None):
    """Scale-ALiBi with base-resolution targets, and the weights of ``model``.

    The layout of the decoder is no mistake: here one linear layer becomes three, and positions
    are integer indices.
    """
    place = decoding.sincos_positions
    monkeypatch.setattr(decoding, "sincos_positions", lambda xy, dim: place(xy - 0.5, dim))
    plain = nano_model(fine_target="base")
    if modalities:
        plain = pretrain.ScaleAlibi(replace(plain.config, modalities=modalities))
    weights = model.state_dict()
    for kind in ("weight", "bias"):
        parts = weights.pop(f"decoder.output.{kind}").split([768, 512, 768])
        for name, part in zip(("lores", "sar", "hires_4x"), parts, strict=True):
            weights[f"decoder.predict.{name}.{kind}"] = part
    plain.load_state_dict(weights)
    return plain


def holed_images(batch=3):
    """Images of which the first has no observation in a corner, nor all of hi-res elsewhere."""
    images = nano_images(batch=batch)
    for name, image in images.items():
        edge = 40 if name == "hires_4x" else 20
        image[0, :, :edge, :edge] = 0
    images["hires_4x"][1, :, 50:77, 61:90] = 0
    return images


def changed_terms(model, plain, images):
    """Which losses of the original differ from those of Scale-ALiBi, of those that both have."""
    masks = nano_masks(plain, images)
    found, expected = model(images, masks), plain(images, masks)
    return {
        name
        for name in found.keys() & expected.keys()
        if not torch.isclose(found[name], expected[name], rtol=2e-5)
    }


def test_without_mistakes_the_losses_are_those_of_scale_alibi(monkeypatch):
    model = original(1)
    model.mistakes = frozenset()  # a configuration without any is refused
    plain, images = twin(model, monkeypatch), holed_images()
    images["sar"][2] = 0
    masks = nano_masks(plain, images)
    assert model(images, masks).keys() == plain(images, masks).keys()
    assert changed_terms(model, plain, images) == set()


MATCHES = {"contrastive", "contrastive_sar_hires_4x", "contrastive_lores_hires_4x"}
ERRORS = {"reconstruction", *(f"reconstruction_{name}" for name in TRI_ENCODER)}


@pytest.mark.parametrize(
    ("mistake", "terms"),
    [
        (1, {"contrastive", "contrastive_sar_lores"}),
        (2, MATCHES),
        (3, ERRORS),
        (4, ERRORS),
        (5, {"reconstruction", "reconstruction_hires_4x"}),
        (6, ERRORS | MATCHES | {"contrastive_sar_lores"}),
    ],
)
def test_each_mistake_changes_its_own_terms(monkeypatch, mistake, terms):
    model = original(mistake)
    for name, parameter in model.named_parameters():
        if name.endswith("output.weight"):
            parameter.data *= 10  # what attention finds matters more than after initialisation
    plain, images = twin(model, monkeypatch), holed_images()
    assert changed_terms(model, plain, images) == {"loss"} | terms
    losses = model(images, nano_masks(model, images))
    renamed = "contrastive_hires_4x_hires_4x" in losses
    assert renamed == (mistake == 1)
    losses["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (max(gradients(model.heads["hires_4x"])) > 0) == (mistake != 2)


def test_6_on_values_that_are_normal_already_changes_the_targets_alone(monkeypatch):
    model = original(6)
    normal = tuple(
        replace(m, mean=(0.0,) * len(m.bands), std=(1.0,) * len(m.bands))
        for m in map(describe, TRI_ENCODER)
    )
    plain = twin(model, monkeypatch, normal)
    assert changed_terms(model, plain, nano_images()) == {"loss"} | ERRORS


def test_1_off_the_scale_is_clamped_and_pairs_are_summed():
    model, images = original(2), nano_images(batch=4)
    losses = model(images, nano_masks(model, images))
    parts = [losses[name] for name in losses if name.startswith("contrastive_")]
    assert torch.isclose(losses["contrastive"], sum(parts))
    model.log_scale.data.fill_(math.log(1000))
    assert model.scale.item() == pytest.approx(contrast.MAX_SCALE)


def test_2_off_each_encoder_has_its_own_head():
    for model, used in ((original(2), "lores"), (original(1, 3, 4, 5, 6), "hires_4x")):
        tokens, embedding = model.encode(nano_images()["hires_4x"], "hires_4x")
        assert torch.equal(embedding, model.heads[used](tokens))


@pytest.mark.parametrize("chosen", [(), (3,), (4,), (3, 4)])
def test_3_and_4_are_independent(chosen):
    model, images = original(1, *chosen), nano_images()
    masks = shuffled(nano_masks(model, images))
    sar, lores, hires = (masks[name].kept for name in TRI_ENCODER)
    base, asking = grid_bias(GRID, HEADS), lores if 4 in chosen else sar
    expected_self = picked_bias(base, sar, lores if 4 in chosen else sar)
    first = picked_bias(base, sar, lores)
    second = strided_bias(GRID, HEADS, asking, hires) if 3 in chosen else ground_bias(asking, hires)
    found = joint_biases(model, images, masks)
    assert len(found) == 2
    for (self_bias, cross_bias), expected in zip(found, (first, second), strict=True):
        assert torch.allclose(self_bias.double(), expected_self, atol=1e-6)
        assert torch.allclose(cross_bias.double(), expected, atol=1e-6)


@torch.no_grad()
def test_4_off_neither_order_nor_number_of_optical_patches_matters():
    model, images = original(1, 2, 3, 5, 6), nano_images()
    masks = nano_masks(model, images)
    state = torch.get_rng_state()
    losses = model(images, masks)
    assert torch.equal(torch.get_rng_state(), state)
    mixed = model(images, shuffled(masks))
    assert torch.isclose(losses["loss"], mixed["loss"], rtol=1e-5)
    kept, removed = masks["lores"]
    fewer = Mask(kept[:, 1:], torch.cat([removed, kept[:, :1]], dim=1))
    assert model(images, {**masks, "lores": fewer})["loss"].isfinite()


@pytest.mark.parametrize("chosen", [(), (5,), (6,), (5, 6)])
@torch.no_grad()
def test_5_and_6_are_independent(chosen):
    """The reconstruction losses, recomputed from the images and the predictions."""
    model, images = original(1, *chosen), holed_images()
    masks = nano_masks(model, images)
    outputs = []
    model.decoder.output.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    losses = model(images, masks)
    expected = errors_by_hand(images, masks, outputs[0].double(), chosen)
    for name, error in expected.items():
        assert losses[f"reconstruction_{name}"].item() == pytest.approx(error.item(), rel=1e-5)


def errors_by_hand(images, masks, predicted, chosen):
    values, counted, valid = {}, {}, {}
    for name in ("lores", "sar", "hires_4x"):
        image, seen = images[name].double(), images[name] != 0
        if 6 in chosen:
            seen = torch.ones_like(seen)
        else:
            image = (image - 120) / 50
        hidden = hidden_by_hand(masks[name].kept, name, pooled=5 in chosen)
        if name == "hires_4x":
            image, seen = halved_by_hand(image, seen, decimate=5 in chosen)
        values[name], valid[name] = cut(image, 16), cut(seen, 16)
        counted[name] = valid[name] & cut(hidden[:, None].expand(seen.shape), 16)
    if 6 in chosen:
        both = torch.cat(list(values.values()), dim=2)
        mean, variance = both.mean(-1, keepdim=True), both.var(-1, keepdim=True)
        statistics = dict.fromkeys(values, (mean, variance))
    else:
        statistics = {name: valid_statistics(values[name], valid[name]) for name in values}
    errors = {}
    for (name, own), shown in zip(
        values.items(), predicted.split([768, 512, 768], dim=2), strict=True
    ):
        mean, variance = statistics[name]
        squared = ((own - mean) / (variance + 1e-6).sqrt() - shown).square()
        pairs = zip(squared, counted[name], strict=True)
        if 5 in chosen and name == "hires_4x":
            errors[name] = squared[counted[name]].mean()
        else:
            errors[name] = sum(e[c].mean() for e, c in pairs) / len(squared)
    return errors


def hidden_by_hand(kept, name, *, pooled):
    """Per sample and pixel of a 64 px image, whether it counts as removed."""
    table = removed_table(kept, GRID, name)
    hidden = torch.zeros(len(kept), 64, 64, dtype=torch.bool)
    for sample, index in enumerate(kept.tolist()):
        for y in range(64):
            for x in range(64):
                if name == "hires_4x" and not pooled:
                    hidden[sample, y, x] = y // 8 * 8 + x // 8 not in index
                else:
                    hidden[sample, y, x] = table[sample, y // 16 * GRID + x // 16]
    return hidden


def halved_by_hand(image, seen, *, decimate):
    if decimate:
        return image[..., ::2, ::2], seen[..., ::2, ::2]
    corners = [(image[..., i::2, j::2], seen[..., i::2, j::2]) for i in (0, 1) for j in (0, 1)]
    count = sum(valid.double() for _, valid in corners)
    total = sum(part * valid for part, valid in corners)
    return total / count.clamp(min=1), count > 0


def valid_statistics(values, valid):
    """Mean and variance of each patch's valid values; 0 and 0 where there is none."""
    means, variances = torch.zeros(2, *values.shape[:2], 1, dtype=torch.float64)
    for sample in range(len(values)):
        for place in range(values.shape[1]):
            own = values[sample, place][valid[sample, place]]
            if len(own):
                means[sample, place] = own.mean()
                variances[sample, place] = own.var(unbiased=False)
    return means, variances


# How mistakes are chosen.


def test_mistakes_have_names():
    assert tuple(Mistake) == MISTAKES


@pytest.mark.parametrize(
    ("architecture", "mistakes", "message"),
    [
        ("original", (), "got none, which is scale-alibi"),
        ("original", (2, 1), "each once, in order; got 2, 1"),
        ("original", (1, 1), "each once"),
        ("original", (0, 1), "mistakes 1, 2, 3, 4, 5, 6"),
        ("original", (7,), "got 7"),
        ("scale-alibi", (1,), "scale-alibi has none of the authors' mistakes; got 1"),
    ],
)
def test_mistakes_are_those_of_the_original(architecture, mistakes, message):
    config = original_config()
    with pytest.raises(UsageError, match=message):
        replace(config, architecture=architecture, mistakes=mistakes)


@pytest.mark.parametrize(
    ("compat", "architecture", "mistakes"),
    [
        ("", "scale-alibi", ()),
        ("original", "original", MISTAKES),
        ("original:3", "original", (3,)),
        ("original:1,4", "original", (1, 4)),
    ],
)
def test_compat_names_mistakes(small_store, compat, architecture, mistakes):
    stores = [SampleStore(small_store)]
    config = TrainingConfig(compat=compat).resolve(stores).model_config(stores)
    assert (config.architecture, config.mistakes) == (architecture, mistakes)


@pytest.mark.parametrize(
    "compat",
    [
        *("Original", "croma", "croma:1", "1,4", ":1", "original:", "original:0", "original:7"),
        *("original:4,1", "original:1,1", "original:1, 4", "original:1,", "original:one"),
    ],
)
def test_other_compatibilities_are_refused(compat):
    with pytest.raises(UsageError, match=r"write original, or original:1,4 for some"):
        TrainingConfig(compat=compat)


def test_mistakes_from_the_command_line(small_store, tmp_path, monkeypatch):
    monkeypatch.setitem(configuration.SIZES, "tiny", SIZE)
    out = tmp_path / "run"
    options = ["--compat", "original:1,4", "--steps", "1", "--batch-size", "4", "--out", str(out)]
    said = said_by("train", str(small_store), *options)
    assert "contrastive hires_4x_hires_4x" in said
    assert "original with mistakes 1, 4, size tiny" in said_by("info", str(out))
    assert json.loads(said_by("info", str(out), "--json"))["mistakes"] == [1, 4]


def said_by(*arguments):
    result = CliRunner().invoke(command_line.application, list(arguments))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output
