"""Resampling against GDAL, against plain loops, and what becomes of nodata."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject

from salibi_model.data.resample import resample, resample_stored
from tests.support.model.stores import describe


def by_gdal(image, shape, method, nodata=None):
    """Warp one band to ``shape`` over the same ground."""
    rows, cols = image.shape
    out = np.zeros(shape, np.float32)
    reproject(
        image.astype(np.float32),
        out,
        src_transform=from_origin(0, rows, 1, 1),
        dst_transform=from_origin(0, rows, cols / shape[1], rows / shape[0]),
        src_crs="EPSG:3857",
        dst_crs="EPSG:3857",
        src_nodata=nodata,
        dst_nodata=nodata,
        resampling=method,
    )
    return out


def covered(old, new, i):
    """Share of each old pixel in new pixel i of one axis, by hand: area, or nearest two centres."""
    if new < old:
        low, high = i * old / new, (i + 1) * old / new
        return {
            p: (min(high, p + 1) - max(low, p)) / (high - low)
            for p in range(old)
            if min(high, p + 1) - max(low, p) > 1e-12
        }
    at = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
    low = min(int(at), max(old - 2, 0))
    return {low: 1 - (at - low), min(low + 1, old - 1): at - low} if old > 1 else {0: 1.0}


def by_loop(image, valid, shape):
    """One band, pixel by pixel: values, 0 where less than half the weight is valid; and weights."""
    values, weights = np.zeros(shape), np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            parts = [
                (a * b, r, c)
                for r, a in covered(image.shape[0], shape[0], i).items()
                for c, b in covered(image.shape[1], shape[1], j).items()
            ]
            weights[i, j] = sum(w for w, r, c in parts if valid[r, c])
            if weights[i, j] > 0:
                total = sum(w * float(image[r, c]) for w, r, c in parts if valid[r, c])
                values[i, j] = total / weights[i, j]
    return values, weights


def ours(image, shape, nodata=0):
    values = torch.from_numpy(image.astype(np.float32))[None, None]
    out, valid = resample(values, values != nodata, shape)
    return out[0, 0].numpy(), valid[0, 0].numpy()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shrinking_by_whole_numbers_is_gdals_average(factor):
    rng = np.random.default_rng(factor)
    image = rng.integers(1, 256, (64, 64)).astype(np.uint8)
    image[:20, 10:30] = 0
    shape = (64 // factor, 64 // factor)
    values, valid = ours(image, shape)
    expected = by_gdal(image, shape, Resampling.average, nodata=0)
    assert 0 < (~valid).sum() < valid.sum()
    np.testing.assert_allclose(values[valid], expected[valid], rtol=1e-5)


@pytest.mark.parametrize("shape", [(48, 48), (36, 60), (25, 25)])
def test_enlarging_is_gdals_bilinear_warp(shape):
    image = np.random.default_rng(0).integers(1, 256, (24, 24)).astype(np.uint8)
    values, valid = ours(image, shape)
    assert valid.all()
    np.testing.assert_allclose(values, by_gdal(image, shape, Resampling.bilinear), atol=0.05)


sizes = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 1000), st.floats(0, 1))
def test_values_and_validity_are_those_of_a_plain_loop(rows, cols, new_rows, new_cols, seed, holes):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (rows, cols))
    image[rng.random(image.shape) < holes] = 0
    values, valid = ours(image, (new_rows, new_cols))
    expected, weights = by_loop(image, image != 0, (new_rows, new_cols))
    clear = abs(weights - 0.5) > 1e-3  # at the half itself either is right, up to rounding
    assert (valid == (weights >= 0.5))[clear].all()
    np.testing.assert_allclose(values[valid], expected[valid], rtol=1e-3)
    assert (values[~valid] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 20), st.integers(1, 30), st.floats(0, 0.9))
def test_stored_radar_is_averaged_in_power(seed, edge, new, holes):
    modality = describe("sar")
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (1, 2, edge, edge)).astype(np.uint8)
    images[rng.random(images.shape) < holes] = 0
    out = resample_stored(torch.from_numpy(images), modality, (new, new))[0].numpy()
    for band in range(2):
        offset, scale = modality.offset[band], modality.scale[band]
        power = 10 ** ((offset + scale * images[0, band].astype(float)) / 10)
        mean, weights = by_loop(power, images[0, band] != 0, (new, new))
        for i, j in np.ndindex(new, new):
            if abs(weights[i, j] - 0.5) < 1e-3:
                continue
            if weights[i, j] < 0.5:
                assert out[band, i, j] == 0
            else:
                stored = (10 * math.log10(mean[i, j]) - offset) / scale
                assert abs(int(out[band, i, j]) - stored) <= 0.51
                assert out[band, i, j] > 0


def test_power_and_decibels_differ_where_it_matters():
    """Half water, half town: the mean of the decibels would be far too dark."""
    modality = describe("sar")
    images = torch.full((1, 2, 2, 2), 20, dtype=torch.uint8)
    images[..., 1] = 200
    mean = resample_stored(images, modality, (1, 1)).flatten().tolist()
    assert mean == [180, 180]  # 200 is 27 dB above 20: half its power is 3 dB, 20 steps, less


@pytest.mark.parametrize("name", ["sar", "lores"])
def test_nodata_is_neither_invented_nor_lost(name):
    modality = describe(name)
    shape = (1, len(modality.bands), 16, 16)
    for new in (5, 8, 16, 40):
        darkest = torch.ones(shape, dtype=torch.uint8)
        assert (resample_stored(darkest, modality, (new, new)) == 1).all()
        nothing = torch.zeros(shape, dtype=torch.uint8)
        assert (resample_stored(nothing, modality, (new, new)) == 0).all()


def test_the_same_size_is_the_same_image():
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert resample_stored(image, describe("lores"), (8, 8)) is image
