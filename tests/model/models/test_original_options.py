"""`--compat original`: the names of the mistakes, refusals, and training with them."""

from __future__ import annotations

import json
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
from salibi_model.models.config import MISTAKES, TRI_ENCODER
from salibi_model.models.original import OriginalScaleAlibi
from salibi_model.models.original_parts import Mistake
from salibi_model.nn.masking import Mask
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resolution import describe_model, resolve
from salibi_model.training.trainer import train
from tests.support.model.nano import GRID, SIZE, nano_images, nano_masks, nano_model
from tests.support.model.weights.original_models import original, original_config

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
        tokens, _ = plain.encode(stretched, name, check_values=False)
        assert torch.allclose(model.encode(images, name)[0], tokens, atol=1e-4)


@pytest.mark.parametrize(
    ("compat", "mistakes"), [("original", MISTAKES), ("original:3", (3,)), ("original:2,6", (2, 6))]
)
def test_it_is_trained_and_loaded_like_any_other(
    small_store, tmp_path, monkeypatch, compat, mistakes
):
    monkeypatch.setitem(configuration.SIZES, "tiny", SIZE)
    config = TrainingConfig(
        stores=(str(small_store),),
        compat=compat,
        steps=2,
        batch_size=4,
        checkpoint_every=1,
        validate_every=2,
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
    config = describe_model(resolve(TrainingConfig(compat=compat), stores), stores)
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
    output = said_by("train", str(small_store), *options)
    assert "contrastive hires_4x_hires_4x" in output
    assert "original with mistakes 1, 4, size tiny" in said_by("info", str(out))
    assert json.loads(said_by("info", str(out), "--json"))["mistakes"] == [1, 4]


def said_by(*arguments):
    result = CliRunner().invoke(command_line.application, list(arguments))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output
