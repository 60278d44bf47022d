"""Figures: native pixels, aligned panels, readable titles."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from salibi_data.inspection.panels import (
    GAP_PX,
    MARGIN_PX,
    FigureError,
    Panel,
    check_path,
    save_panels,
)
from salibi_data.store.render_rgb import as_rgb
from salibi_data.store.schema import Modality


def image(edge, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (edge, edge, 3), dtype=np.uint8)


def read(path):
    with Image.open(path) as figure:
        return np.asarray(figure)


def find(canvas, wanted):
    """Where (row, column) the array ``wanted`` is in ``canvas``."""
    height, width = wanted.shape[:2]
    corner = (canvas == wanted[0, 0]).all(axis=2)
    return [
        (int(y), int(x))
        for y, x in zip(*np.nonzero(corner), strict=True)
        if np.array_equal(canvas[y : y + height, x : x + width], wanted)
    ]


def test_panels_are_shown_at_native_pixels_with_equal_edges(tmp_path):
    coarse, fine = image(256), image(512, 1)
    path = tmp_path / "figures/grid.png"
    save_panels(
        [[Panel(title="low", image=coarse), Panel(title="high", image=fine)]],
        path,
        row_labels=["sample 7"],
        heading="A heading",
    )
    canvas = read(path)
    (low_y, low_x), (high_y, high_x) = (
        find(canvas, coarse.repeat(2, axis=0).repeat(2, axis=1))[0],
        find(canvas, fine)[0],
    )
    assert low_y == high_y
    assert high_x - low_x == 512 + GAP_PX
    assert canvas[0, 0].tolist() == [255, 255, 255]
    assert (canvas[:low_y] < 128).any()  # titles and heading
    assert (canvas[low_y:, MARGIN_PX : low_x - 1] < 128).any()  # the row's label


def test_rows_with_titles_of_their_own_have_them(tmp_path):
    rows = [[Panel(title=f"title {i}", image=image(256, i))] for i in range(2)]
    save_panels(rows, tmp_path / "own.png", edge_px=256)
    canvas = read(tmp_path / "own.png")
    (first, _), (second, _) = (find(canvas, row[0].image)[0] for row in rows)
    assert second - first > 256 + GAP_PX
    assert (canvas[first + 256 : second] < 128).any()


@pytest.mark.parametrize(
    "wrong", [image(300), image(256)[:, :128], image(256).astype(float), image(256)[..., 0]]
)
def test_what_would_be_resampled_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected"):
        save_panels([[Panel(title="x", image=wrong)]], tmp_path / "x.png")


def modality(bands, units="display"):
    return Modality(
        name="x",
        sensor="naip",
        zoom=17,
        gsd_ratio=1.0,
        size_px=256,
        bands=("a", "b", "c")[:bands],
        units=units,
        scale=(1.0,) * bands,
        offset=(0.0,) * bands,
        mean=(100.0,) * bands,
        std=(20.0,) * bands,
    )


@pytest.mark.parametrize(
    "name", ["grid.xyz", "grid", "", "grid.psd", "grid.fits", "grid.h5", "grid.xbm", "grid.PSD"]
)
def test_what_names_no_picture_is_refused(tmp_path, name):
    with pytest.raises(FigureError, match="names no picture"):
        save_panels([[Panel(title="x", image=image(256))]], tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_stored_images_become_colours(bands):
    stored = np.random.default_rng(0).integers(1, 255, (bands, 8, 8), dtype=np.uint8)
    shown = as_rgb(stored, modality(bands))
    assert shown.shape == (8, 8, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown[..., 0], stored[0])


def test_sar_is_stretched_and_nodata_stays_black():
    stored = np.array([[[0, 1, 100, 150, 255]], [[0, 50, 100, 150, 255]]], np.uint8)
    shown = as_rgb(stored, modality(2, "dB"))
    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_a_finer_image_is_averaged_by_a_whole_factor(tmp_path):
    fine = image(512)
    save_panels([[Panel(title="x", image=fine)]], tmp_path / "x.png", edge_px=256)
    halved = fine.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    panel = read(tmp_path / "x.png")[-MARGIN_PX - GAP_PX - 256 : -MARGIN_PX - GAP_PX, MARGIN_PX:][
        :, :256
    ]
    assert np.abs(panel - halved).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "pdf", "gif", "BMP"])
def test_what_is_accepted_is_written(tmp_path, suffix):
    path = tmp_path / f"grid.{suffix}"
    check_path(path)
    save_panels([[Panel(title="x", image=image(256))]], path)
    assert path.stat().st_size
