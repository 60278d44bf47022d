"""Images in other units than a model takes: refused by encode, or converted where it is told them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.models.units import UNITS, choose_units, to_stored
from tests.support.model.nano import SIZE, nano_model
from tests.support.model.stores import describe

RNG = np.random.default_rng(0)
STORED = RNG.integers(1, 256, (2, 3, 64, 64), dtype=np.uint8)
"""Two images for ``lores``, whose units are those of display."""
POWER = RNG.gamma(1.0, 0.1, (2, 2, 64, 64)).astype(np.float32)
"""Two images of radar power for ``sar``; a few values exceed 1, as of ships and towns."""
S2 = Modality(
    name="s2", sensor="sentinel-2", zoom=15, gsd_ratio=1.0, size_px=256,
    bands=("red", "nir"), units="reflectance", scale=(0.002, 0.004), offset=(-0.002, -0.004),
    mean=(60.0, 90.0), std=(40.0, 50.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return nano_model().eval()


@pytest.fixture(scope="module")
def multispectral():
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="scale-mae", size=SIZE, modalities=(S2,), objectives=("reconstruction",)
    )
    return ScaleMae(config).eval()


def as_floats(images):
    return images.astype(np.float32)


def z_scores(images):
    wide = as_floats(images)
    return (wide - wide.mean()) / wide.std()


def with_one(images, odd):
    """A batch whose second image is another."""
    batch = as_floats(images)
    batch[1] = odd[1]
    return batch


def with_fill(images):
    wide = as_floats(images)
    wide[0, :, :20, :20] = -9999
    return wide


@pytest.mark.parametrize(
    ("images", "seen"),
    [
        (as_floats(STORED) / 255, r"float32 from 0\.00\d+ to 1;"),
        (STORED / np.float64(255), "float64 from"),
        (torch.from_numpy(STORED / 255).bfloat16(), "bfloat16 from"),
        (torch.from_numpy(STORED / 255).half(), "float16 from"),
        (as_floats(STORED) / 127.5 - 1, "from -0.99.* to 1;"),
        (z_scores(STORED), r"from -1\.\d+ to 1\.\d+;"),
        (RNG.normal(0, 0.2, STORED.shape), "from -0"),
        (RNG.gamma(2.0, 0.15, STORED.shape), r"from 0\.0\d+ to [12]\.\d+;"),
        (as_floats(STORED) / 100, r"from 0\.01 to 2\.55;"),
        (STORED.astype(np.int32) * 40, "int32 from 40 to 10200;"),
        (STORED.astype(np.uint16) * 40, "uint16 from 40 to 10200;"),
        (as_floats(STORED) * 40, "float32 from 40 to 10200;"),
        (as_floats(STORED) - 50, "float32 from -49 to 205;"),
        (STORED.view(np.int8), "int8 from -128 to 127;"),
        (with_fill(STORED), "from -9999 to 255;"),
        (with_one(STORED, as_floats(STORED) / 255), "to 1;"),
        (with_one(STORED, as_floats(STORED) * 40), "from 40 to 10200;"),
    ],
)
def test_values_that_cannot_be_stored_ones_are_refused(model, images, seen):
    images = torch.as_tensor(images) if isinstance(images, np.ndarray) else images
    with pytest.raises(UsageError, match=seen) as caught:
        model.encode(images, "lores")
    message = str(caught.value)
    assert "\n" not in message
    for word in ("'lores'", "1..255, and 0 for nodata", "units display", "check_values=False"):
        assert word in message
    with torch.inference_mode():
        assert model.encode(images, "lores", check_values=False)[1].isfinite().all()


def test_a_fill_value_is_told_from_other_units(model):
    filled = np.where(RNG.random(POWER.shape) < 0.2, np.float32(-32768), 10 * np.log10(POWER))
    with pytest.raises(UsageError, match="set what was not observed to 0, or to NaN with units="):
        model.encode(filled, "sar")
    missing = np.where(filled == -32768, np.nan, filled)
    assert model.encode(missing, "sar", units="db")[1].isfinite().all()


@pytest.mark.parametrize("images", [POWER, 10 * np.log10(POWER), POWER * 0.1])
def test_radar_is_told_which_units_are_converted(model, images):
    with pytest.raises(UsageError, match=r'sar.*converted by units="dB" or "power"'):
        model.encode(torch.from_numpy(images), "sar")


@pytest.mark.parametrize(
    "images",
    [
        STORED,
        as_floats(STORED),
        STORED.astype(np.float64),
        STORED.astype(np.float16),
        as_floats(STORED) * 0.99,
        as_floats(STORED) + 0.37,
        STORED.astype(np.int16),
        STORED.astype(np.uint16),
        STORED.astype(np.int64),
        STORED // 80,
        as_floats(STORED // 80),
        STORED // 128,
        as_floats(STORED // 128),
        np.zeros_like(STORED),
        np.zeros(STORED.shape, np.float32),
        np.where(RNG.random(STORED.shape) < 0.003, 280.0, as_floats(STORED)),
        np.pad(np.full((1, 3, 1, 64), 0.4), ((0, 0), (0, 0), (0, 63), (0, 0))),
    ],
    ids=[
        *("uint8", "float32", "float64", "float16", "fractions", "shifted", "int16", "uint16"),
        *("int64", "dark", "dark-floats", "darkest", "darkest-floats", "empty", "empty-floats"),
        *("overshoots", "a-line-beside-nodata"),
    ],
)
def test_stored_values_of_any_type_pass_without_a_word(model, images):
    with torch.inference_mode():
        for each in (torch.from_numpy(images), images):
            checked = model.encode(each, "lores")
            taken = model.encode(each, "lores", check_values=False)
            assert all(map(torch.equal, checked, taken))


def test_arrays_are_taken_as_tensors_are(model):
    swapped = np.moveaxis(np.moveaxis(STORED, 1, -1).copy(), -1, 1).astype(">i2")
    swapped.flags.writeable = False
    expected = model.encode(torch.from_numpy(STORED), "lores")[1]
    for images in (STORED, STORED[:, :, ::-1][:, :, ::-1], swapped):
        assert torch.equal(model.encode(images, "lores")[1], expected)
    with pytest.raises(UsageError, match="got ndarray"):
        model.encode(STORED.astype(object), "lores")


# -- conversion


def oracle(physical, modality):
    """Stored values of physical ones by the format's formula, in exact steps."""
    shape = (1, -1, 1, 1)
    offset, scale = (np.reshape(part, shape) for part in (modality.offset, modality.scale))
    return np.clip(np.rint((physical.astype(np.float64) - offset) / scale), 1, 255).astype(np.uint8)


@pytest.mark.parametrize("units", ["db", "dB", "DB"])
def test_decibels_are_converted(model, units):
    decibel = RNG.normal(-12, 6, (2, 2, 64, 64)).astype(np.float32)
    stored = oracle(decibel, describe("sar"))
    assert stored.min() == 1
    decibel[0, :, :9] = np.nan
    stored[0, :, :9] = 0
    expected = model.encode(torch.from_numpy(stored), "sar")
    assert all(
        map(torch.equal, model.encode(torch.from_numpy(decibel), "sar", units=units), expected)
    )


@pytest.mark.parametrize("units", ["power", "linear"])
def test_power_is_converted_and_none_is_nodata(model, units):
    power = POWER.copy()
    power[0, 0, :5], power[0, 1, :5], power[1, :, 7] = 0, -32768, np.nan
    decibel = 10 * np.log10(np.where(power > 0, power, 1).astype(np.float64))
    stored = np.where(power > 0, oracle(decibel, describe("sar")), 0)
    expected = model.encode(torch.from_numpy(stored.astype(np.uint8)), "sar")
    assert all(
        map(torch.equal, model.encode(torch.from_numpy(power), "sar", units=units), expected)
    )


def test_reflectance_and_sentinel_2_numbers_are_converted(multispectral):
    numbers = RNG.integers(1, 9000, (1, 2, 32, 32)).astype(np.uint16)
    stored = oracle(numbers * 1e-4, S2)
    numbers[0, :, 3, 5], stored[0, :, 3, 5] = 0, 0
    expected = multispectral.encode(torch.from_numpy(stored), "s2")[0]
    reflectance = np.where(numbers == 0, np.nan, numbers * 1e-4)
    for images, units in ((numbers, "dn"), (reflectance, "reflectance")):
        tokens, _ = multispectral.encode(torch.from_numpy(images), "s2", units=units)
        assert torch.equal(tokens, expected)
    with pytest.raises(UsageError, match='units="reflectance" or "dn"'):
        multispectral.encode(torch.from_numpy(numbers), "s2")


def test_pixels_for_display_keep_their_black(model):
    pixels = STORED.copy()
    pixels[0, :, :16] = 0
    expected = model.encode(torch.from_numpy(np.maximum(pixels, 1)), "lores")[1]
    for images in (pixels, as_floats(pixels), pixels.astype(np.int32)):
        assert torch.equal(model.encode(images, "lores", units="uint8")[1], expected)
    missing = np.where(pixels == 0, np.nan, pixels).astype(np.float32)
    expected = model.encode(torch.from_numpy(pixels), "lores")[1]
    for units in ("uint8", "display", "stored"):
        assert torch.equal(model.encode(missing, "lores", units=units)[1], expected)
    with pytest.raises(UsageError, match=r'not finite.*units="stored"'):
        model.encode(missing, "lores")


@pytest.mark.parametrize(
    ("images", "modality", "units", "words"),
    [
        (POWER, "sar", "db", r'hardly in dB.*units="power"'),
        (10 * np.log10(POWER), "sar", "power", r'hardly power.*units="dB"'),
        (as_floats(STORED) / 255, "lores", "uint8", "hardly for display.*multiply by 255"),
        (as_floats(STORED) / 255, "lores", "stored", "expected values as stored"),
        (as_floats(STORED) * 40, "lores", "uint8", "display are 0..255; got from 40 to 10200"),
        (STORED, "lores", "reflectance", "cannot be brought to the display.*stored, uint8"),
        (STORED, "lores", "furlongs", "'furlongs' cannot be brought"),
        (with_fill(STORED[:, :2] * -0.1), "sar", "db", r"-9999 are hardly dB; if they mark .*--nodata.*NaN"),
        (with_fill(STORED[:, :2] / 300), "s2", "reflectance", "name them"),
        (with_fill(STORED[:, :2] * 20.0), "s2", "dn", "name them"),
        (STORED[:, :2] * 40.0, "s2", "reflectance", r'hardly reflectance.*units="dn"'),
        (STORED[:, :2] / 255, "s2", "dn", r'hardly Sentinel-2 numbers.*units="reflectance"'),
        (z_scores(STORED)[:, :2], "s2", "reflectance", "hardly reflectance.*normalised"),
    ],
)  # fmt: skip
def test_values_in_other_units_than_said_are_refused(
    model, multispectral, images, modality, units, words
):
    encoder = multispectral if modality == "s2" else model
    with pytest.raises(UsageError, match=words) as caught:
        encoder.encode(images, modality, units=units)
    assert modality in str(caught.value)


def test_said_units_are_taken_without_a_check_too(model):
    expected = model.encode(np.full((1, 2, 32, 32), 255, np.uint8), "sar")[1]
    bright = np.full((1, 2, 32, 32), 90.0, np.float32)
    assert torch.equal(model.encode(bright, "sar", units="db", check_values=False)[1], expected)
    white = np.full((1, 3, 32, 32), 255, np.uint8)
    encoded = model.encode(white * 2.0, "lores", units="uint8", check_values=False)[1]
    assert torch.equal(encoded, model.encode(white, "lores")[1])


MODALITIES = {"sar": describe("sar"), "lores": describe("lores"), "s2": S2}


@given(
    data=st.data(),
    named=st.sampled_from(
        [("sar", "db"), ("sar", "power"), ("lores", "uint8"), ("s2", "reflectance"), ("s2", "dn")]
    ),
)
def test_stored_values_there_and_back_are_the_same(data, named):
    """Also at the middle between two steps the error is half a step, within rounding of float32."""
    modality, units = MODALITIES[named[0]], choose_units(MODALITIES[named[0]], named[1], "float32")
    shape = (len(modality.bands), 2, 3)
    stored = data.draw(arrays(np.uint8, shape, elements=st.integers(0, 255)))
    shift = data.draw(st.floats(-0.49, 0.49))
    offset, scale = (np.reshape(p, (-1, 1, 1)) for p in (modality.offset, modality.scale))
    physical = offset + scale * (stored + shift * ((stored > 1) & (stored < 255)))
    values = {"power": 10 ** (physical / 10), "dn": physical * 10_000}.get(units, physical)
    values = np.where(stored == 0, np.nan, values).astype(np.float32)
    # Black 0 is a number of Sentinel-2's, and nothing observed.
    observed = (stored > 0) & ~((units == "dn") & (values == 0))
    assert np.array_equal(to_stored(values, modality, units), np.where(observed, stored, 0))


def test_every_name_of_units_is_converted_for_some_modality():
    taken = set()
    for name in UNITS:
        for modality in MODALITIES.values():
            try:
                choose_units(modality, name.upper(), "float32")
            except UsageError:
                continue
            taken.add(name)
    assert taken == set(UNITS)


# -- where nothing is looked at


def test_an_exported_model_has_no_check(model):
    """Also of floating images, whose values a graph cannot branch on."""

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model.encode(images, "lores")[1]

    images = torch.from_numpy(as_floats(STORED))
    exported = torch.export.export(Encoder(), (images,), strict=False).module()
    torch.testing.assert_close(exported(images), model.encode(images, "lores")[1])


def test_autocast_and_inference_mode_change_nothing_of_the_check(model):
    images = torch.from_numpy(STORED)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            model.encode(images.float(), "lores")[1], model.encode(images, "lores")[1]
        )
        with pytest.raises(UsageError, match="expected values as stored"):
            model.encode(images / 255, "lores")
