"""Conversion of published weights: the same numbers out, and clear errors for any other file."""

from __future__ import annotations

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.convert import convert
from salibi_model.checkpoints.files import describe as described
from salibi_model.evals.retrieval import retrieval
from salibi_model.models.config import TRI_ENCODER
from salibi_model.nn.masking import random_masks
from tests.support.model.stores import describe
from tests.support.model.weights.converted import HEADS, converted, written
from tests.support.model.weights.reference_models import (
    authors_contrastive,
    authors_embedding,
    authors_encode,
    authors_losses,
    croma_outputs,
    doubled,
)
from tests.support.model.weights.reference_weights import authors_weights, croma_weights

PATCH = 4


EDGE = 4
"""Patches along an edge of a base image."""


def raw_images(batch=3, *, seed=0, edge=EDGE, patch_px=PATCH):
    """Values 0..255, nodata among them."""
    generator = torch.Generator().manual_seed(seed)
    images = {}
    for name in TRI_ENCODER:
        pixels = round(edge * patch_px / describe(name).gsd_ratio)
        shape = (batch, len(describe(name).bands), pixels, pixels)
        images[name] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours.double() - theirs).abs().max() < 1e-5


@pytest.fixture
def authors():
    return authors_weights()


@pytest.mark.parametrize("name", TRI_ENCODER)
def test_the_authors_encodings_are_kept(authors, tmp_path, name):
    model, images = converted(authors, tmp_path), raw_images()[name]
    tokens, embedding = model.encode(images, name)
    expected = authors_encode(doubled(authors), name, images, None, heads=HEADS)
    assert_close(tokens, expected)
    assert_close(embedding, authors_embedding(doubled(authors), name, expected))


@pytest.mark.parametrize("patch_px", [4, 8])
@torch.no_grad()
def test_the_authors_losses_are_kept(tmp_path, patch_px):
    authors = authors_weights(patch_px=patch_px, seed=1)
    model, images = converted(authors, tmp_path), raw_images(patch_px=patch_px)
    masks = random_masks(model.num_tokens(images), 0.5, range(len(images["sar"])))
    kept = {name: mask.kept for name, mask in masks.items()}
    expected = authors_losses(authors, images, kept, heads=HEADS, patch_px=patch_px)
    losses = model(images, masks)
    for name in ("contrastive", "reconstruction"):
        assert_close(losses[name], expected[name])
    tokens = {name: expected[name].float() for name in TRI_ENCODER}
    assert_close(model.fuse(tokens, kept, (EDGE, EDGE)), expected["joint"])


def test_projections_are_the_authors(authors, tmp_path):
    """Retrieval with the converted model ranks as their loss does."""
    model, images, w = converted(authors, tmp_path), raw_images(), doubled(authors)
    encoded = {name: model.encode(images[name], name) for name in TRI_ENCODER}
    unit = {name: model.project(encoded[name][1], name) for name in TRI_ENCODER}
    total = 0.0
    for left, right in (("lores", "sar"), ("sar", "lores"), ("hires_4x", "hires_4x")):
        logits = model.scale * unit[left] @ unit[right].T
        total += torch.nn.functional.cross_entropy(logits, torch.arange(len(logits))) / 3
    tokens = {
        name: authors_encode(w, name, images[name], None, heads=HEADS) for name in TRI_ENCODER
    }
    assert_close(total, authors_contrastive(w, tokens))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"state_dict": {f"_orig_mod.module.{n}": v for n, v in weights.items()}},
        lambda weights: {name: value.half() for name, value in weights.items()},
    ],
    ids=["state_dict", "model", "ddp", "compiled", "half"],
)
def test_wrappings_do_not_matter(authors, tmp_path, wrap):
    model = converted(wrap(authors), tmp_path)
    weight = authors["optical_encoder.linear_input.weight"]
    assert torch.allclose(model.encoder("lores").embed.weight, weight, rtol=1e-3, atol=1e-3)


def test_shapes_tell_the_size_and_the_option_the_heads(tmp_path):
    weights = authors_weights(dim=64, depth=4, decoder_dim=32, patch_px=8, num_patches=9)
    config = converted(weights, tmp_path, num_heads=None).config
    assert (config.architecture, config.patch_px) == ("original", 8)
    assert (config.size.dim, config.size.depth, config.size.num_heads) == (64, 4, 16)
    assert (config.size.decoder_dim, config.size.decoder_depth) == (32, 1)
    assert config.size.decoder_heads == 8
    assert [config.depth(modality) for modality in config.modalities] == [2, 4, 4]


def test_a_converted_model_says_what_it_is(authors, tmp_path):
    converted(authors, tmp_path)
    content = described(tmp_path / "out")
    assert content["training"]["converted_from"] == "file.pth"
    assert content["mistakes"] == [1, 2, 3, 4, 5, 6]
    assert len(content["training"]["sha256"]) == 64
    for modality in content["modalities"]:
        assert set(modality["mean"]) == {0.0}
        assert set(modality["std"]) == {1.0}
        assert modality["nodata"] == 0
    assert [modality["gsd_ratio"] for modality in content["modalities"]] == [1, 1, 0.5]


@pytest.mark.parametrize("edge", [4, 5])
def test_cromas_outputs_are_kept(tmp_path, edge):
    weights = croma_weights()
    model = converted(weights, tmp_path)
    assert (model.config.architecture, model.config.patch_px) == ("croma", 8)
    generator = torch.Generator().manual_seed(0)
    sar = torch.rand(2, 2, 8 * edge, 8 * edge, generator=generator)
    optical = torch.rand(2, 12, 8 * edge, 8 * edge, generator=generator)
    expected = croma_outputs(weights, sar, optical, heads=HEADS)
    encoded = {"sar": model.encode(sar, "sar"), "lores": model.encode(optical, "lores")}
    for name, theirs in (("sar", "sar"), ("lores", "optical")):
        assert_close(encoded[name][0], expected[theirs])
        assert_close(encoded[name][1], expected[f"{theirs}_gap"])
    centres = model.centres((edge, edge), 1.0, sar.device)
    tokens = {name: encoded[name][0] for name in encoded}
    joint = model.joint(tokens, dict.fromkeys(tokens, centres))
    assert_close(joint, expected["joint"])


def test_croma_has_the_bands_of_its_training(tmp_path):
    config = converted(croma_weights(), tmp_path).config
    assert config["sar"].bands == ("vv", "vh")
    assert config["lores"].bands == (
        *("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b8a", "b9"),
        *("b11", "b12"),
    )


def test_cromas_feed_forward_is_read_without_its_dropout_too(tmp_path):
    weights = {
        part: {name.replace("net.3", "net.2"): value for name, value in state.items()}
        for part, state in croma_weights().items()
    }
    assert converted(weights, tmp_path).config.architecture == "croma"


def test_cromas_weights_take_values_of_0_to_1(tmp_path):
    model = converted(croma_weights(), tmp_path)
    pixels = torch.randint(0, 256, (1, 2, 32, 32), dtype=torch.uint8)
    with pytest.raises(
        UsageError, match=r"uint8 from .*expected those of the model's authors, 0\.\.1"
    ):
        model.encode(pixels, "sar")
    expected = model.encode(pixels / 255, "sar")[1]
    torch.testing.assert_close(model.encode(pixels, "sar", units="uint8")[1], expected)


def test_the_authors_weights_take_values_of_0_to_255(authors, tmp_path):
    model, images = converted(authors, tmp_path), raw_images()["lores"]
    with pytest.raises(UsageError, match=r"expected those of the model's authors, 0\.\.255"):
        model.encode(images / 255, "lores")
    for units in ("stored", "uint8"):
        assert torch.equal(
            model.encode(images.float(), "lores", units=units)[1], model.encode(images, "lores")[1]
        )


def test_what_cromas_file_lacks_is_refused(tmp_path):
    """Its release has neither projections nor decoder: no number is better than a random one."""
    model = converted(croma_weights(), tmp_path)
    images = {"sar": torch.rand(2, 2, 32, 32), "lores": torch.rand(2, 12, 32, 32)}
    masks = random_masks(model.num_tokens(images), 0.5, range(2))
    _, embedding = model.encode(images["sar"], "sar")
    with pytest.raises(UsageError, match="projections are not in the file"):
        model.project(embedding, "sar")
    with pytest.raises(UsageError, match="no decoder"):
        model.predict_patches(images, masks)
    with pytest.raises(UsageError, match="projections and decoder cannot be trained"):
        model(images, masks)
    assert not [name for name in model.state_dict() if "decoder" in name or "proj" in name]


def test_converting_again_gives_the_same_bytes(authors, tmp_path):
    file = written(authors, tmp_path / "file.pth")
    first, second = (convert(file, tmp_path / out, num_heads=HEADS) for out in ("a", "b"))
    again = convert(file, tmp_path / "a", num_heads=HEADS)
    for name in ("model.safetensors", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (again / name).read_bytes() == (second / name).read_bytes()


def test_a_converted_model_looks_at_stores_of_its_bands(tmp_path, small_store):
    """What its values were is not known; that its bands and ground sample distance fit, is."""
    content = authors_weights(patch_px=16, num_patches=256)
    model = converted(content, tmp_path)
    report = retrieval(model, small_store)
    assert report.num_samples == 6
    (tmp_path / "croma").mkdir()
    croma = converted(croma_weights(), tmp_path / "croma")
    with pytest.raises(UsageError, match=r"disagree on 'lores': bands"):
        retrieval(croma, small_store)
