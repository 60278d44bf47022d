"""Embeddings of stores, rasters and images: against plain loops, rasterio and GDAL's own geometry."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import torch
import xarray as xr
import zarr
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import transform_geom
from rasterio.windows import Window

import salibi_model
from salibi_data.store.errors import StoreError, UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.data.pixel_size import pixel_m
from salibi_model.embeddings.embed import embed
from salibi_model.embeddings.encode import read_ahead
from salibi_model.embeddings.footprints import outline, outlines
from salibi_model.embeddings.quantise import to_stored
from tests.support.data.real_catalogs import NAIP, REAL, needs_real
from tests.support.data.samples import environment, tree
from tests.support.model.nano import nano_model
from tests.support.model.stores import describe, write_store
from tests.support.paths import ROOT

UTM = "EPSG:32613"
PLACE = Affine(4.0, 0, 480_000, 0, -4.0, 4_000_000)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


def raster(path, values, *, transform=PLACE, crs=UTM, names=(), **profile):
    """Write (bands, rows, columns) to a GeoTIFF."""
    bands, rows, cols = values.shape
    fields = {"driver": "GTiff", "dtype": values.dtype, "count": bands, "width": cols}
    fields |= {"height": rows, "crs": crs, "transform": transform} | profile
    with rasterio.open(path, "w", **fields) as dataset:
        dataset.write(values)
        for index, name in enumerate(names, 1):
            dataset.set_band_description(index, name)
    return path


def run_in_process(code, *arguments):
    """Run Python in a process of its own; give what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def noise(rows, cols, bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (bands, rows, cols), dtype=np.uint8)


def rows_of(out, modality):
    group = zarr.open_group(out, mode="r")[modality]
    return {name: group[name][:] for name in group.array_keys()}


def test_a_store_gives_what_a_plain_loop_gives(checkpoint, small_store, tmp_path):
    result = embed(
        checkpoint, [small_store], out=tmp_path / "E", batch_size=4, tokens=True, split="validation"
    )
    assert result.num_rows == {"sar": 6, "lores": 6, "hires_4x": 6}
    model, store = salibi_model.load(checkpoint), zarr.open_group(small_store, mode="r")
    for name in result.num_rows:
        found = rows_of(tmp_path / "E", name)
        for row, sample in enumerate(range(10, 16)):
            images = torch.from_numpy(store[name][sample : sample + 1])
            with torch.inference_mode():
                tokens, vector = model.encode(images, name)
            assert np.allclose(found["embedding"][row], vector[0], atol=1e-5)
            assert np.allclose(found["tokens"][row], tokens[0], atol=1e-5)
        ratio = 0.5 if name == "hires_4x" else 1.0
        assert found["gsd_m"] == pytest.approx(3.7 * ratio)
        assert found["item"].tolist() == list(range(10, 16))


def test_what_a_sample_lacks_is_told(checkpoint, small_store, tmp_path):
    embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("sar",))
    images = zarr.open_group(small_store, mode="r")["sar"][:]
    expected = (images != 0).all(axis=1).mean(axis=(1, 2))
    assert expected.min() < 1
    assert rows_of(tmp_path / "E", "sar")["valid_fraction"] == pytest.approx(expected)


def test_a_split_of_a_store_and_its_tiles(checkpoint, small_store, tmp_path):
    import mercantile

    embed(checkpoint, [small_store], out=tmp_path / "E", split="validation", modalities=("sar",))
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet")
    assert frame["item"].tolist() == list(range(10, 16))
    for row in frame.itertuples():
        name, tile = row.id.split("#")
        z, x, y = map(int, tile.split("/"))
        assert (name, x) == ("small.zarr", 5000 + row.item)
        assert row.geometry.bounds == pytest.approx(tuple(mercantile.bounds(x, y, z)))


def test_a_store_of_another_zoom_is_encoded_at_its_ground_size(checkpoint, tmp_path):
    """Its pixels are a quarter as wide as those of the training, though its own ratio is 1."""
    store = write_store(tmp_path / "s.zarr", num_samples=3, validation=1)
    group = zarr.open_group(store)
    attributes = group.attrs["salibi"]
    attributes["modalities"]["lores"]["zoom"] = 17
    group.attrs["salibi"] = attributes
    embed(checkpoint, [store], out=tmp_path / "E", modalities=("lores",))
    images = torch.from_numpy(group["lores"][:])
    with torch.inference_mode():
        expected = salibi_model.load(checkpoint).encode(images, "lores", 0.25)[1]
    assert np.allclose(rows_of(tmp_path / "E", "lores")["embedding"], expected, atol=1e-5)


def test_windows_of_a_raster_are_those_that_rasterio_reads(checkpoint, tmp_path):
    path = raster(
        tmp_path / "scene.tif", noise(300, 520), tiled=True, blockxsize=128, blockysize=64
    )
    embed(
        checkpoint, [path], out=tmp_path / "E", modalities=("lores",), window_px=128, batch_size=4
    )
    found = rows_of(tmp_path / "E", "lores")
    offsets = [(r, c) for r in (0, 128, 172) for c in (0, 128, 256, 384, 392)]
    assert found["window"].tolist() == [[r, c, 128, 128] for r, c in offsets]
    model = salibi_model.load(checkpoint)
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet")
    with rasterio.open(path) as dataset:
        for number, (row, col) in enumerate(offsets):
            window = Window(col, row, 128, 128)
            place = dataset.window_transform(window)
            gsd_m = pixel_m(place, dataset.crs, (128, 128))
            images = torch.from_numpy(dataset.read(window=window))[None]
            with torch.inference_mode():
                _, vector = model.encode(images, "lores", gsd_m=gsd_m)
            assert np.allclose(found["embedding"][number], vector[0], atol=1e-5)
            assert found["gsd_m"][number] == pytest.approx(gsd_m, rel=1e-6)
            box = shapely.geometry.mapping(shapely.box(*dataset.window_bounds(window)))
            expected = shapely.geometry.shape(transform_geom(dataset.crs, "OGC:CRS84", box))
            geometry = frame.geometry[number]
            assert geometry.symmetric_difference(expected).area < 1e-9 * expected.area
            assert found["bounds"][number] == pytest.approx(expected.bounds)
    assert np.array_equal(np.stack(frame["embedding"]), found["embedding"])
    assert frame["id"][1] == "scene.tif#0,128"


def test_a_small_raster_is_one_window_padded_to_whole_patches(checkpoint, tmp_path):
    path = raster(tmp_path / "small.tif", noise(40, 64))
    embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",))
    found = rows_of(tmp_path / "E", "lores")
    assert found["window"].tolist() == [[0, 0, 48, 64]]
    assert found["valid_fraction"] == pytest.approx(40 / 48)
    with rasterio.open(path) as dataset:
        images = np.pad(dataset.read(), ((0, 0), (0, 8), (0, 0)))[None]
        with torch.inference_mode():
            model = salibi_model.load(checkpoint)
            _, vector = model.encode(
                torch.from_numpy(images), "lores", gsd_m=float(found["gsd_m"][0])
            )
        corners = shapely.box(*dataset.bounds)
    assert np.allclose(found["embedding"], vector, atol=1e-5)
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet").to_crs(UTM)
    assert frame.geometry[0].symmetric_difference(corners).area < 1e-6 * corners.area


def test_nodata_is_kept_and_empty_windows_are_left_out(checkpoint, tmp_path):
    values = noise(64, 192)
    values[:, :, 64:128] = 0
    values[:, :16, :64] = 0
    path = raster(tmp_path / "holes.tif", values, nodata=0)
    result = embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), window_px=64)
    assert (result.num_rows, result.num_empty) == ({"lores": 2}, {"lores": 1})
    found = rows_of(tmp_path / "E", "lores")
    assert found["window"][:, 1].tolist() == [0, 128]
    assert found["valid_fraction"] == pytest.approx([0.75, 1.0])
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(values[None, :, :, :64]), "lores", gsd_m=float(found["gsd_m"][0])
        )
    assert np.allclose(found["embedding"][0], vector[0], atol=1e-5)


def test_black_is_not_nodata_unless_it_is_said_to_be(checkpoint, tmp_path):
    values = noise(64, 128)
    values[:, :, :64] = 0
    path = raster(tmp_path / "black.tif", values)
    options = {"modalities": ("lores",), "window_px": 64}
    assert embed(checkpoint, [path], out=tmp_path / "A", **options).num_rows == {"lores": 2}
    said = embed(checkpoint, [path], out=tmp_path / "B", nodata=0.0, **options)
    assert said.num_rows == {"lores": 1}


def test_the_fourth_band_of_an_aerial_image_masks_nothing_when_it_is_near_infrared(
    checkpoint, tmp_path
):
    values = noise(64, 64, bands=4)
    values[3, :32] = 0
    path = raster(tmp_path / "naip.tif", values)
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    options = {"modalities": ("lores",), "window_px": 64}
    embed(checkpoint, [path], out=tmp_path / "A", **options)
    embed(checkpoint, [path], out=tmp_path / "B", bands=("red", "green", "blue", "nir"), **options)
    assert rows_of(tmp_path / "A", "lores")["valid_fraction"] == [0.5]
    assert rows_of(tmp_path / "B", "lores")["valid_fraction"] == [1.0]


@pytest.mark.parametrize(
    ("units", "make"),
    [
        ("linear", lambda db: (10 ** (db / 10)).astype(np.float32)),
        ("dB", lambda db: db.astype(np.float32)),
        ("stored", lambda db: np.clip(np.rint((db + 30) / 0.15), 1, 255).astype(np.uint8)),
        ("db", lambda db: np.rint(db * 100).astype(np.int16)),
    ],
    ids=["linear", "dB", "stored", "scaled-integers"],
)
def test_radar_in_any_units_comes_to_the_same_stored_values(checkpoint, tmp_path, units, make):
    """Bands are found by their names, though the file has them the other way round."""
    decibel = np.random.default_rng(0).normal(-12, 4, (2, 64, 64)).clip(-29, 7)
    path = raster(tmp_path / "sar.tif", make(decibel)[::-1], names=("VH", "VV"))
    if units == "db":
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = (0.01, 0.01)
    embed(checkpoint, [path], out=tmp_path / "E", units=units)
    found = rows_of(tmp_path / "E", "sar")
    stored = np.clip(np.rint((decibel + 30) / 0.15), 1, 255).astype(np.uint8)
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(stored)[None], "sar", gsd_m=float(found["gsd_m"][0])
        )
    assert np.allclose(found["embedding"], vector, atol=1e-3)


def test_plain_images_need_a_gsd_and_have_no_place(checkpoint, tmp_path):
    for name, edge in (("a.png", 64), ("b.jpg", 80)):
        Image.fromarray(noise(edge, edge, seed=edge).transpose(1, 2, 0)).save(tmp_path / name)
    images = [tmp_path / "a.png", tmp_path / "b.jpg"]
    with pytest.raises(UsageError, match=r"a\.png: it has no coordinate reference.*--gsd-m"):
        embed(checkpoint, images, out=tmp_path / "E", modalities=("lores",))
    embed(checkpoint, images, out=tmp_path / "E", modalities=("lores",), gsd_m=5.0)
    found = rows_of(tmp_path / "E", "lores")
    assert found["window"].tolist() == [[0, 0, 64, 64], [0, 0, 80, 80]]
    assert np.isnan(found["bounds"]).all()
    assert found["gsd_m"].tolist() == [5.0, 5.0]
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet")
    assert frame.geometry.isna().all()
    assert [Path(source).name for source in frame["source"]] == ["a.png", "b.jpg"]


def test_provenance_is_in_the_attributes(checkpoint, small_store, tmp_path):
    import hashlib

    embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("sar",))
    found = xr.open_zarr(tmp_path / "E", group="sar", consolidated=False, chunks=None)
    assert found["embedding"].dims == ("row", "dim")
    said = found.attrs["salibi_embedding"]
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert said["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    spec = describe("sar")
    assert (said["bands"], said["units"]) == (["vv", "vh"], "dB")
    assert (said["mean"], said["std"]) == (list(spec.mean), list(spec.std))
    assert said["inputs"] == [{"name": str(small_store), "plan_digest": "0" * 64}]
    kept = pq.read_schema(tmp_path / "E/embeddings.parquet").metadata[b"salibi_embedding"]
    assert json.loads(kept)["checkpoint_sha256"] == said["checkpoint_sha256"]


def test_the_table_is_valid_geoparquet(checkpoint, tmp_path):
    path = raster(tmp_path / "a.tif", noise(128, 128))
    embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), window_px=64)
    table = tmp_path / "E/embeddings.parquet"
    schema = pq.read_schema(table)
    geo = json.loads(schema.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], column["encoding"]) == ("1.1.0", "WKB")
    assert column["geometry_types"] == ["Polygon"]
    frame = geopandas.read_parquet(table)
    assert frame.crs == "OGC:CRS84"
    assert column["bbox"] == pytest.approx(frame.total_bounds.tolist())
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float>[32]"
    west, south, _, _ = frame.geometry[0].bounds
    inside = geopandas.read_parquet(table, bbox=(west, south, west + 1e-6, south + 1e-6))
    assert set(inside["row"]) <= {0, 1, 2, 3}
    assert 0 in set(inside["row"])
    assert len(inside) < 4


# -- resuming


def test_a_stopped_run_goes_on_to_the_same_bytes(checkpoint, tmp_path, monkeypatch):
    """Stopped again and again, after any number of images, with parts of four rows."""
    from salibi_model.embeddings import encode as embed_encoding
    from salibi_model.embeddings import writer as embed_store

    monkeypatch.setattr(embed_store, "_PART_ROWS", 4)
    path = raster(tmp_path / "a.tif", noise(112, 112), nodata=7)
    options = {
        "modalities": ("lores", "hires_4x"),
        "window_px": 32,
        "stride_px": 24,
        "batch_size": 3,
    }
    embed(checkpoint, [path], out=tmp_path / "whole", **options)

    class StopError(Exception):
        pass

    def stopping(sources, first, workers):
        for number, view in enumerate(read_ahead(sources, first, workers)):
            if number == 11:
                raise StopError
            yield view

    monkeypatch.setattr("salibi_model.embeddings.embed.read_ahead", stopping)
    stops = 0
    while True:
        try:
            result = embed(checkpoint, [path], out=tmp_path / "resumed", **options)
        except StopError:
            stops += 1
            assert not (tmp_path / "resumed").exists()
            continue
        break
    assert stops >= 3
    assert not result.already_complete
    assert tree(tmp_path / "resumed") == tree(tmp_path / "whole")
    assert not (tmp_path / "resumed.building").exists()
    assert embed_encoding.read_ahead is read_ahead


KILLED = """
import sys
from salibi_model.embeddings import writer as embed_store
from salibi_model.embeddings.embed import embed
embed_store._PART_ROWS = 8
embed(sys.argv[1], [sys.argv[2]], out=sys.argv[3], modalities=("sar",), window_px=32, units="stored",
      batch_size=4)
"""


def test_killed_it_ends_in_the_same_bytes(checkpoint, tmp_path, monkeypatch):
    from salibi_model.embeddings import writer as embed_store

    values = noise(32 * 8, 32 * 8, bands=2)
    path = raster(tmp_path / "sar.tif", values, names=("vv", "vh"), nodata=0)
    state = tmp_path / "killed.building/progress.json"
    command = [sys.executable, "-c", KILLED, checkpoint, path, tmp_path / "killed"]
    with subprocess.Popen(command, env=environment()) as run:
        while run.poll() is None:
            if state.exists():
                run.kill()
    assert run.returncode == -9
    assert 0 < json.loads(state.read_text())["progress"]["sar"]["rows"] < 8 * 8
    monkeypatch.setattr(embed_store, "_PART_ROWS", 8)
    options = {"modalities": ("sar",), "window_px": 32, "units": "stored", "batch_size": 4}
    for name in ("killed", "whole"):
        embed(checkpoint, [path], out=tmp_path / name, **options)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_what_is_complete_is_left_and_what_is_other_is_refused(checkpoint, small_store, tmp_path):
    options = {"modalities": ("sar",), "out": tmp_path / "E"}
    embed(checkpoint, [small_store], **options)
    before = tree(tmp_path / "E")
    again = embed(checkpoint, [small_store], **options)
    assert again.already_complete
    assert again.num_rows == {"sar": 16}
    with pytest.raises(UsageError, match=r"other embeddings: choices split is null there"):
        embed(checkpoint, [small_store], split="validation", **options)
    other = tmp_path / "other"
    save_model(nano_model(base_gsd_m=3.7, seed=1), other, training={})
    with pytest.raises(UsageError, match="checkpoint_sha256 is"):
        embed(other, [small_store], **options)
    assert tree(tmp_path / "E") == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="holds no embeddings of ours"):
        embed(checkpoint, [small_store], out=tmp_path / "mine")


# -- sizes


def test_a_raster_larger_than_memory_is_read_in_windows(checkpoint, tmp_path):
    """3 x 60000 x 60000 is 10.8 GB; a sparse file of it, with three blocks that hold something."""
    path = tmp_path / "vast.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=3, width=60_000, height=60_000, crs=UTM,
        transform=Affine(1, 0, 480_000, 0, -1, 4_000_000), tiled=True, blockxsize=512,
        blockysize=512, sparse_ok=True, nodata=0, interleave="pixel",
    ) as dataset:  # fmt: skip
        for offset in (0, 30_000, 59_000):
            dataset.write(noise(512, 512), window=Window(offset, offset, 512, 512))
    code = """
import resource, sys
from salibi_model.embeddings.embed import embed
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import torch, rasterio, zarr, pyarrow.parquet, shapely
before = peak()
result = embed(sys.argv[1], [sys.argv[2]], out=sys.argv[3], modalities=("lores",), window_px=512,
               stride_px=3000)
print(result.num_rows["lores"], result.num_empty["lores"], (peak() - before) // 1024)
"""
    rows, empty, grown_mb = map(int, run_in_process(code, checkpoint, path, tmp_path / "E").split())
    assert (rows, rows + empty) == (2, 400)
    assert grown_mb < 1200


REMOTE = """
import sys
from salibi_model.embeddings.embed import embed
embed(sys.argv[1], [sys.argv[2]], out=sys.argv[3], modalities=("lores",), window_px=128,
      stride_px=1900, bands=("red", "green", "blue"))
"""


def test_remote_rasters_are_read_by_ranges(checkpoint, tmp_path):
    """In a process of its own: rasterio keeps Python still while it opens a file."""
    from tests.support.data.servers import RangeServer, serve

    folder = tmp_path / "served"
    folder.mkdir()
    path = raster(
        folder / "a.tif", noise(2048, 2048), driver="COG", blocksize=128, compress="deflate"
    )
    with serve(RangeServer(folder)) as server:
        arguments = (checkpoint, f"{server.url}/a.tif?sig=secret", tmp_path / "E")
        run_in_process(REMOTE, *arguments)
        spans = [request.span for request in server.log if request.status == 206]
    options = {"modalities": ("lores",), "window_px": 128, "stride_px": 1900}
    options["bands"] = ("red", "green", "blue")
    embed(checkpoint, [path], out=tmp_path / "L", **options)
    remote, local = (rows_of(tmp_path / name, "lores") for name in "EL")
    assert np.allclose(remote["embedding"], local["embedding"], atol=1e-6)
    answered = sum(stop - start for start, stop in spans)
    assert 0 < answered < path.stat().st_size / 4
    written = [path.read_bytes() for path in (tmp_path / "E").rglob("*") if path.is_file()]
    assert b"secret" not in b"".join(written)


# -- refusals


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (noise(64, 64), {}, "could be any of lores, hires_4x.*--modality"),
        (noise(64, 64, bands=1), {}, r"has the bands gray.*the model takes \(sar: vv, vh;"),
        (noise(64, 64, bands=2), {"modalities": ("sar",)}, "it lacks vv, vh.*--bands"),
        (noise(64, 64), {"bands": ("red", "green")}, r"red, green, rest.*--bands"),
        (noise(64, 64), {"bands": ("r", "g", "b", "n")}, "names 4 bands.*the file has 3"),
        (noise(64, 64), {"bands": ("red", "red", "blue")}, "a band twice"),
        (noise(64, 64).astype(np.uint16), {}, r"values are uint16.*'lores'.*display.*--units"),
        (noise(64, 64).astype(np.float32), {}, "values are float32.*--units"),
        (noise(64, 64).astype(np.uint16) * 9, {"units": "stored"}, "whole numbers 0..255; got"),
        (noise(64, 64) / np.float32(256), {"units": "stored"}, "whole numbers 0..255; got float32"),
        (noise(64, 64) / np.float32(256), {"units": "display"}, "hardly for display.*--scale 255"),
        (noise(64, 64).astype(np.uint16) * 9, {"units": "display"}, "display are 0..255; got from"),
        (noise(64, 64), {"units": "dB"}, "cannot be brought to the display.*stored, display"),
        (noise(64, 64), {"window_px": 50}, "do not divide.*such as 64"),
        (noise(64, 64).astype(np.complex64), {"units": "display"}, "expected real numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_the_work(checkpoint, tmp_path, values, options, words):
    names = ("red", "green", "blue") if len(values) == 3 else ()
    path = raster(tmp_path / "x.tif", values, names=names)
    named = {"modalities": ("lores",)} if "take" not in words and "any of" not in words else {}
    with pytest.raises(UsageError, match=words) as told:
        embed(checkpoint, [path], out=tmp_path / "E", **{**named, **options})
    assert "x.tif" in str(told.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "units", "words"),
    [
        (lambda db: 10 ** (db / 10), "dB", "hardly in dB.*--units linear"),
        (lambda db: db, "linear", "hardly power.*--units dB"),
        (lambda db: 1000 * 10 ** (db / 20), "linear", "calibrate"),
        (lambda db: db * 100, "dB", "hardly in dB.*calibrate"),
    ],
)
def test_radar_in_other_units_than_said_is_refused(checkpoint, tmp_path, make, units, words):
    decibel = np.random.default_rng(0).normal(-12, 3, (2, 64, 64))
    path = raster(tmp_path / "s.tif", make(decibel).astype(np.float32), names=("vv", "vh"))
    with pytest.raises(UsageError, match=words):
        embed(checkpoint, [path], out=tmp_path / "E", units=units)


def test_a_gsd_far_from_the_training_is_refused_unless_wanted(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", noise(64, 64), transform=Affine(60, 0, 480_000, 0, -60, 4e6))
    options = {"modalities": ("lores",), "out": tmp_path / "E"}
    with pytest.raises(
        UsageError, match=r"60\.\d+ m per pixel are 16\.\d times coarser.*\(3.7 m\)"
    ):
        embed(checkpoint, [path], **options)
    assert embed(checkpoint, [path], any_gsd=True, **options).num_rows == {"lores": 1}


def test_what_is_no_input_is_refused(checkpoint, small_store, tmp_path):
    (tmp_path / "notes.txt").write_text("no raster")
    for location, words in (("notes.txt", "cannot be read as a raster"), ("absent.tif", "raster")):
        with pytest.raises(UsageError, match=words):
            embed(checkpoint, [tmp_path / location], out=tmp_path / "E")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="not a Zarr group"):
        embed(checkpoint, [tmp_path / "folder"], out=tmp_path / "E")
    with pytest.raises(UsageError, match="nothing to embed"):
        embed(checkpoint, [], out=tmp_path / "E")
    with pytest.raises(UsageError, match="no modality 'hires'"):
        embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("hires",))


def test_a_raster_without_any_observation_is_refused(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(UsageError, match="nothing is observed in any of 1 images"):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",))
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_raster_keeps_what_was_embedded(checkpoint, tmp_path, monkeypatch):
    from salibi_model.embeddings import writer as embed_store

    monkeypatch.setattr(embed_store, "_PART_ROWS", 4)
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    for path in (good, bad):
        raster(path, noise(512, 512), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    bad.write_bytes(content)
    options = {"modalities": ("lores",), "window_px": 64, "out": tmp_path / "E"}
    with pytest.raises(StoreError, match=r"bad\.tif cannot be read at row \d+, column \d+"):
        embed(checkpoint, [good, bad], **options)
    assert not (tmp_path / "E").exists()


def test_tokens_of_images_of_several_sizes_are_refused(checkpoint, tmp_path):
    paths = [raster(tmp_path / f"{edge}.tif", noise(edge, edge)) for edge in (64, 80)]
    with pytest.raises(UsageError, match="64x64, 80x80 px; with --tokens"):
        embed(checkpoint, paths, out=tmp_path / "E", modalities=("lores",), tokens=True)


def test_secrets_of_an_address_are_not_told(checkpoint, tmp_path):
    url = "http://user:secret@127.0.0.1:9/x.tif?sig=secret"
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:9/x\.tif cannot be read") as told:
        embed(checkpoint, [url], out=tmp_path / "E")
    assert "secret" not in str(told.value)


# -- places


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, PLACE @ Affine.rotation(30)),
        ("EPSG:4326", Affine(1e-4, 0, 25, 0, -1e-4, 60)),
        ("EPSG:32601", Affine(10, 0, 150_000, 0, -10, 2_000_000)),
        ("EPSG:32660", Affine(100, 0, 820_000, 0, -100, 8_000_000)),
        ("EPSG:3832", Affine(10, 0, 3_339_584 - 1280, 0, -10, 1280)),
        ("EPSG:3031", Affine(30, 0, 500_000, 0, -30, 500_000)),
    ],
    ids=["rotated", "degrees", "utm-1", "utm-60", "antimeridian", "antarctica"],
)
def test_outlines_are_those_of_gdal(crs, transform):
    corners = [transform @ corner for corner in ((0, 0), (256, 0), (256, 256), (0, 256), (0, 0))]
    ring = {"type": "Polygon", "coordinates": [corners]}
    expected = shapely.geometry.shape(transform_geom(crs, "OGC:CRS84", ring))
    (found,) = outlines([(0, 0, 256, 256)], transform, crs, pixel_m=10.0)
    assert found.is_valid
    assert found.geom_type == expected.geom_type
    assert found.symmetric_difference(expected).area < 1e-6 * expected.area


def test_longitudes_beyond_half_a_turn_come_back():
    """A global raster from 0 to 360 degrees east: GDAL's warp leaves them as they are."""
    east = Affine(0.01, 0, 179, 0, -0.01, -17)
    (found,) = outlines([(0, 0, 200, 200)], east, "EPSG:4326", pixel_m=1000.0)
    expected = shapely.union(shapely.box(179, -19, 180, -17), shapely.box(-180, -19, -179, -17))
    assert found.symmetric_difference(expected).area < 1e-6
    far = Affine(0.01, 0, 200, 0, -0.01, -17)
    (found,) = outlines([(0, 0, 200, 200)], far, "EPSG:4326", pixel_m=1000.0)
    assert found.bounds == pytest.approx((-160, -19, -158, -17))
    whole = Affine(1.40625, 0, 0, 0, -0.703125, 90)
    (found,) = outlines([(0, 0, 256, 256)], whole, "EPSG:4326", pixel_m=1e5)
    assert found.area == pytest.approx(360 * 180)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_window_over_a_pole_covers_it(crs, pole):
    step = 100.0
    place = Affine(step, 0, -128 * step, 0, -step, 128 * step)
    (found,) = outlines([(0, 0, 256, 256)], place, crs, pixel_m=step)
    assert found.is_valid
    assert found.covers(shapely.Point(12.3, pole))
    assert found.bounds[0::2] == (-180, 180)
    assert abs(found.bounds[1 if pole > 0 else 3]) == pytest.approx(89.83, abs=0.02)


def test_a_ring_without_a_pole_is_itself():
    lon, lat = np.array([10.0, 11, 11, 10]), np.array([50.0, 50, 49, 49])
    assert outline(lon, lat).equals(shapely.box(10, 49, 11, 50))


def test_a_raster_beyond_the_earth_is_refused(checkpoint, tmp_path):
    path = raster(
        tmp_path / "x.tif",
        noise(64, 64),
        crs="ESRI:54009",
        transform=Affine(5_000_000 / 64, 0, 16_000_000, 0, -5_000_000 / 64, 2_500_000),
    )
    with pytest.raises(
        UsageError, match=r"x\.tif: (some of its windows reach|the raster's centre)"
    ):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), any_gsd=True)


# -- models that do not know their metres


def test_a_model_without_metres_needs_a_ratio(tmp_path):
    folder = tmp_path / "model"
    save_model(nano_model().eval(), folder, training={})
    path = raster(tmp_path / "x.tif", noise(64, 64))
    options = {"modalities": ("lores",), "out": tmp_path / "E"}
    with pytest.raises(UsageError, match=r"x\.tif: this model does not know.*--gsd-ratio"):
        embed(folder, [path], **options)
    embed(folder, [path], gsd_ratio=2.0, **options)
    with rasterio.open(path) as dataset, torch.inference_mode():
        images = torch.from_numpy(dataset.read())[None]
        _, vector = salibi_model.load(folder).encode(images, "lores", 2.0)
    assert np.allclose(rows_of(tmp_path / "E", "lores")["embedding"], vector, atol=1e-5)


# -- real files


@needs_real
def test_a_real_aerial_image(checkpoint, tmp_path):
    with rasterio.open(NAIP) as dataset:
        names = ("red", "green", "blue", "nir")[: dataset.count]
        shape = dataset.shape
        gsd_m = pixel_m(dataset.transform, dataset.crs, dataset.shape)
    result = embed(
        checkpoint, [NAIP], out=tmp_path / "E", modalities=("hires_4x",), bands=names, window_px=256
    )
    assert result.num_rows["hires_4x"] >= (shape[0] // 256) * (shape[1] // 256)
    found = rows_of(tmp_path / "E", "hires_4x")
    assert found["gsd_m"] == pytest.approx(gsd_m, rel=1e-3)
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet")
    with rasterio.open(NAIP) as dataset:
        whole = shapely.box(*dataset.bounds)
    assert shapely.union_all(frame.to_crs(dataset.crs).geometry).area == pytest.approx(
        whole.area, rel=1e-4
    )


@needs_real
def test_real_radar_power(checkpoint, tmp_path):
    """Two files of one band each, joined as the refusal says; power to dB as stored."""
    files = sorted((REAL / "s1_opera_california").glob("*292320*_V[VH].tif"))[::-1]
    layers = []
    for path in files:
        with rasterio.open(path) as dataset:
            layers.append(dataset.read(1, window=Window(0, 0, 96, 96)))
            place, crs = dataset.transform, dataset.crs
    joined = raster(tmp_path / "s1.tif", np.stack(layers), transform=place, crs=crs, nodata=np.nan)
    options = {"bands": ("vv", "vh"), "out": tmp_path / "E", "any_gsd": True}
    with pytest.raises(UsageError, match="--units linear"):
        embed(checkpoint, [joined], units="dB", **options)
    embed(checkpoint, [joined], units="linear", **options)
    with np.errstate(divide="ignore"):
        decibel = 10 * np.log10(np.stack(layers))
    expected = to_stored(decibel, describe("sar"), "dB")
    found = rows_of(tmp_path / "E", "sar")
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(expected)[None], "sar", gsd_m=float(found["gsd_m"][0])
        )
    assert np.allclose(found["embedding"][0], vector[0], atol=1e-4)


# -- the command and the documentation


def test_the_documentation_reads_what_the_command_writes(
    checkpoint, small_store, tmp_path, monkeypatch
):
    from typer.testing import CliRunner

    from salibi_cli.model import app as model

    monkeypatch.chdir(tmp_path)
    call = ["embed", str(checkpoint), str(small_store), "-o", "embeddings", "--device", "cpu"]
    call += ["--split", "validation", "--modality", "sar,lores"]
    done = CliRunner().invoke(model.application, call)
    assert done.exit_code == 0, done.output
    assert "wrote embeddings" in done.output
    again = CliRunner().invoke(model.application, [*call, "--json"])
    assert json.loads(again.output)["num_rows"] == {"sar": 6, "lores": 6}
    assert "nothing to do" in CliRunner().invoke(model.application, call).output
    page = (ROOT / "docs/embeddings.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - it is our own documentation
    assert names["vectors"].shape == (6, 32)
    assert names["middle"].geom_type == "Point"


def test_the_documentation_lists_what_there_is(checkpoint, small_store, tmp_path):
    options = {"split": "validation", "modalities": ("sar",), "tokens": True}
    embed(checkpoint, [small_store], out=tmp_path / "E", **options)
    page = (ROOT / "docs/embeddings.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| \([^|]*\) \| (\w+) \|", page, flags=re.MULTILINE))
    group = zarr.open_group(tmp_path / "E/sar", mode="r")
    assert {name: str(group[name].dtype) for name in group.array_keys()} == listed
    said = re.findall(r"^\| (`[^|]*`) \| ", page.split("The attributes,")[1], flags=re.MULTILINE)
    fields = {name for cell in said for name in re.findall(r"`(\w+)`", cell)}
    assert set(group.attrs["salibi_embedding"]) == fields
    columns = pq.read_schema(tmp_path / "E/embeddings.parquet").names
    assert all(f"`{column}`" in page for column in columns)
