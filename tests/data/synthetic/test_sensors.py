"""Rasters of the sample catalog: each sensor sees the same ground in its own way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely

from salibi_data.synthetic.frame import area_bounds_lonlat, make_frame
from tests.support.data.sample_items import items
from tests.support.data.samples import COLUMNS, ROWS


@pytest.fixture
def catalog(sample_catalog: Path) -> Path:
    """The catalog all tests share."""
    return sample_catalog


def read(folder: Path, item: dict[str, Any], asset: str) -> np.ndarray:
    with rasterio.open(folder / item["assets"][asset]["href"]) as source:
        return source.read()


def test_every_sensor_covers_the_tiles(catalog: Path):
    tiles = shapely.box(*area_bounds_lonlat(COLUMNS, ROWS))

    def union(collection: str, *, where: str = "") -> Any:
        return shapely.union_all(
            [
                shapely.geometry.shape(item["geometry"])
                for _, item in items(catalog, collection)
                if where in item["id"]
            ]
        )

    assert union("naip", where="_2022").covers(tiles)
    share = union("naip", where="_2021").intersection(tiles).area / tiles.area
    assert 0.3 < share < 0.8
    for collection in ("sentinel-1-rtc", "sentinel-2-l2a"):
        for _, item in items(catalog, collection):
            covers = shapely.geometry.shape(item["geometry"]).covers(tiles)
            assert covers or item["id"].startswith("S1A_IW_GRDH_1SDV_20220810")


# Sentinel-2


def test_cloud_cover_is_that_of_the_classification(catalog: Path):
    for folder, item in items(catalog, "sentinel-2-l2a"):
        scl, properties = read(folder, item, "SCL")[0], item["properties"]
        assert set(np.unique(scl)) <= {3, 4, 5, 6, 8, 9, 10}
        share = 100 * np.isin(scl, (8, 9, 10)).mean()
        assert properties["eo:cloud_cover"] == pytest.approx(share, abs=1e-5)
        assert properties["s2:water_percentage"] == pytest.approx(100 * (scl == 6).mean(), abs=1e-5)


def test_offset_goes_with_the_processing_baseline(catalog: Path):
    """Water in the near infrared is almost black: what is left is the offset."""
    baselines = set()
    for folder, item in items(catalog, "sentinel-2-l2a"):
        nir, scl = read(folder, item, "B8A")[0], read(folder, item, "SCL")[0]
        baseline = item["properties"]["s2:processing_baseline"]
        baselines.add(baseline)
        offset = 1000 if float(baseline) >= 4 else 0
        dark = np.percentile(nir[scl == 6], 5) if (scl == 6).any() else nir.min()
        assert offset <= dark < offset + 700, item["id"]
    assert min(baselines) == "03.01"
    assert len(baselines) >= 3


def test_visual_is_the_scaled_reflectance(catalog: Path):
    for folder, item in items(catalog, "sentinel-2-l2a"):
        offset = 1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
        visual = read(folder, item, "visual").astype(float)
        for k, band in enumerate(("B04", "B03", "B02")):
            reflectance = (read(folder, item, band)[0].astype(float) - offset) / 10000
            expected = np.clip(1 + 254 * reflectance / 0.3558, 1, 255)
            assert np.abs(visual[k] - expected).max() <= 0.6


def test_one_date_was_processed_twice(catalog: Path):
    by_date: dict[str, list[dict[str, Any]]] = {}
    for _, item in items(catalog, "sentinel-2-l2a"):
        by_date.setdefault(item["properties"]["datetime"], []).append(item)
    pairs = [pair for pair in by_date.values() if len(pair) > 1]
    assert len(by_date) == 5
    assert len(pairs) == 1
    old, new = sorted(pairs[0], key=lambda item: item["properties"]["s2:generation_time"])
    assert old["properties"]["s2:processing_baseline"] < new["properties"]["s2:processing_baseline"]
    first, second = (
        read(catalog / item["collection"] / item["id"], item, "B04") for item in (old, new)
    )
    assert 0 < np.abs(first.astype(float) - second).mean() < 60


def test_crops_are_green_and_clouds_are_white(catalog: Path):
    for folder, item in items(catalog, "sentinel-2-l2a"):
        offset = 1000 if item["properties"]["s2:processing_baseline"] >= "04.00" else 0
        scl = read(folder, item, "SCL")[0]
        red, nir = (
            read(folder, item, band)[0].reshape(scl.shape[0], 2, scl.shape[1], 2).mean(axis=(1, 3))
            / 10000
            - offset / 10000
            for band in ("B04", "B08")
        )
        assert ((nir - red) / (nir + red))[scl == 4].mean() > 0.5
        if (scl == 9).sum() > 20:
            assert red[scl == 9].mean() > 0.3


# Sentinel-1


def test_radar_is_linear_power_with_nodata(catalog: Path):
    orbits = set()
    for folder, item in items(catalog, "sentinel-1-rtc"):
        orbits.add(item["properties"]["sat:orbit_state"])
        vv, vh = read(folder, item, "vv")[0], read(folder, item, "vh")[0]
        assert vv.dtype == np.float32
        seen = vv != -32768
        assert np.array_equal(seen, vh != -32768)
        assert vv[seen].min() > 0
        assert vh[seen].min() > 0
        assert -16 < 10 * math.log10(np.median(vv[seen])) < -7
        assert 4 < 10 * math.log10(np.median(vv[seen] / vh[seen])) < 11
        with rasterio.open(folder / item["assets"]["vv"]["href"]) as source:
            assert source.nodata == -32768
            assert item["assets"]["vv"]["file:size"] == Path(source.name).stat().st_size
    assert orbits == {"ascending", "descending"}


def test_one_pass_has_a_nodata_edge_that_its_geometry_tells(catalog: Path):
    cut = [
        (folder, item)
        for folder, item in items(catalog, "sentinel-1-rtc")
        if (read(folder, item, "vv") == -32768).any()
    ]
    assert len(cut) == 1
    folder, item = cut[0]
    with rasterio.open(folder / item["assets"]["vv"]["href"]) as source:
        back = rasterio.warp.transform_geom("EPSG:4326", source.crs, item["geometry"])
        share = shapely.geometry.shape(back).area / shapely.box(*source.bounds).area
    assert (read(folder, item, "vv") != -32768).mean() == pytest.approx(share, abs=2e-3)


def test_relative_orbit_follows_from_the_absolute(catalog: Path):
    """Sentinel-1A: relative = (absolute - 73) mod 175 + 1."""
    for _, item in items(catalog, "sentinel-1-rtc"):
        properties = item["properties"]
        expected = (properties["sat:absolute_orbit"] - 73) % 175 + 1
        assert properties["sat:relative_orbit"] == expected


# NAIP, and all sensors together


def test_naip_is_four_bands_without_nodata_tag(catalog: Path):
    for folder, item in items(catalog, "naip"):
        with rasterio.open(folder / item["assets"]["image"]["href"]) as source:
            assert (source.count, source.dtypes[0], source.nodata) == (4, "uint8", None)
            assert rasterio.enums.ColorInterp.alpha not in source.colorinterp
            assert source.res == (0.6, 0.6)
            image = source.read()
        assert (image.mean(axis=(1, 2)) > 50).all()
        assert (image.std(axis=(1, 2)) > 10).all()


def test_overlapping_quads_show_the_same_ground(catalog: Path):
    (first, _), (second, _) = (
        pair
        for pair in items(catalog, "naip")
        if "_2022" in pair[1]["id"] and "4109205" in pair[1]["id"]
    )
    with (
        rasterio.open(next(first.glob("*.tif"))) as left,
        rasterio.open(next(second.glob("*.tif"))) as right,
    ):
        west, south, east, north = left.bounds
        other = right.bounds
        box = (
            max(west, other.left),
            max(south, other.bottom),
            min(east, other.right),
            min(north, other.top),
        )
        assert min(box[2] - box[0], box[3] - box[1]) >= 150
        first_image, second_image = (
            source.read(window=source.window(*box).round_offsets().round_lengths())
            for source in (left, right)
        )
    # The blocks of the two quads have other edges, where values may be rounded differently.
    assert first_image.shape == second_image.shape
    assert (first_image == second_image).mean() > 0.999


def naip_at_10_m(catalog: Path, bounds: tuple[float, ...]) -> np.ndarray:
    """Red band of the 2022 quads, area-averaged to 10 m over ``bounds``."""
    shape = tuple(round((bounds[k + 2] - bounds[k]) / 10) for k in (1, 0))
    total = np.zeros(shape)
    for folder, item in items(catalog, "naip"):
        if "_2022" not in item["id"]:
            continue
        with rasterio.open(folder / item["assets"]["image"]["href"]) as source:
            part = np.zeros(shape, dtype=np.float32)
            rasterio.warp.reproject(
                rasterio.band(source, 1),
                part,
                dst_transform=rasterio.Affine(10, 0, bounds[0], 0, -10, bounds[3]),
                dst_crs=source.crs,
                resampling=rasterio.enums.Resampling.average,
                init_dest_nodata=False,
            )
        total = np.maximum(total, part)
    return total


def offset_px(reference: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Row and column shift at which ``image`` correlates best with ``reference``.

    The peak of a parabola through the three values about the maximum, along each axis.
    """
    edges = [np.hypot(*np.gradient(values)) for values in (reference, image)]
    core = edges[0][4:-4, 4:-4]
    scores = np.asarray(
        [
            [
                np.corrcoef(
                    core.ravel(), edges[1][4 + i : -4 + i or None, 4 + j : -4 + j or None].ravel()
                )[0, 1]
                for j in range(-2, 3)
            ]
            for i in range(-2, 3)
        ]
    )
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    assert 0 < row < 4
    assert 0 < column < 4

    def vertex(before: float, at: float, after: float) -> float:
        return (before - after) / (2 * (before - 2 * at + after))

    return (
        row - 2 + vertex(*scores[row - 1 : row + 2, column]),
        column - 2 + vertex(*scores[row, column - 1 : column + 2]),
    )


def test_edges_fall_in_the_same_place_in_every_sensor(catalog: Path):
    frame = make_frame(2, 1)
    west, south, east, north = (
        round((origin + edge) / 20) * 20
        for edge, origin in zip(frame.area, (frame.origin_e, frame.origin_n) * 2, strict=True)
    )
    bounds = (west, south, east, north)
    aerial = naip_at_10_m(catalog, bounds)

    def crop(collection: str, item_part: str, asset: str) -> np.ndarray:
        folder, item = next(p for p in items(catalog, collection) if item_part in p[1]["id"])
        with rasterio.open(folder / item["assets"][asset]["href"]) as source:
            window = source.window(*bounds)
            assert window.col_off == round(window.col_off)
            return source.read(1, window=window.round_offsets().round_lengths()).astype(float)

    optical = crop("sentinel-2-l2a", "20220719T170859_R069_T15TWG_20220720", "B04")
    passes = ("20220717T", "20220719T", "20210710T")
    radar = np.mean([np.log(crop("sentinel-1-rtc", day, "vv")) for day in passes], axis=0)
    sqrt_optical = np.sqrt(np.clip(optical - 1000, 0, 2500))
    assert np.abs(offset_px(aerial, sqrt_optical)).max() < 0.1
    assert np.abs(offset_px(np.log(np.clip(optical - 900, 1, 2500)), radar)).max() < 0.2


def test_fields_differ_from_tile_to_tile(catalog: Path):
    """What contrastive learning needs: zoom-17 tiles tell apart by their mean colours alone."""
    folder, item = next(p for p in items(catalog, "sentinel-2-l2a") if "20220720" in p[1]["id"])
    bands = np.concatenate([read(folder, item, band) for band in ("B02", "B03", "B04", "B08")])
    size = 22
    rows, columns = (length // size for length in bands.shape[1:])
    blocks = bands[:, : rows * size, : columns * size].reshape(4, rows, size, columns, size)
    means = blocks.mean(axis=(2, 4)).reshape(4, -1).T
    distance = np.linalg.norm(means[:, None] - means[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert np.median(distance.min(axis=1)) > 40
