"""How labelled images come before an encoder: bands, values, nodata, size and ground distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import salibi_model
from salibi_data.store.errors import StoreError, UsageError
from salibi_model.checkpoints.convert import convert
from salibi_model.errors import CheckpointError
from salibi_model.evals.datasets.inputs import (
    COMMON_NAMES,
    UnfitError,
    bands_for,
    input_shape,
    modalities_for,
)
from salibi_model.evals.features import (
    FrozenModel,
    MeanColour,
    extract_features,
    untrained_model,
    weights_digest,
)
from tests.support.model.labelled.labelled_arrays import LabelledArrays, coloured
from tests.support.model.nano import SIZE, nano_model
from tests.support.model.weights.reference_weights import croma_weights

S2 = tuple(COMMON_NAMES.values())


@pytest.fixture(scope="module")
def model():
    return nano_model(seed=3, base_gsd_m=5.0).eval()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    file = tmp_path_factory.mktemp("croma") / "CROMA_base.pt"
    torch.save(croma_weights(), file)
    convert(file, file.with_name("croma"), num_heads=4)
    return salibi_model.load(file.with_name("croma"))


def seen_by(frozen, monkeypatch, images):
    """What arrives at the model's encoder, and with which arguments."""
    calls = []
    encode = frozen.model.encode

    def recording(values, modality, **arguments):
        calls.append((values.clone(), modality, arguments))
        return encode(values, modality, **arguments)

    monkeypatch.setattr(frozen.model, "encode", recording)
    frozen.encode(images)
    return calls[0]


def test_features_are_the_models_own_embeddings(model):
    data = coloured(gsd_m=7.0)
    frozen = FrozenModel(model, data, "lores")
    features = extract_features(frozen, "validation", batch_size=5)
    images = data.read(data.split_indices("validation"), ("red", "green", "blue"))
    mean, std = (part[:, None, None] for part in data.statistics(data.bands))
    spec = model.config["lores"]
    own_mean, own_std = (np.array(part)[:, None, None] for part in (spec.mean, spec.std))
    stored = torch.tensor((images - mean) / std * own_std + own_mean, dtype=torch.float32)
    with torch.inference_mode():
        tokens, expected = model.encode(stored, "lores", gsd_m=7.0)
    assert np.allclose(features.vectors, expected.numpy(), atol=1e-4)
    assert np.array_equal(features.labels, data.labels(data.split_indices("validation")))
    grid, _ = frozen.encode(images)
    assert tuple(grid.shape) == (12, SIZE.dim, 2, 2)
    assert torch.allclose(grid[:, :, 1, 0], tokens[:, 2], atol=1e-4)


def test_units_of_the_data_do_not_matter(model):
    small = coloured()
    large = LabelledArrays(4000 * small.images - 300, small.values, counts=(40, 12, 20))
    a, b = (extract_features(FrozenModel(model, data, "lores"), "test") for data in (small, large))
    assert np.allclose(a.vectors, b.vectors, atol=1e-3)


def test_nodata_is_nodata_and_nothing_else_is(model, monkeypatch):
    data = coloured()
    spec = model.config["lores"]
    images = data.read(np.arange(2), data.bands)
    images[0, :, :5, :7] = np.nan
    mean, std = (np.float32(part) for part in data.statistics(data.bands))
    # The value that becomes nodata by its size alone.
    images[1, 0, 3, 3] = mean[0] - std[0] * np.float32(spec.mean[0] / spec.std[0])
    values, name, _ = seen_by(FrozenModel(model, data, "lores"), monkeypatch, images)
    assert name == "lores"
    assert torch.equal(values == 0, torch.from_numpy(np.isnan(images)))
    assert abs(values[1, 0, 3, 3]) < 0.01


@pytest.mark.parametrize(
    ("scale", "image_px", "shape", "gsd_m"),
    [
        (1.0, None, (64, 64), 10.0),
        (2.0, None, (32, 32), 20.0),
        (4.0, None, (16, 16), 40.0),
        (3.0, None, (16, 16), 40.0),
        (1.0, 128, (128, 128), 5.0),
        (2.0, 96, (48, 48), 10 * 64 / 48),
    ],
)
def test_ground_distance_follows_the_size(model, monkeypatch, scale, image_px, shape, gsd_m):
    data = coloured(px=64, num_train=4, num_valid=0, num_test=1)
    frozen = FrozenModel(model, data, "lores").at(scale=scale, image_px=image_px)
    assert (frozen.shape, frozen.gsd_m) == (shape, pytest.approx(gsd_m))
    values, _, arguments = seen_by(frozen, monkeypatch, data.read(np.arange(2), data.bands))
    assert tuple(values.shape[-2:]) == shape
    assert arguments == {"gsd_m": pytest.approx(gsd_m), "check_values": False}


def test_without_metres_the_ratio_of_training_is_taken(monkeypatch):
    data = coloured(px=64, num_train=4, num_valid=0, num_test=1)
    frozen = FrozenModel(nano_model().eval(), data, "hires_4x").at(scale=2.0)
    _, _, arguments = seen_by(frozen, monkeypatch, data.read(np.arange(2), data.bands))
    assert frozen.gsd_use == "as trained"
    assert arguments == {"gsd_ratio": pytest.approx(1.0), "check_values": False}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((32, 32), (32, 32)), ((332, 332), (336, 336)), ((120, 500), (128, 496)), ((9, 9), (16, 16))],
)
def test_edges_go_to_the_nearest_multiple_of_a_patch(shape, expected):
    assert input_shape(shape, patch_px=16) == expected


def test_a_scale_without_a_patch_is_refused():
    with pytest.raises(UnfitError, match="eurosat have 8 px at scale 8, less than a patch of 16"):
        input_shape((64, 64), patch_px=16, scale=8.0, where="eurosat")
    for scale in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="take a number above 0"):
            input_shape((64, 64), patch_px=16, scale=scale)


def test_modalities_are_found_by_their_bands(model):
    config = model.config
    assert modalities_for(config, coloured()) == ("lores", "hires_4x")
    radar = LabelledArrays(
        np.ones((2, 3, 16, 16)), [0, 1], counts=(1, 0, 1), bands=("vh", "x", "vv")
    )
    assert modalities_for(config, radar) == ("sar",)
    assert bands_for(config, "sar", radar) == ("vv", "vh")
    with pytest.raises(UnfitError, match=r"lacks red, green, blue, which modality 'lores'.*vh, x"):
        bands_for(config, "lores", radar)
    with pytest.raises(UsageError, match="no modality 'nir'"):
        bands_for(config, "nir", radar)
    thermal = LabelledArrays(np.ones((2, 1, 16, 16)), [0, 1], counts=(1, 0, 1), bands=("tir",))
    with pytest.raises(
        UnfitError, match=r"bands tir; .*sar \(vv, vh\); lores \(red, green, blue\)"
    ):
        modalities_for(config, thermal)


def test_bands_are_taken_by_name_not_by_place(model, monkeypatch):
    data = coloured()
    turned = LabelledArrays(
        data.images[:, ::-1], data.values, counts=(40, 12, 20), bands=("blue", "green", "red")
    )
    a, b = (
        extract_features(FrozenModel(model, one, "lores"), "test").vectors for one in (data, turned)
    )
    assert np.array_equal(a, b)


def test_converted_models_see_sentinel_2_in_their_range(converted, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(1500, 300, (6, len(S2), 32, 32))
    data = LabelledArrays(images, np.arange(6) % 2, counts=(4, 0, 2), bands=S2[::-1])
    (optical,) = modalities_for(converted.config, data)
    values, _, _ = seen_by(FrozenModel(converted, data, optical), monkeypatch, data.read([0], S2))
    assert 0 < float(values.min()) < 0.05
    assert 0.95 < float(values.max()) <= 1
    assert float(values.mean()) == pytest.approx(0.5, abs=0.05)


def test_mean_colour_is_mean_and_deviation_of_what_is_valid():
    data = coloured(px=48)
    images = data.read(np.arange(3), data.bands)
    images[0, 1, :20] = np.nan
    images[1, 2] = np.nan
    mean, std = (part[:, None, None] for part in data.statistics(data.bands))
    scaled = (images - mean) / std
    tokens, vectors = MeanColour(data, data.bands).encode(images)
    for image, vector, grid in zip(scaled, vectors, tokens, strict=True):
        for band, values in enumerate(image):
            kept = values[np.isfinite(values)]
            expected = (kept.mean(), kept.std()) if len(kept) else (0, 0)
            assert vector[[band, 3 + band]].tolist() == pytest.approx(expected, abs=1e-4)
        patch = image[0, 16:32, 32:48]
        assert grid[[0, 3], 1, 2].tolist() == pytest.approx((patch.mean(), patch.std()), abs=1e-4)


def test_untrained_weights_come_from_the_seed_alone(model):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, other = untrained_model(model), untrained_model(model), untrained_model(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    digests = [weights_digest(one) for one in (a, b, other, model)]
    assert digests[0] == digests[1] == weights_digest(nano_model(seed=0, base_gsd_m=5.0))
    assert len({*digests, weights_digest(nano_model())}) == 4
    assert a.config == model.config
    assert not a.training


def test_broken_weights_are_not_measured():
    broken = nano_model().eval()
    with torch.no_grad():
        broken.encoder("lores").embed.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="features by 'lores' are not finite"):
        extract_features(FrozenModel(broken, coloured(), "lores"), "test")


def test_data_without_images_is_refused(model):
    nothing = LabelledArrays(np.ones((1, 3, 16, 16)), [0], counts=(0, 0, 0))
    with pytest.raises(StoreError, match="arrays has no images"):
        FrozenModel(model, nothing, "lores")


def test_images_are_read_once_and_counted(model):
    data = coloured()
    frozen = FrozenModel(model, data, "lores")
    extract_features(frozen, "validation")
    data.reads, seen = 0, []
    extract_features(frozen, "test", batch_size=8, on_image=seen.append)
    assert (data.reads, seen) == (20, [8, 8, 4])
