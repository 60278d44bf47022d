"""Crops: the same ground in every modality, at the GSD that is told, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.data.crops import Crop
from tests.support.model.stores import describe

BASE, FINE = describe("hires"), describe("hires_4x")
MODALITIES = (BASE, FINE)
seeds = st.integers(0, 2**62)


@given(seeds, st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 512))
def test_windows_are_within_the_sample_and_of_the_edges_asked_for(seed, a, b, size_px):
    low, high = sorted((a, b))
    crop = Crop(min_share=low, max_share=high, size_px=size_px)
    if int(low * 256) + 1 > high * 256:  # there may be no whole pixel between the two
        return
    crop.check(MODALITIES)
    window = crop.window(seed, MODALITIES)
    assert low * 256 - 1e-6 <= window.edge <= high * 256 + 1e-6
    assert 0 <= window.row <= 256 - window.edge
    assert 0 <= window.col <= 256 - window.edge
    assert window == crop.window(seed, MODALITIES)
    assert window.gsd_scale == window.edge / size_px


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([32, 48, 64]))
def test_a_base_pixel_stays_the_mean_of_its_fine_pixels(seed, size_px):
    """Whole pixels and shrinking: exact but for the rounding to stored values."""
    rng = np.random.default_rng(seed)
    base = rng.integers(1, 256, (3, 256, 256)).astype(np.uint8)
    fine = base.repeat(2, axis=1).repeat(2, axis=2)
    window = Crop(min_share=0.25, max_share=1.0, size_px=size_px).window(seed, MODALITIES)
    coarse, finer = window.cut(base, BASE), window.cut(fine, FINE)
    assert coarse.shape == (3, size_px, size_px)
    assert finer.shape == (3, 2 * size_px, 2 * size_px)
    halved = finer.reshape(3, size_px, 2, size_px, 2).mean(axis=(2, 4))
    assert abs(halved - coarse).max() <= 1


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([32, 112, 224, 300]), st.booleans())
def test_pixels_stand_where_they_should_on_the_ground(seed, size_px, across):
    """Images that show their own ground coordinate show it afterwards, in all modalities."""
    window = Crop(min_share=0.1, max_share=1.0, size_px=size_px).window(seed, MODALITIES)
    for modality in MODALITIES:
        ground = (np.arange(modality.size_px) + 0.5) * modality.gsd_ratio  # in base pixels
        ramp = np.broadcast_to(np.rint(ground * 0.9 + 10), (3, modality.size_px, modality.size_px))
        image = (ramp if across else ramp.transpose(0, 2, 1)).astype(np.uint8)
        out = window.cut(np.ascontiguousarray(image), modality)
        start = window.col if across else window.row
        pixel = window.gsd_scale * modality.gsd_ratio
        expected = (start + (np.arange(out.shape[1]) + 0.5) * pixel) * 0.9 + 10
        shown = out[0].mean(axis=0 if across else 1)
        inner = slice(2, -2)  # half a pixel at the edge repeats the outermost
        assert abs(shown - expected)[inner].max() <= 1.5


def test_the_whole_at_its_own_size_is_the_sample_itself():
    crop = Crop(min_share=1.0, max_share=1.0, size_px=256)
    window = crop.window(5, MODALITIES)
    image = np.random.default_rng(0).integers(0, 256, (3, 512, 512)).astype(np.uint8)
    assert np.array_equal(window.cut(image, FINE), image)
    assert window.gsd_scale == 1.0


def test_all_places_and_edges_occur():
    crop = Crop(min_share=0.99, max_share=1.0, size_px=64)
    windows = [crop.window(seed, MODALITIES) for seed in range(300)]
    assert {window.edge for window in windows} == {254, 255, 256}
    assert {(w.row, w.col) for w in windows if w.edge == 255} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_windows_are_whole_pixels_of_a_coarser_modality():
    coarse = Modality(
        name="coarse",
        sensor="s",
        zoom=14,
        gsd_ratio=2.0,
        size_px=128,
        bands=("b",),
        units="display",
        scale=(1.0,),
        offset=(0.0,),
    )
    crop = Crop(min_share=0.3, max_share=0.9, size_px=32)
    crop.check((BASE, coarse))
    for seed in range(20):
        window = crop.window(seed, (BASE, coarse))
        assert (window.row % 2, window.col % 2, window.edge % 2) == (0, 0, 0)
    with pytest.raises(UsageError, match=r"16\.5 px of 'coarse'; take a multiple of 2"):
        Crop(min_share=0.3, max_share=0.9, size_px=33).check((BASE, coarse))


@pytest.mark.parametrize(
    ("shares", "size_px", "message"),
    [
        ((0.0, 1.0), 64, "shares above 0 and up to 1"),
        ((0.5, 0.4), 64, "the smaller one first"),
        ((0.5, 1.5), 64, "shares above 0 and up to 1"),
        ((0.5, 1.0), 0, "expected 1 or more"),
    ],
)
def test_crops_that_do_not_fit_are_refused(shares, size_px, message):
    with pytest.raises(UsageError, match=message):
        Crop(min_share=shares[0], max_share=shares[1], size_px=size_px)


def test_shares_without_a_whole_pixel_are_refused():
    with pytest.raises(UsageError, match="take other shares"):
        Crop(min_share=0.5001, max_share=0.5002, size_px=64).check(MODALITIES)
