"""Folders of images in other units than a model was trained on: named, converted, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import Modality
from salibi_model.evals.datasets.open import open_labelled
from salibi_model.evals.evaluate import evaluate
from salibi_model.evals.features import FrozenModel, extract_features
from salibi_model.evals.options import KnnOptions
from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from tests.support.model.nano import SIZE, nano_model

S2 = Modality(
    name="s2", sensor="sentinel-2", zoom=15, gsd_ratio=1.0, size_px=256, bands=("red", "nir"),
    units="reflectance", scale=(0.002, 0.004), offset=(-0.002, -0.004), mean=(60.0, 90.0),
    std=(40.0, 50.0),
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # of the writer below
)


@pytest.fixture(scope="module")
def model():
    return nano_model(base_gsd_m=5.0).eval()


@pytest.fixture(scope="module")
def multispectral():
    return ScaleMae(
        ModelConfig(
            architecture="scale-mae", size=SIZE, modalities=(S2,), objectives=("reconstruction",)
        )
    ).eval()


def folder_of(root, make, bands):
    """GeoTIFFs of two classes, five each: ``make`` of values about 1, dark and bright."""
    for label, mean in (("dark", 0.5), ("bright", 1.5)):
        (root / label).mkdir(parents=True)
        for k in range(5):
            rng = np.random.default_rng(10 * len(label) + k)
            values = make(rng.gamma(20, mean / 20, (len(bands), 32, 32)))
            fields = {"count": len(bands), "height": 32, "width": 32, "dtype": values.dtype}
            with rasterio.open(root / label / f"{k}.tif", "w", driver="GTiff", **fields) as file:
                file.write(values)
                file.descriptions = bands
    return root


RGB, RADAR = ("red", "green", "blue"), ("vv", "vh")


def measured(model, root, bands, **options):
    data = open_labelled(root, gsd_m=10.0, **options)
    (modality,) = {m.name for m in model.config.modalities if m.bands == bands} - {"hires_4x"}
    scores = evaluate(model, [data], KnnOptions(k=1), name="nano")
    assert {score.num_test for score in scores} == {2}
    return extract_features(FrozenModel(model, data, modality), "test").vectors


@pytest.mark.parametrize(
    ("make", "bands", "words"),
    [
        (lambda v: (v * 4000).astype(np.uint16), RGB, r"from \d+ to 1\d{4}.*'lores'.*display"),
        (lambda v: (v / 5).astype(np.float32), RGB, r"values from 0\.0\d+ to 0\.\d+, and 'lores'"),
        (lambda v: (v - 1).astype(np.float32), RGB, r"values from -0\.\d+ to .*'lores'"),
        (lambda v: (v / 10).astype(np.float32), RADAR, "'sar' was trained on dB.*uint8, db, power"),
        (lambda v: (v * 900).astype(np.uint16), RADAR, "'sar' was trained on dB.*uint8, db, power"),
    ],
    ids=["numbers", "0..1", "z-scores", "power", "amplitude"],
)
def test_units_that_are_not_known_have_to_be_named(model, tmp_path, make, bands, words):
    root = folder_of(tmp_path / "images", make, bands)
    with pytest.raises(UsageError, match=rf"images: the images have .*{words}") as caught:
        measured(model, root, bands)
    assert "--units" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "bands"),
    [
        (lambda v: (v * 90).clip(1, 255).astype(np.uint8), RGB),
        (lambda v: (v * 90).clip(1, 255).astype(np.uint16), RGB),
        (lambda v: (v * 90).clip(1, 255).astype(np.float32), RGB),
        (lambda v: (v * 2).astype(np.uint8), RGB),
        (lambda v: (v * 90).clip(1, 255).astype(np.uint8), RADAR),
        (lambda v: (10 * np.log10(v / 10)).astype(np.float32), RADAR),
    ],
    ids=["8-bit", "16-bit", "floats", "dark", "8-bit-radar", "dB"],
)
def test_units_that_are_known_need_no_name(model, tmp_path, make, bands):
    measured(model, folder_of(tmp_path / "images", make, bands), bands)


def test_reflectance_is_known_to_its_own_model_alone(multispectral, tmp_path):
    bands = S2.bands
    reflectance = folder_of(tmp_path / "a", lambda v: (v / 5).astype(np.float32), bands)
    numbers = folder_of(tmp_path / "b", lambda v: (v * 2000).astype(np.uint16), bands)
    expected = measured(multispectral, reflectance, bands)
    with pytest.raises(UsageError, match=r"'s2' was trained on reflectance.*reflectance, dn"):
        measured(multispectral, numbers, bands)
    assert np.allclose(measured(multispectral, numbers, bands, units="dn"), expected, atol=1e-2)


def test_power_is_converted_to_decibels(model, tmp_path):
    power = folder_of(tmp_path / "a", lambda v: (v / 10).astype(np.float32), RADAR)
    decibel = folder_of(tmp_path / "b", lambda v: 10 * np.log10((v / 10).astype(np.float32)), RADAR)
    expected = measured(model, decibel, RADAR)
    for name in ("power", "LINEAR"):
        assert np.allclose(measured(model, power, RADAR, units=name), expected, atol=1e-4)
    assert np.array_equal(measured(model, decibel, RADAR, units="db"), expected)


def test_what_marks_nodata_in_the_units_is_no_value(tmp_path):
    def with_hole(values):
        numbers = (values * 100).clip(1, 255).astype(np.uint8)
        numbers[:, :4] = 0
        return numbers

    root = folder_of(tmp_path / "images", with_hole, RGB)
    plain, stored, numbers = (
        open_labelled(root, gsd_m=10.0, units=units) for units in (None, "stored", "dn")
    )
    assert (plain.read([0], RGB)[0, :, :4] == 0).all()
    for data in (stored, numbers):
        assert np.isnan(data.read([0], RGB)[0, :, :4]).all()
        assert np.isfinite(data.read([0], RGB)[0, :, 4:]).all()
        assert data.digest != plain.digest
    empty = folder_of(tmp_path / "empty", lambda v: np.zeros(v.shape, np.uint8), RGB)
    with pytest.raises(StoreError, match="every pixel is nodata in units stored"):
        open_labelled(empty, gsd_m=10.0, units="stored").read([0], RGB)


@pytest.mark.parametrize(
    ("make", "bands", "units", "words"),
    [
        (lambda v: 10 * np.log10(v / 10), RADAR, "power", "hardly power"),
        (lambda v: v / 10, RADAR, "db", "hardly in dB"),
        (lambda v: v / 10, RADAR, "dn", "images in dn do not suit 'sar'"),
        (lambda v: v * 4000, RGB, "uint8", "in units display they lie within 0..255"),
        (lambda v: v * 4000, RGB, "stored", "in units stored they lie within 0..255"),
        (lambda v: v * 4000, RGB, "reflectance", "hardly reflectance"),
        (lambda v: v / 5, RGB, "dn", "hardly Sentinel-2 numbers"),
        (lambda v: v / 5, RGB, "furlongs", "no units 'furlongs'"),
    ],
)
def test_values_in_other_units_than_named_are_refused(model, tmp_path, make, bands, units, words):
    root = folder_of(tmp_path / "images", lambda v: make(v).astype(np.float32), bands)
    with pytest.raises(UsageError, match=words):
        measured(model, root, bands, units=units)
