"""The store as docs/format.md describes it, opened without our code; and its verification."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import mercantile
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from pmtiles.tile import zxy_to_tileid

from salibi_data.inspection.info import info
from salibi_data.inspection.plot import spread_samples
from salibi_data.inspection.verify import verify
from salibi_data.plans.planner import plan
from salibi_data.sources.read import read_asset
from salibi_data.store.errors import StoreError, VerificationError
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data.oracle import plain_average, warped
from tests.support.data.samples import tree

SHAPES = {"sar": (2, 256), "lores": (3, 256), "hires": (3, 256), "hires_4x": (3, 512)}


@pytest.fixture
def opened(micro_store: Path) -> xr.Dataset:
    return xr.open_zarr(micro_store, chunks=None)


def test_xarray_opens_the_store_as_documented(opened: xr.Dataset) -> None:
    count = opened.sizes["sample"]
    for name, (bands, size) in SHAPES.items():
        array = opened[name]
        assert array.dims == ("sample", f"{name}_band", f"{name}_y", f"{name}_x")
        assert array.shape == (count, bands, size, size)
        assert array.dtype == np.uint8
    dims = {name: opened[name].dims for name in ("tile", "gsd_m", "acquired", "split")}
    assert dims == {
        "tile": ("sample", "zxy"),
        "gsd_m": ("sample",),
        "acquired": ("sample", "sensor"),
        "split": ("sample",),
    }
    assert opened["tile"].dtype == np.int32
    assert opened["acquired"].dtype == np.int64


def test_chunks_are_samples_and_shards_are_the_same_runs(micro_store: Path) -> None:
    group = zarr.open_group(micro_store, mode="r")
    assert {group[name].chunks[0] for name in SHAPES} == {1}
    assert len({group[name].shards[0] for name in SHAPES}) == 1


def test_samples_are_in_pmtiles_order(opened: xr.Dataset) -> None:
    ids = [zxy_to_tileid(*map(int, tile)) for tile in opened["tile"].values]
    assert ids == sorted(set(ids))


def test_gsd_follows_the_latitude(opened: xr.Dataset) -> None:
    for (z, x, y), gsd_m in zip(opened["tile"].values, opened["gsd_m"].values, strict=True):
        bounds = mercantile.bounds(int(x), int(y), int(z))
        latitude = math.radians((bounds.south + bounds.north) / 2)
        assert gsd_m == pytest.approx(156543.03392 * math.cos(latitude) / 2**z, rel=1e-4)


def test_attributes_say_what_the_pixels_mean(opened: xr.Dataset) -> None:
    salibi = opened.attrs["salibi"]
    assert salibi["sensors"] == ["sentinel-1", "sentinel-2", "naip"]
    assert salibi["base_zoom"] == 17
    ratios = {name: m["gsd_ratio"] for name, m in salibi["modalities"].items()}
    assert ratios == {"sar": 1.0, "lores": 1.0, "hires": 1.0, "hires_4x": 0.5}
    train = opened["split"].values == 0
    for name, modality in salibi["modalities"].items():
        assert {"licence", "attribution", "collection", "units", "nodata"} <= set(modality)
        values = opened[name].values[train].astype(np.float64)
        for band, (mean, std) in enumerate(zip(modality["mean"], modality["std"], strict=True)):
            valid = values[:, band][values[:, band] != 0]
            assert (valid.mean(), valid.std()) == pytest.approx((mean, std), rel=1e-9)


def test_sar_reads_in_decibel_as_documented(opened: xr.Dataset) -> None:
    sar = opened.attrs["salibi"]["modalities"]["sar"]
    lowest = [o + s * 1 for o, s in zip(sar["offset"], sar["scale"], strict=True)]
    highest = [o + s * 255 for o, s in zip(sar["offset"], sar["scale"], strict=True)]
    assert lowest == pytest.approx([-25.0, -32.0])
    assert highest == pytest.approx([0.0, -5.0])


def test_samples_parquet_reads_as_documented(micro_store: Path, opened: xr.Dataset) -> None:
    table = pq.read_table(micro_store / "samples.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["version"] == "1.1.0"
    tiles = np.stack([table[name].to_numpy() for name in "zxy"], axis=1)
    assert np.array_equal(tiles, opened["tile"].values)
    outlines = shapely.from_wkb(table["geometry"].to_pylist())
    for outline, (z, x, y) in zip(outlines, tiles.tolist(), strict=True):
        assert outline.bounds == pytest.approx(tuple(mercantile.bounds(x, y, z)))
    seconds = [time.timestamp() for time in table["naip_acquired"].to_pylist()]
    assert np.array_equal(np.array(seconds, np.int64), opened["acquired"].values[:, 2])
    assert set(table["sentinel-1_orbit_state"].to_pylist()) <= {"ascending", "descending"}
    assert set(table["naip_native_gsd_m"].to_pylist()) == {0.6}
    hrefs = [href for row in table["sentinel-2_hrefs"].to_pylist() for href in row]
    assert all("?" not in href and not href.startswith("/") for href in hrefs)


def test_stored_pixels_equal_gdals_warp_of_the_sample(
    micro_store: Path, sample_toml: str, sample_catalog: Path, opened: xr.Dataset
) -> None:
    """Enlarged modalities against GDAL, tile by tile, from the very files of the plan."""
    chosen = {choice.tile: choice for choice in plan("micro", catalog=sample_toml).choices()}
    cases = {
        "sar": ("sentinel-1", [("vv", [1]), ("vh", [1])], 256),
        "lores": ("sentinel-2", [("visual", [1, 2, 3])], 256),
        "hires_4x": ("naip", [("image", [1, 2, 3])], 512),
    }
    for name, (sensor, assets, tile_px) in cases.items():
        modality = opened.attrs["salibi"]["modalities"][name]
        differences = []
        for row in range(0, opened.sizes["sample"], 7):
            z, x, y = (int(value) for value in opened["tile"].values[row])
            scenes = chosen[TileXYZ(x, y, z)].scenes[sensor]
            if len(scenes) > 1:
                continue
            physical = np.concatenate(
                [
                    warped(
                        sample_catalog / scenes[0].hrefs[asset], bands, TileXYZ(x, y, z), tile_px
                    )
                    for asset, bands in assets
                ]
            )
            if name == "sar":
                physical = 10 * np.log10(np.maximum(physical, 1e-10))
            scale, offset = (np.array(modality[key])[:, None, None] for key in ("scale", "offset"))
            expected = np.clip(np.rint((physical - offset) / scale), 1, 255)
            differences.append(np.abs(expected - opened[name].values[row].astype(float)))
        assert len(differences) > 3
        assert np.mean(np.array(differences) <= 1) >= 0.999, name


def test_stored_hires_is_an_average_of_the_full_resolution_pixels(
    sample_toml: str, opened: xr.Dataset
) -> None:
    """NAIP at 0.6 m shrinks to 0.89 m; corners of some tiles against a plain average."""
    made = plan("micro", catalog=sample_toml)
    chosen = {choice.tile: choice for choice in made.choices()}
    product = made.catalog.sensors["naip"].products["image"]
    compared = 0
    for row in range(0, opened.sizes["sample"], 20):
        z, x, y = (int(value) for value in opened["tile"].values[row])
        scenes = chosen[TileXYZ(x, y, z)].scenes["naip"]
        corner = PixelGrid.around([TileXYZ(16 * x, 16 * y, z + 4)], tile_px=16)
        source = read_asset(
            made.catalog, scenes[0], "image", product, [product.bands["red"]], corner
        )
        if source is None or np.isnan(source.values).any():
            continue
        expected = plain_average(source, corner)
        stored = opened["hires"].values[row, 0, :16, :16].astype(float)
        assert np.abs(stored - expected).max() <= 2
        compared += 1
    assert compared >= 2


def test_fields_line_up_across_all_sensors(opened: xr.Dataset) -> None:
    """Edges of one sensor fall where another's do: likeness is greatest at no shift at all."""
    train = np.flatnonzero(opened["cloud_fraction"].values == 0)[:12]
    grey = {name: opened[name].values[train].astype(np.float64).mean(axis=1) for name in SHAPES}
    grey["hires_4x"] = grey["hires_4x"].reshape(-1, 256, 2, 256, 2).mean(axis=(2, 4))

    def edges(images: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter, sobel

        smooth = gaussian_filter(images, (0, 6, 6))
        return np.hypot(sobel(smooth, 1), sobel(smooth, 2))[:, 20:-20, 20:-20]

    strength = {name: edges(images) for name, images in grey.items()}
    for other, limit in (("hires_4x", 0), ("hires", 2), ("sar", 4)):
        base = strength["hires" if other == "hires_4x" else "lores"]
        likeness = {}
        for dy in range(-8, 9, 2):
            for dx in range(-8, 9, 2):
                moved = np.roll(strength[other], (dy, dx), (1, 2))
                likeness[dy, dx] = np.corrcoef(base.ravel(), moved.ravel())[0, 1]
        best = max(likeness, key=likeness.__getitem__)
        assert max(map(abs, best)) <= limit, (other, best)


def test_a_figure_shows_different_samples_as_they_are_stored(
    micro_store: Path, opened: xr.Dataset
) -> None:
    _, rows = spread_samples(micro_store, num_samples=3)
    assert len(rows) == 3
    tiles = ["/".join(map(str, tile)) for tile in opened["tile"].values.tolist()]
    for tile, images in rows.items():
        for name, image in images.items():
            assert np.array_equal(image, opened[name].values[tiles.index(tile)])
    assert len(spread_samples(micro_store, num_samples=10_000)[1]) == len(tiles)


def test_info_counts(micro_store: Path, opened: xr.Dataset) -> None:
    facts = info(micro_store)
    assert facts["samples"] == opened.sizes["sample"] == sum(facts["splits"].values())
    leaks = facts["leakage"]["sentinel-2"]
    assert leaks["scenes_in_several_splits"] == leaks["scenes"] == 1
    assert leaks["held_out_samples_sharing_a_training_scene"] == 1.0
    assert facts["bytes"] == sum(p.stat().st_size for p in micro_store.rglob("*") if p.is_file())


# Damage


@pytest.fixture
def copy(micro_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_store, tmp_path / "copy.zarr"))


def shard(store: Path, name: str = "hires") -> Path:
    return next(path for path in sorted((store / name / "c").rglob("*")) if path.is_file())


def test_one_flipped_bit_is_found(copy: Path) -> None:
    content = bytearray(shard(copy).read_bytes())
    content[len(content) // 2] ^= 1
    shard(copy).write_bytes(content)
    with pytest.raises(VerificationError, match=r"hires/c/0.* differs from its checksum"):
        verify(copy)


def test_a_missing_file_is_found(copy: Path) -> None:
    shard(copy).unlink()
    with pytest.raises(VerificationError, match="is missing"):
        verify(copy)


def test_shifted_images_are_found_even_with_true_checksums(copy: Path) -> None:
    from salibi_data.assembly.writer import write_manifest

    group = zarr.open_group(copy, mode="r+")
    group["hires"][:] = np.roll(group["hires"][:], 1, axis=3)
    write_manifest(copy)
    with pytest.raises(VerificationError, match="do not line up"):
        verify(copy)


def test_nodata_that_was_not_promised_is_found(copy: Path) -> None:
    from salibi_data.assembly.writer import write_manifest

    group = zarr.open_group(copy, mode="r+")
    group["sar"][3] = 0
    write_manifest(copy)
    with pytest.raises(VerificationError, match="sar lacks pixels"):
        verify(copy)


def test_a_split_that_leaks_is_found(copy: Path) -> None:
    from salibi_data.assembly.writer import write_manifest

    group = zarr.open_group(copy, mode="r+")
    group["split"][::2] = 2
    write_manifest(copy)
    with pytest.raises(VerificationError, match="neighbouring tiles are in different splits"):
        verify(copy)


def test_a_store_that_was_never_finished_is_refused(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(StoreError, match="the store is not complete"):
        verify(copy)


def test_a_newer_schema_is_refused(copy: Path) -> None:
    group = zarr.open_group(copy, mode="r+")
    salibi = dict(group.attrs["salibi"]) | {"schema_version": 99}
    group.attrs["salibi"] = salibi
    with pytest.raises(StoreError, match="schema version 99; this software reads up to 1"):
        info(copy)


def test_other_zarr_groups_are_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="not a Salibi store"):
        info(tmp_path / "other.zarr")


def test_verifying_changes_nothing(copy: Path) -> None:
    before = tree(copy)
    verify(copy)
    assert tree(copy) == before


def test_the_footprint_of_the_sample_is_respected(sample_catalog: Path) -> None:
    """NAIP files carry no nodata tag, as in reality."""
    for path in sample_catalog.glob("naip/*/*.tif"):
        with rasterio.open(path) as dataset:
            assert dataset.nodata is None
