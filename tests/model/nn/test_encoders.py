"""Encoders, heads and fusion: what reaches what, and with which bias."""

from __future__ import annotations

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.models.config import TRI_ENCODER, ModelConfig
from salibi_model.nn.layers import JointBlock
from tests.support.model.alibi_loops import bias_by_loop
from tests.support.model.nano import GRID, nano_images, nano_masks, nano_model
from tests.support.model.stores import describe

PAIRS = {
    "sar_lores": {"sar", "lores"},
    "lores_hires_4x": {"lores", "hires_4x"},
    "sar_hires_4x": {"sar", "hires_4x"},
}


def gradient_norms(module):
    return [0.0 if p.grad is None else float(p.grad.norm()) for p in module.parameters()]


def test_model_has_the_three_pairs():
    assert nano_model().config.contrastive_pairs == (
        ("sar", "lores"),
        ("lores", "hires_4x"),
        ("sar", "hires_4x"),
    )


@pytest.mark.parametrize("pair", PAIRS)
def test_each_pair_teaches_both_of_its_encoders_and_heads(pair):
    model, images = nano_model(), nano_images()
    model(images, nano_masks(model, images))[f"contrastive_{pair}"].backward()
    for name in TRI_ENCODER:
        for part in (model.encoders[name], model.heads[name], model.projections[name]):
            if name in PAIRS[pair]:
                assert min(gradient_norms(part)) > 0, name
            else:
                assert max(gradient_norms(part)) == 0, name


def test_each_pair_compares_its_two_modalities():
    """And not a modality with itself: the loss is recomputed from the three projections."""
    model, images = nano_model(), nano_images(batch=4)
    unit = {}
    for name in TRI_ENCODER:

        def keep(_module, _inputs, output, name=name):
            unit[name] = (output / output.norm(dim=1, keepdim=True)).detach()

        model.projections[name].register_forward_hook(keep)
    losses = model(images, nano_masks(model, images))
    for pair, names in PAIRS.items():
        left, right = (unit[name] for name in TRI_ENCODER if name in names)
        logits = left @ right.T / 0.07
        expected = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()).mean() / 2
        torch.testing.assert_close(losses[f"contrastive_{pair}"].detach(), expected)


def test_total_loss_reaches_every_parameter():
    model, images = nano_model(), nano_images()
    losses = model(images, nano_masks(model, images))
    losses["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_loss_is_the_unweighted_sum_of_its_parts():
    model, images = nano_model(), nano_images()
    losses = model(images, nano_masks(model, images))
    parts = [losses[f"contrastive_{pair}"] for pair in PAIRS]
    parts += [losses[f"reconstruction_{name}"] for name in TRI_ENCODER]
    torch.testing.assert_close(losses["loss"], torch.stack(parts).sum())


def test_joint_encoder_stays_at_sar_positions():
    """Self attention has the SAR x SAR bias in both steps; cross attention SAR x the other."""
    model, images = nano_model(), nano_images(batch=2)
    masks = nano_masks(model, images)
    seen = []
    for block in model.joint.modules():
        if isinstance(block, JointBlock):
            block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2:]))
    model(images, masks)
    kept = {name: mask.kept.tolist() for name, mask in masks.items()}
    assert len(seen) == 2  # one block, two steps
    for (self_bias, cross_bias), other in zip(seen, ("lores", "hires_4x"), strict=True):
        ratio = describe(other).gsd_ratio
        for i in range(2):
            frame = {"query_cols": GRID, "query_ratio": 1.0, "num_heads": 4}
            own = bias_by_loop(
                kept["sar"][i], kept["sar"][i], key_cols=GRID, key_ratio=1.0, **frame
            )
            cross = bias_by_loop(
                kept["sar"][i],
                kept[other][i],
                key_cols=round(GRID / ratio),
                key_ratio=ratio,
                **frame,
            )
            torch.testing.assert_close(self_bias.dense[i].double(), own, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(cross_bias.dense[i].double(), cross, atol=1e-5, rtol=1e-5)


def test_place_enters_through_the_bias_alone():
    """Patches in another order, with their coordinates, give the same tokens in that order."""
    encoder = nano_model().encoder("lores")
    values, xy = torch.randn(1, 9, 768), torch.rand(1, 9, 2) * 10
    order = torch.randperm(9)
    torch.testing.assert_close(
        encoder(values[:, order], xy[:, order]), encoder(values, xy)[:, order]
    )
    assert not torch.allclose(encoder(values, xy), encoder(values, xy * 3), atol=1e-3)


def test_inputs_are_normalised_and_nodata_is_zero():
    encoder = nano_model().encoder("lores")
    stored = torch.randint(1, 256, (1, 2, 768), dtype=torch.uint8)
    stored[0, 0, :5] = 0
    values, valid = encoder.normalise(stored)
    assert values[0, 0, :5].tolist() == [0.0] * 5
    assert not valid[0, 0, :5].any()
    torch.testing.assert_close(values[0, 1], (stored[0, 1].float() - 120) / 50)


@pytest.mark.parametrize(("name", "bands"), [("sar", 2), ("lores", 3), ("hires_4x", 3)])
def test_encode_takes_other_sizes(name, bands):
    model = nano_model().eval()
    images = torch.randint(1, 256, (2, bands, 48, 80), dtype=torch.uint8)
    tokens, embedding = model.encode(images, name)
    assert tokens.shape == (2, 15, 32)
    assert embedding.shape == (2, 32)
    projected = model.project(embedding, name)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(2))


def test_encode_takes_a_ratio_per_image():
    model = nano_model().eval()
    images = nano_images(batch=2, names=["lores"])["lores"]
    together, _ = model.encode(images, "lores", torch.tensor([1.0, 0.25]))
    for i, ratio in enumerate((1.0, 0.25)):
        torch.testing.assert_close(
            together[i], model.encode(images[i : i + 1], "lores", ratio)[0][0]
        )
    assert not torch.allclose(together[1], model.encode(images, "lores")[0][1], atol=1e-4)


def test_encode_defaults_to_the_trained_ratio():
    model = nano_model().eval()
    images = nano_images(batch=1)
    for name, ratio in (("sar", 1.0), ("lores", 1.0), ("hires_4x", 0.5)):
        torch.testing.assert_close(
            model.encode(images[name], name)[0], model.encode(images[name], name, ratio)[0]
        )


def test_encode_explains_what_does_not_fit():
    model = nano_model()
    with pytest.raises(UsageError, match="no modality 'thermal'"):
        model.encode(torch.ones(1, 3, 64, 64), "thermal")
    with pytest.raises(UsageError, match="vv, vh"):
        model.encode(torch.ones(1, 3, 64, 64), "sar")
    with pytest.raises(UsageError, match="multiple of 16"):
        model.encode(torch.ones(1, 2, 60, 64), "sar")


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.ones(0, 3, 64, 64), {}, "got \\(0, 3, 64, 64\\)"),
        (torch.full((1, 3, 64, 64), torch.nan), {}, "not finite"),
        (torch.ones(1, 3, 64, 64).bool(), {}, "0..255"),
        (torch.ones(1, 3, 64, 64), {"gsd_ratio": torch.inf}, "finite number above 0"),
        (torch.ones(1, 3, 64, 64), {"gsd_m": 1.0}, "does not know the metres"),
    ],
)
def test_encode_refuses_what_would_come_out_as_nonsense(images, options, message):
    with pytest.raises(UsageError, match=message):
        nano_model().encode(images, "lores", **options)


def test_encode_takes_metres_for_each_image_and_any_number_type():
    model = nano_model(base_gsd_m=2.0).eval()
    images = nano_images(batch=2, names=["lores"])["lores"]
    together, _ = model.encode(images.double(), "lores", gsd_m=torch.tensor([2.0, 0.5]))
    for i, ratio in enumerate((1.0, 0.25)):
        alone, _ = model.encode(images[i : i + 1].to(torch.int16), "lores", ratio)
        torch.testing.assert_close(together[i], alone[0])


def test_two_modalities_make_one_pair_and_one_fusion_step():
    model = nano_model(["sar", "lores"])
    images = nano_images(names=["sar", "lores"])
    seen = []
    model.joint.stacks["shared"][0].register_forward_hook(lambda *_: seen.append(1))
    losses = model(images, nano_masks(model, images))
    assert [name for name in losses if name.startswith("contrastive_")] == ["contrastive_sar_lores"]
    assert len(seen) == 1
    assert losses["loss"].isfinite()


def test_one_modality_is_refused():
    size = nano_model().config.size
    with pytest.raises(UsageError, match="two modalities or more"):
        ModelConfig(size=size, modalities=(describe("hires_4x"),))


def test_a_finer_anchor_is_refused():
    size = nano_model().config.size
    with pytest.raises(UsageError, match="coarser"):
        ModelConfig(size=size, modalities=(describe("hires_4x"), describe("sar")))
