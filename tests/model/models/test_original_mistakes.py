"""Each mistake of the originals alone: it changes its own terms, and Scale-ALiBi without it is itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from salibi_model.models import contrastive as contrast
from salibi_model.models import scale_alibi as pretrain
from salibi_model.models.config import TRI_ENCODER
from salibi_model.nn import decoder as decoding
from salibi_model.nn.masking import Mask
from tests.support.model.nano import GRID, nano_images, nano_masks, nano_model
from tests.support.model.stores import describe
from tests.support.model.weights.original_models import (
    HEADS,
    gradients,
    ground_bias,
    joint_biases,
    original,
    shuffled,
)
from tests.support.model.weights.reference_models import (
    cut,
    grid_bias,
    picked_bias,
    removed_table,
    strided_bias,
)

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
    losses, expected = model(images, masks), plain(images, masks)
    return {
        name
        for name in losses.keys() & expected.keys()
        if not torch.isclose(losses[name], expected[name], rtol=2e-5)
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
    biases = joint_biases(model, images, masks)
    assert len(biases) == 2
    for (self_bias, cross_bias), expected in zip(biases, (first, second), strict=True):
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
