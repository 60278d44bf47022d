"""Masks inside of files and beside them, and alpha bands; rasterio's own mask is the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from salibi_data.store.errors import ReadError
from tests.support.catalogs import made_rasters as made
from tests.support.catalogs.made_rasters import ALPHA, PX, RGB, disc, textured
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

JPEG = {
    "compress": "jpeg",
    "photometric": "ycbcr",
    "tiled": True,
    "blockxsize": 64,
    "blockysize": 64,
}


def with_alpha(dtype: str, opaque: float, bands: int = 3) -> NDArray[Any]:
    """Pixels and an alpha band after them, with a soft edge."""
    alpha = np.where(disc(), opaque, 0)
    alpha[: PX // 4] = np.where(alpha[: PX // 4] > 0, opaque // 3, 0)
    return np.concatenate([textured(bands), alpha[None]]).astype(dtype)


def internal(path: Path) -> Path:
    return made.write(path, textured(), visible=disc())


def jpeg(path: Path) -> Path:
    return made.write(path, np.where(disc(), textured(), 3).astype("u1"), visible=disc(), **JPEG)


def cog(path: Path) -> Path:
    return made.write(path, textured(), visible=disc(), driver="COG")


def sidecar(path: Path) -> Path:
    made.write(path, textured(), visible=disc(), internal=False)
    assert path.with_suffix(".tif.msk").exists()
    return path


def alpha_8_bit(path: Path) -> Path:
    return made.write(path, with_alpha("uint8", 255), colours=(*RGB, ALPHA))


def alpha_16_bit(path: Path) -> Path:
    return made.write(path, with_alpha("uint16", 65535), colours=(*RGB, ALPHA))


KINDS = [internal, jpeg, cog, sidecar, alpha_8_bit, alpha_16_bit]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nodata", [None, 77, [77, 78], "footprint"])
def test_what_a_mask_hides_is_missing_whatever_the_missing_value(
    tmp_path: Path, kind: Callable[[Path], Path], nodata: Any
) -> None:
    path = kind(tmp_path / "a.tif")
    with rasterio.open(path) as dataset:
        expected, pixels = dataset.dataset_mask() > 0, dataset.read([1, 2, 3])
    assert np.array_equal(expected, disc())
    scene = None
    if isinstance(nodata, str):
        bounds = transform_bounds("EPSG:3857", "OGC:CRS84", *made.GRID.bounds_3857)
        west, south, east, north = bounds
        scene = {"footprint": mapping(box(west - 1, south - 1, (west + east) / 2, north + 1))}
        expected &= np.arange(PX) < PX / 2
    elif nodata is not None:
        expected &= ~np.isin(pixels, nodata).any(axis=0)
    raster = made.read(path, nodata=nodata, scene=scene)
    assert np.array_equal(made.observed(raster), expected)
    assert np.array_equal(raster.values[:, expected], pixels[:, expected])


def test_an_alpha_band_counts_at_any_place(tmp_path: Path) -> None:
    """GDAL itself looks for it only behind one band or three."""
    five = with_alpha("uint8", 255, bands=4)
    gray = with_alpha("uint8", 255, bands=1)
    made.write(tmp_path / "5.tif", five, colours=(*RGB, ColorInterp.undefined, ALPHA))
    made.write(tmp_path / "2.tif", gray, colours=(ColorInterp.gray, ALPHA))
    assert np.array_equal(made.observed(made.read(tmp_path / "5.tif", (1, 2, 3, 4))), disc())
    assert np.array_equal(made.observed(made.read(tmp_path / "2.tif", (1,))), disc())


def test_an_alpha_band_that_is_asked_for_is_data(tmp_path: Path) -> None:
    pixels = with_alpha("uint8", 255)
    made.write(tmp_path / "a.tif", pixels, colours=(*RGB, ALPHA))
    raster = made.read(tmp_path / "a.tif", (1, 2, 3, 4))
    assert np.array_equal(raster.values, pixels)


@pytest.mark.parametrize("options", [{}, {"driver": "COG"}, {"width": 3000}])
def test_near_infrared_that_is_tagged_alpha_hides_nothing(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Water is 0 there. The product names the band, whether or not it is read."""
    pixels = textured(4)
    pixels[3, :, : PX // 2] = 0
    if "width" in options:  # too large to be judged as a whole, without overviews
        pixels = np.concatenate([pixels] + [textured(4, seed=1)] * 20, axis=2)
    is_cog = options.get("driver") == "COG"
    more = {"driver": "COG", "photometric": "RGB"} if is_cog else {}
    made.write(tmp_path / "a.tif", pixels, colours=() if is_cog else (*RGB, ALPHA), **more)
    if is_cog:
        with rasterio.open(tmp_path / "a.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            dataset.colorinterp = (*RGB, ALPHA)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.colorinterp[3] == ALPHA
    raster = made.read(tmp_path / "a.tif", named=4)
    assert np.array_equal(raster.values, pixels[:3, :, : raster.values.shape[2]])
    hidden = made.read(tmp_path / "a.tif", named=3)
    assert not made.observed(hidden)[:, : PX // 2].any()


@pytest.mark.parametrize("brightest", [0, 1, 9])
def test_near_infrared_of_water_alone_hides_nothing(tmp_path: Path, brightest: int) -> None:
    """It has few values, which are small, and 0 where the water is darkest."""
    pixels = textured(4)
    pixels[3] = np.where(disc(), brightest, 0)
    made.write(tmp_path / "a.tif", pixels, colours=(*RGB, ALPHA))
    assert made.observed(made.read(tmp_path / "a.tif", named=4)).all()


def test_opacity_hides_although_the_product_names_its_band(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", with_alpha("uint8", 255), colours=(*RGB, ALPHA))
    assert np.array_equal(made.observed(made.read(tmp_path / "a.tif", named=4)), disc())


def test_masks_of_single_bands_hide_the_pixel(tmp_path: Path) -> None:
    pixels = textured()
    made.write(tmp_path / "a.tif", pixels)
    masks = np.full((3, PX, PX), 255, np.uint8)
    masks[0, :10], masks[2, -10:] = 0, 0
    made.write(tmp_path / "a.tif.msk", masks)
    with rasterio.open(tmp_path / "a.tif.msk", "r+") as dataset:
        dataset.update_tags(**{f"INTERNAL_MASK_FLAGS_{k}": "0" for k in (1, 2, 3)})
    rows = np.arange(PX)[:, None]
    all_bands = made.observed(made.read(tmp_path / "a.tif"))
    assert np.array_equal(all_bands, np.broadcast_to((rows >= 10) & (rows < PX - 10), (PX, PX)))
    assert made.observed(made.read(tmp_path / "a.tif", (2,))).all()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        oracle = (dataset.read_masks() > 0).all(axis=0)
    assert np.array_equal(all_bands, oracle)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured())
    made.write(tmp_path / "a.tif.msk", np.zeros((1, 8, 9), np.uint8))
    with pytest.raises(ReadError, match=r"a\.tif\.msk of scene-1 has 8 x 9 .* 64 x 64") as caught:
        made.read(tmp_path / "a.tif")
    assert caught.value.kind == "unusable"


def test_a_damaged_mask_is_no_absent_one(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured())
    (tmp_path / "a.tif.msk").write_bytes(b"II*\0nothing more")
    with pytest.raises(ReadError, match=r"mask .*a\.tif\.msk of scene-1 cannot be read"):
        made.read(tmp_path / "a.tif")


def test_a_mask_beside_a_remote_file_is_looked_for_once(tmp_path: Path) -> None:
    sidecar(tmp_path / "with.tif")
    made.write(tmp_path / "without.tif", textured())
    internal(tmp_path / "inside.tif")
    made.write(tmp_path / "cog.tif", textured(), driver="COG")
    with serve(RangeServer(tmp_path)) as server:
        masked = made.read(f"{server.url}/with.tif")
        assert np.array_equal(made.observed(masked), disc())
        for name in ("without", "inside", "cog") * 2:
            seen = made.observed(made.read(f"{server.url}/{name}.tif"))
            assert np.array_equal(seen, disc()) if name == "inside" else seen.all()
        assert server.count("without.tif.msk") == 1
        assert server.count("inside.tif.msk") == server.count("cog.tif.msk") == 0
        requests = server.count("with.tif.msk")
        made.read(f"{server.url}/with.tif", nodata=0)
        assert server.count("with.tif.msk") == requests


def test_a_class_that_a_mask_hides_is_unknown(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 12, (1, PX, PX), dtype=np.uint8)
    made.write(tmp_path / "a.tif", classes, visible=disc())
    raster = made.read(tmp_path / "a.tif", (1,), categorical=True)
    assert np.array_equal(made.observed(raster), disc())


@settings(max_examples=20)
@given(
    pixels=arrays(np.uint8, (2, PX, PX), elements=st.integers(0, 3)),
    visible=arrays(np.bool_, (PX, PX)),
    nodata=st.lists(st.integers(0, 4), unique=True),
    rule=st.sampled_from(["any", "all"]),
)
def test_masks_and_missing_values_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    pixels: NDArray[np.uint8],
    visible: NDArray[np.bool_],
    nodata: list[int],
    rule: str,
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.tif"
    made.write(path, pixels, visible=visible)
    raster = made.read(path, (1, 2), nodata=nodata, nodata_bands=rule)
    empty = np.isin(pixels, nodata)
    missing = empty.any(axis=0) if rule == "any" else empty.all(axis=0)
    assert np.array_equal(made.observed(raster), visible & ~missing)
