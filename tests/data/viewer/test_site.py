"""The index, tiles and facts that the page of a store shows."""

from __future__ import annotations

import gzip
import io
import json
import shutil

import numpy as np
import pytest
import shapely
import zarr
from PIL import Image

from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError
from salibi_data.store.render_rgb import as_rgb
from salibi_data.store.schema import ATTRIBUTES_KEY, SAMPLES_NAME, StoreAttributes
from salibi_data.viewer.samples import SAMPLES_PER_FILE, ViewedSamples
from salibi_data.viewer.tiles import MAX_LEVELS
from tests.support.services.viewed import COUNT, tile_path


def pixels(body):
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGBA"))


def attributes_of(group):
    return StoreAttributes.from_dict(dict(group.attrs), where="the store")


def test_the_index_holds_the_stores_columns(ask, store):
    description = json.loads(ask("/store.json")[2])
    body = gzip.decompress(ask("/index.bin")[2])
    column = {
        layout["name"]: np.frombuffer(body, layout["type"], description["count"], layout["offset"])
        for layout in description["columns"]
    }
    group = zarr.open_group(store, mode="r")
    table, _ = geoparquet.read(store / SAMPLES_NAME)
    assert description["count"] == COUNT
    assert np.array_equal(np.stack([column["x"], column["y"]], 1), group["tile"][:, 1:])
    assert np.array_equal(column["split"], group["split"][:])
    assert np.array_equal(column["cloud"], group["cloud_fraction"][:], equal_nan=True)
    shift = np.array(table["alignment_shift_m"].to_pylist(), np.float32)
    assert np.array_equal(column["shift"], shift, equal_nan=True)
    for number, sensor in enumerate(description["sensors"]):
        days = group["acquired"][:, number] // 86_400
        assert np.array_equal(column[f"day {sensor}"], days)
    west, south, east, north = description["boundsLonLat"]
    assert west < east
    assert south < north


@pytest.mark.parametrize("modality", ["sar", "lores", "hires", "hires_4x"])
def test_a_tile_at_the_base_zoom_is_the_samples_image(ask, site, store, modality):
    group = zarr.open_group(store, mode="r")
    for position in (0, COUNT - 1):
        stored = group[modality][position]
        status, headers, body = ask(tile_path(site, position, modality))
        assert (status, headers["Content-Type"]) == (200, "image/webp")
        image = pixels(body)
        valid = (stored != 0).any(axis=0)
        assert np.array_equal(image[..., 3], np.where(valid, 255, 0))
        expected = as_rgb(stored, attributes_of(group).modalities[modality])
        assert np.array_equal(image[valid][:, :3], expected[valid])


@pytest.mark.parametrize("levels", range(1, MAX_LEVELS + 1))
@pytest.mark.parametrize("modality", ["lores", "hires_4x"])
def test_a_tile_below_it_is_made_of_all_samples_in_it(ask, site, store, modality, levels):
    group = zarr.open_group(store, mode="r")
    tile = group["tile"][:]
    description = attributes_of(group).modalities[modality]
    parent = tile[40, 1:] >> levels
    factor = 2**levels
    edge = description.size_px // factor
    expected = np.zeros((description.size_px, description.size_px, 4))
    for position in np.flatnonzero((tile[:, 1:] >> levels == parent).all(axis=1)):
        column, row = (tile[position, 1:] - (parent << levels)) * edge
        rgb = as_rgb(group[modality][position], description).astype(float)
        means = rgb.reshape(edge, factor, edge, factor, 3).mean(axis=(1, 3))
        expected[row : row + edge, column : column + edge, :3] = means
        expected[row : row + edge, column : column + edge, 3] = 255
    image = pixels(ask(tile_path(site, 40, modality, levels))[2])
    assert np.array_equal(image[..., 3], expected[..., 3])
    filled = expected[..., 3] > 0
    assert filled.sum() > 0
    assert np.abs(image[filled].astype(float) - expected[filled]).max() <= 1


def test_what_was_not_observed_does_not_darken_smaller_tiles(site, store):
    # The hole is 64 px of 256, so at half the size its edge lies between pixels.
    image = pixels(site.get(tile_path(site, 0, levels=1)[1:]).body)
    x, y = (int(v[0]) % 2 * 128 for v in (site.samples.x, site.samples.y))
    part = image[y : y + 128, x : x + 128]
    assert (part[:32, :32, 3] == 0).all()
    assert (part[32:, :, 3] == 255).all()


def test_all_that_the_table_says_of_a_sample_is_given(site, store):
    table, _ = geoparquet.read(store / SAMPLES_NAME)
    rows = table.drop(["geometry"]).to_pylist()
    records = [record for n in range(site.samples.num_files) for record in site.samples.records(n)]
    assert [record["row"] for record in records] == list(range(len(rows)))
    for record, row in zip(records, rows, strict=True):
        assert record.keys() - {"row"} == row.keys()
        assert record["naip_items"] == row["naip_items"]
        assert record["naip_hrefs"] == [
            href.removesuffix("?sig=secret") for href in row["naip_hrefs"]
        ]
        assert record["sentinel-1_acquired"] == row["sentinel-1_acquired"].isoformat()
        assert record["gsd_m"] == pytest.approx(row["gsd_m"], rel=1e-5)
        shift = row["alignment_shift_m"]
        assert record["alignment_shift_m"] == (
            None if np.isnan(shift) else pytest.approx(shift, rel=1e-5)
        )
    assert json.loads(site.get("samples/0.json").body) == records[:SAMPLES_PER_FILE]


def test_a_store_without_alignment_or_clouds_is_shown_without(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    table, _ = geoparquet.read(copy / SAMPLES_NAME)
    with geoparquet.write_rows(copy / SAMPLES_NAME, dict) as add_rows:
        reduced = table.drop(["alignment_shift_m", "geometry"])
        outlines = shapely.from_wkb(table["geometry"].to_pylist())
        add_rows({name: reduced[name] for name in reduced.column_names}, outlines)
    columns = ViewedSamples(copy).columns
    assert np.isnan(columns["shift"]).all()
    assert len(columns["shift"]) == COUNT


def test_a_store_of_no_samples_says_so(store, tmp_path):
    group = zarr.open_group(tmp_path / "empty.zarr", mode="w")
    group.attrs[ATTRIBUTES_KEY] = zarr.open_group(store, mode="r").attrs[ATTRIBUTES_KEY]
    group.create_array("tile", shape=(0, 3), dtype="int32", chunks=(1, 3))
    (tmp_path / "empty.zarr/manifest.json").write_text('{"files": {}}')
    with pytest.raises(StoreError, match="has no sample"):
        ViewedSamples(tmp_path / "empty.zarr")
