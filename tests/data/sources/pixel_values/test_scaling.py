"""Scale and offset: the catalog's TOML, else the item, else the file; never of 8-bit renderings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.catalogs import made_rasters as made
from tests.support.catalogs.made_rasters import textured

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = textured().astype(np.uint16) * 30
ITEM = {"declared": {"image": ({"scale": 2e-4, "offset": -0.1}, {"scale": 1e-4}, {"scale": 3e-4})}}
FILE = {"scales": (1e-4, 2e-4, 1e-4), "offsets": (0.02, 0.0, 0.1)}


@pytest.mark.parametrize(
    ("toml", "item", "tags", "scale", "offset"),
    [
        ({"scale": 1e-4}, ITEM, FILE, [1e-4] * 3, [0] * 3),
        ({"scale": 1e-4, "offset": -0.2}, ITEM, FILE, [1e-4] * 3, [-0.2] * 3),
        ({}, ITEM, FILE, [2e-4, 1e-4, 3e-4], [-0.1, 0, 0]),
        ({}, ITEM, {}, [2e-4, 1e-4, 3e-4], [-0.1, 0, 0]),
        ({}, {"declared": {"image": ({"scale": 1e-4},)}}, {}, [1e-4] * 3, [0] * 3),
        ({}, {"declared": {"other": ({"scale": 1.0},)}}, FILE, FILE["scales"], FILE["offsets"]),
        ({}, None, FILE, FILE["scales"], FILE["offsets"]),
    ],
)
def test_the_nearest_statement_to_the_user_counts(
    tmp_path: Path, toml: Any, item: Any, tags: Any, scale: Any, offset: Any
) -> None:
    made.write(tmp_path / "a.tif", COUNTS, **tags)
    raster = made.read(tmp_path / "a.tif", units="reflectance", scene=item, **toml)
    columns = (np.array(each, np.float64)[:, None, None] for each in (scale, offset))
    factor, summand = columns
    assert np.allclose(raster.values, COUNTS * factor + summand, atol=1e-6)
    assert raster.integer_bound is None


def test_a_16_bit_rendering_is_brought_to_8_bits_by_its_declared_scale(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", COUNTS)
    item = {"declared": {"image": ({"scale": 1 / 30},)}}
    raster = made.read(tmp_path / "a.tif", scene=item)
    assert np.allclose(raster.values, textured(), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"categorical": True}])
def test_8_bit_renderings_and_classes_keep_their_numbers(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Providers copy the scale of their reflectance to both."""
    made.write(tmp_path / "a.tif", textured(), **FILE)
    raster = made.read(tmp_path / "a.tif", scene=ITEM, **options)
    assert np.array_equal(raster.values, textured())
    assert raster.integer_bound == 255


def test_8_bit_reflectance_is_scaled(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured())
    item = {"declared": {"image": ({"scale": 1 / 255},)}}
    raster = made.read(tmp_path / "a.tif", units="reflectance", scene=item)
    assert np.allclose(raster.values, textured() / 255, atol=1e-6)
