"""The gradient of a batch: in parts as whole, with crops as without."""

from __future__ import annotations

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.models.config import TRI_ENCODER, ModelConfig
from salibi_model.models.registry import build_model
from salibi_model.nn.masking import random_masks
from salibi_model.training.grad_cache import LossStep, MaskedBatch, add_gradients
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.stores import describe

CASES = {
    "plain": ({}, ()),
    "a hidden modality": ({}, ("lores",)),
    "two hidden": ({}, ("sar", "lores")),
    "contrastive alone": ({"objectives": ("contrastive",)}, ()),
    "reconstruction alone": ({"objectives": ("reconstruction",)}, ()),
    "one pair": ({"pairs": (("sar", "hires_4x"),)}, ()),
    "croma": ({"architecture": "croma", "gsd_scaling": False}, ()),
    "scale-mae": ({"architecture": "scale-mae", "objectives": ("reconstruction",)}, ()),
}


def masked(model, *, batch=8, hidden=(), gsd_scale=None):
    names = model.config.names
    images = nano_images(batch=batch, names=names)
    images[names[-1]][1] = 0  # a sample without an observation
    masks = random_masks(model.num_tokens(images), 0.5, range(batch), hidden=hidden)
    return MaskedBatch(images=images, masks=masks, gsd_scale=gsd_scale)


def build(choices):
    architecture = choices.get("architecture")
    names = {"scale-mae": TRI_ENCODER[1:], "croma": TRI_ENCODER[:2]}.get(architecture, TRI_ENCODER)
    torch.manual_seed(0)
    config = ModelConfig(size=SIZE, modalities=tuple(map(describe, names)), **choices)
    return build_model(config).double()


def gradients(model, batch, num_parts):
    model.zero_grad(set_to_none=True)
    losses = add_gradients(LossStep(model), batch, num_parts=num_parts, bf16=False)
    return losses, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("num_parts", [2, 4, 8])
@pytest.mark.parametrize("case", CASES)
def test_parts_have_the_loss_and_gradient_of_the_whole(case, num_parts):
    """In double precision; what is left are sums in another order."""
    choices, hidden = CASES[case]
    model = build(choices)
    batch = masked(model, hidden=hidden)
    losses, whole = gradients(model, batch, 1)
    in_parts, summed = gradients(model, batch, num_parts)
    assert in_parts.keys() == losses.keys()
    for name, value in losses.items():
        torch.testing.assert_close(in_parts[name], value, rtol=1e-5, atol=1e-6, check_dtype=False)
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, value in whole.items():
        torch.testing.assert_close(summed[name], value, rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_parts_are_one_contrastive_batch():
    """Without it, fewer negatives: the mean of the parts' own losses is another, lower number."""
    model = build({})
    batch = masked(model)
    whole, _ = gradients(model, batch, 1)
    separate = [gradients(model, part, 1)[0]["contrastive"] for part in batch.parts(4)]
    assert float(torch.stack(separate).mean()) < 0.8 * float(whole["contrastive"])


def test_a_gsd_scale_of_one_changes_nothing():
    model = build({})
    plain, scaled = masked(model), masked(model, gsd_scale=torch.ones(8))
    first, second = gradients(model, plain, 1)[0], gradients(model, scaled, 1)[0]
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)


@pytest.mark.parametrize("architecture", ["scale-alibi", "scale-mae"])
def test_gsd_scales_are_each_samples_own(architecture):
    """A batch of two scales has the loss of each sample at its own: it is a mean over samples."""
    model = build({"architecture": architecture, "objectives": ("reconstruction",)})
    scale = torch.tensor([0.5, 2.0] * 4)
    together = gradients(model, masked(model, gsd_scale=scale), 1)[0]["loss"]
    alone = [
        gradients(model, part, 1)[0]["loss"] for part in masked(model, gsd_scale=scale).parts(8)
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), together)
    unscaled = gradients(model, masked(model), 1)[0]["loss"]
    assert abs(float(together - unscaled)) > 1e-5


def test_without_gsd_scaling_the_scale_of_a_crop_is_not_seen():
    model = build({"gsd_scaling": False})
    plain, scaled = masked(model), masked(model, gsd_scale=torch.full((8,), 0.5))
    assert torch.equal(
        gradients(model, plain, 1)[0]["loss"], gradients(model, scaled, 1)[0]["loss"]
    )


def test_the_original_refuses_what_it_does_not_have():
    model = build({"architecture": "original", "mistakes": (1,)})
    with pytest.raises(UsageError, match="whole tiles of one variant"):
        gradients(model, masked(model, gsd_scale=torch.ones(8)), 1)
    with pytest.raises(UsageError, match="undivided batches"):
        gradients(model, masked(model), 2)
