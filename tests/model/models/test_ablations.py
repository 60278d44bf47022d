"""Ablations and baselines are configuration: each field changes what it names, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.data.modalities import mean_gsd_m
from salibi_model.data.store import SampleStore
from salibi_model.models import config as model_config
from salibi_model.models.config import TRI_ENCODER, ModelConfig
from salibi_model.models.registry import build_model
from salibi_model.nn.losses import normalised_target
from salibi_model.nn.patches import patchify, unpatchify
from salibi_model.nn.targets import hidden_pixels, shrink, shrink_patches
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resolution import describe_model, resolve
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE, nano_images, nano_masks, nano_model
from tests.support.model.stores import describe, write_store


def losses_of(model, images=None, masks=None):
    images = images or nano_images(names=model.config.names)
    return model(images, masks or nano_masks(model, images))


def parts(losses, kind):
    return {name for name in losses if name.startswith(f"{kind}_")}


def test_contrastive_alone_builds_and_trains_nothing_else():
    model = nano_model(objectives=("contrastive",))
    assert not hasattr(model, "joint")
    assert not hasattr(model, "decoder")
    losses = losses_of(model)
    assert parts(losses, "reconstruction") == set()
    assert losses["loss"] == losses["contrastive"]
    losses["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_reconstruction_alone_builds_no_heads_and_embeds_the_mean_token():
    model = nano_model(objectives=("reconstruction",))
    assert len(model.heads) == len(model.projections) == 0
    losses = losses_of(model)
    assert parts(losses, "contrastive") == set()
    losses["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    tokens, embedding = model.eval().encode(nano_images()["lores"], "lores")
    torch.testing.assert_close(embedding, tokens.mean(1))
    projected = model.project(embedding, "lores")
    torch.testing.assert_close(projected, embedding / embedding.norm(dim=1, keepdim=True))


def test_chosen_pairs_are_contrasted_and_no_others():
    model = nano_model(pairs=(("sar", "hires_4x"),))
    assert parts(losses_of(model), "contrastive") == {"contrastive_sar_hires_4x"}
    assert set(model.heads) == {"sar", "hires_4x"}
    whole = nano_model()
    whole.load_state_dict(model.state_dict(), strict=False)
    images = nano_images()
    masks = nano_masks(model, images)
    torch.testing.assert_close(
        losses_of(model, images, masks)["contrastive"],
        losses_of(whole, images, masks)["contrastive_sar_hires_4x"],
    )


def test_without_gsd_scaling_every_image_counts_its_own_patches():
    off, on = nano_model(gsd_scaling=False).eval(), nano_model().eval()
    off.load_state_dict(on.state_dict())
    images = nano_images(batch=1)["hires_4x"]
    fixed = off.encode(images, "hires_4x")[0]
    torch.testing.assert_close(off.encode(images, "hires_4x", 0.25)[0], fixed)
    torch.testing.assert_close(on.encode(images, "hires_4x", 1.0)[0], fixed)
    assert not torch.allclose(on.encode(images, "hires_4x")[0], fixed, atol=1e-4)


def test_at_the_base_zoom_scaling_changes_nothing():
    """Which is why CROMA, of two such modalities, is Scale-ALiBi without it."""
    names = ["sar", "lores"]
    images = nano_images(names=names)
    on, off = nano_model(names), nano_model(names, gsd_scaling=False)
    assert losses_of(on, images)["loss"] == losses_of(off, images)["loss"]


def test_separate_fusion_has_blocks_of_its_own_for_each_step():
    shared, separate = nano_model(), nano_model(fusion="separate")
    assert list(shared.joint.stacks) == ["shared"]
    assert list(separate.joint.stacks) == ["lores", "hires_4x"]
    ran = []
    for name, stack in separate.joint.stacks.items():
        stack[0].register_forward_hook(lambda *_, name=name: ran.append(name))
    losses = losses_of(separate)
    assert ran == ["lores", "hires_4x"]
    losses["loss"].backward()
    assert all(p.grad is not None for p in separate.parameters())
    # with equal weights in both, the two ways are one
    for stack in separate.joint.stacks.values():
        stack.load_state_dict(shared.joint.stacks["shared"].state_dict())
    separate.load_state_dict(
        {k: v for k, v in shared.state_dict().items() if "stacks" not in k}, strict=False
    )
    torch.testing.assert_close(losses_of(separate)["loss"], losses_of(shared)["loss"])


def shrunk_by_loop(image, fineness):
    """Mean of the valid pixels under each coarse one; image (C, H, W), 0 not valid."""
    bands, height, width = image.shape
    out = torch.zeros(bands, height // fineness, width // fineness)
    for b in range(bands):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                under = image[
                    b, y * fineness : (y + 1) * fineness, x * fineness : (x + 1) * fineness
                ]
                if (under != 0).any():
                    out[b, y, x] = under[under != 0].mean()
    return out


def test_shrinking_is_the_mean_of_valid_pixels():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 16, 24, generator=generator) + 0.1
    image[0, :, :5, :7] = 0
    expected = shrunk_by_loop(image[0], 4)
    means, some = shrink(image, image != 0, 4)
    torch.testing.assert_close(means[0], expected)
    assert torch.equal(some[0], expected != 0)
    square = image[..., :16]
    values, _ = shrink_patches(patchify(square, 8), patchify(square != 0, 8), (1, 1), 2, 8)
    torch.testing.assert_close(unpatchify(values, (1, 1), 8)[0], shrunk_by_loop(square[0], 2))


def test_hidden_pixels_are_those_of_removed_fine_patches():
    removed = torch.tensor([[1, 6]])  # of a 4x4 grid of fine patches, 2x2 coarse ones of 4 px
    hidden = unpatchify(hidden_pixels(removed, (2, 2), 2, 4), (2, 2), 4)[0, 0]
    for y in range(8):
        for x in range(8):
            assert hidden[y, x] == (y // 2 * 4 + x // 2 in (1, 6)), (y, x)


def test_base_resolution_targets_are_averages_of_what_was_hidden():
    """The loss of the finer modality, recomputed pixel by pixel from the prediction."""
    model, images = nano_model(fine_target="base"), nano_images(batch=2)
    assert model.decoder.fineness == {"sar": 1, "lores": 1, "hires_4x": 1}
    masks = nano_masks(model, images)
    outputs = {}
    model.decoder.register_forward_hook(lambda _m, _i, out: outputs.update(out))
    losses = losses_of(model, images, masks)
    errors = []
    for i in range(2):
        values = (images["hires_4x"][i].float() - 120) / 50
        target = normalised_target(
            patchify(values.reshape(1, 3, 64, 2, 64, 2).mean((3, 5)), 16),
            torch.ones(1, 16, 768, dtype=torch.bool),
        )
        removed = set(masks["hires_4x"].removed[i].tolist())
        squared = (unpatchify(outputs["hires_4x"][i : i + 1] - target, (4, 4), 16)[0]) ** 2
        counted = torch.tensor(
            [[(y // 8 * 8 + x // 8) in removed for x in range(64)] for y in range(64)]
        )
        errors.append(squared[:, counted].mean())
    torch.testing.assert_close(losses["reconstruction_hires_4x"], torch.stack(errors).mean())


def test_absolute_targets_are_not_normalised_by_patch():
    model, images = nano_model(normalise_patches=False), nano_images(batch=1)
    masks = nano_masks(model, images)
    outputs = {}
    model.decoder.register_forward_hook(lambda _m, _i, out: outputs.update(out))
    losses = losses_of(model, images, masks)
    removed = masks["sar"].removed[0]
    target = (patchify(images["sar"], 16)[0, removed].float() - 120) / 50
    expected = (outputs["sar"][0] - target).square().mean()
    torch.testing.assert_close(losses["reconstruction_sar"], expected)


def test_depths_and_patches_come_from_configuration():
    model = nano_model(depths=(("sar", 3), ("lores", 1)), patch_px=8)
    assert [len(model.encoder(name).blocks) for name in TRI_ENCODER] == [3, 1, 2]
    images = nano_images(batch=1)
    assert model.num_tokens(images) == {"sar": 64, "lores": 64, "hires_4x": 256}
    assert losses_of(model, images)["loss"].isfinite()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"architecture": "clip"}, "no architecture 'clip'"),
        ({"objectives": ("distillation",)}, "no objective 'distillation'"),
        ({"objectives": ()}, "at least one objective"),
        ({"pairs": (("sar", "thermal"),)}, "no modality of a pair 'thermal'"),
        ({"pairs": (("sar", "sar"),)}, "two different modalities"),
        ({"pairs": (("sar", "lores"), ("lores", "sar"))}, "named once, in either order"),
        ({"fusion": "none"}, "shared, separate"),
        ({"fine_target": "half"}, "native, base"),
        ({"depths": (("sar", 0),)}, "one block or more"),
        ({"patch_px": 5, "fine_target": "base"}, "do not divide patches of 5"),
        (
            {"objectives": ("contrastive",), "pairs": (("sar", "lores"),)},
            "'hires_4x' takes part in no loss",
        ),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig(size=SIZE, modalities=tuple(map(describe, TRI_ENCODER)), **choices)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("scale-alibi", ("sar", "lores", "hires_4x"), True)),
        ({"model": "croma"}, ("croma", ("sar", "lores"), False)),
        ({"model": "scale-mae"}, ("scale-mae", ("lores", "hires_4x"), True)),
        ({"modalities": ("sar", "lores")}, ("scale-alibi", ("sar", "lores"), True)),
        ({"compat": "original"}, ("original", ("sar", "lores", "hires_4x"), True)),
    ],
)
def test_models_differ_in_configuration(small_store, changes, expected):
    stores = [SampleStore(small_store)]
    resolved = resolve(TrainingConfig(stores=(str(small_store),), **changes), stores)
    config = describe_model(resolved, stores)
    assert (config.architecture, config.names, config.gsd_scaling) == expected
    assert config.base_gsd_m == pytest.approx(mean_gsd_m(stores)) == pytest.approx(3.7)


@pytest.mark.parametrize("model", ["scale-alibi", "croma", "scale-mae"])
def test_every_model_trains_on_the_same_store_by_the_same_trainer(
    small_store, tmp_path, monkeypatch, model
):
    monkeypatch.setitem(model_config.SIZES, "tiny", replace(SIZE, decoder_heads=2))
    settings = TrainingConfig(
        stores=(str(small_store),), model=model, steps=2, batch_size=4, validation_samples=0
    )
    result = train(settings, out=tmp_path)
    again = train(replace(settings, steps=3), out=tmp_path)
    assert (again.first_step, again.metrics["step"]) == (2, 3)
    assert result.metrics["loss"] > 0


def test_unwritten_pairs_and_depths_are_explained(small_store):
    stores = [SampleStore(small_store)]
    for changes, message in (
        ({"pairs": ("sar",)}, "write one as sar:lores"),
        ({"depths": ("sar",)}, "write one as sar:6"),
    ):
        with pytest.raises(UsageError, match=message):
            describe_model(resolve(TrainingConfig(**changes), stores), stores)
    with pytest.raises(UsageError, match="is a mode of scale-alibi"):
        TrainingConfig(model="croma", compat="original")


def test_a_modality_named_twice_is_refused():
    with pytest.raises(UsageError, match="named once"):
        ModelConfig(size=SIZE, modalities=tuple(map(describe, ["sar", "lores", "lores"])))


@pytest.mark.parametrize(
    "choices", [{"fusion": "separate"}, {"normalise_patches": False}, {"depths": (("lores", 1),)}]
)
def test_scale_mae_records_no_ablation_that_it_does_not_make(choices):
    config = ModelConfig(
        size=SIZE,
        modalities=tuple(map(describe, ["lores", "hires_4x"])),
        architecture="scale-mae",
        objectives=("reconstruction",),
        **choices,
    )
    with pytest.raises(UsageError, match=f"it has no {next(iter(choices))}"):
        build_model(config)


def test_modalities_of_other_names_are_taken_when_they_are_named(tmp_path):
    store = write_store(
        tmp_path / "x.zarr", num_samples=4, validation=1, modalities=["hires_4x", "hires"]
    )
    stores = [SampleStore(store)]
    with pytest.raises(UsageError, match=r"got hires_4x\. .* name two with --modalities"):
        describe_model(resolve(TrainingConfig(stores=(str(store),)), stores), stores)
    named = TrainingConfig(stores=(str(store),), modalities=("hires", "hires_4x"))
    assert describe_model(resolve(named, stores), stores).names == ("hires", "hires_4x")
