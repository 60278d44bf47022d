"""Embeddings of rasters: windows, nodata, units, remote files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import transform_geom
from rasterio.windows import Window

import salibi_model
from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.checkpoints.files import save_model
from salibi_model.data.pixel_size import pixel_m
from salibi_model.embeddings.embed import embed
from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.models.units import to_stored
from tests.support.data.real_catalogs import NAIP, REAL, needs_real
from tests.support.data.samples import environment
from tests.support.model.embedded import UTM, noise, raster, rows_of
from tests.support.model.nano import SIZE, nano_model
from tests.support.model.stores import describe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


def run_in_process(code, *arguments):
    """Run Python in a process of its own; give what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_windows_of_a_raster_are_those_that_rasterio_reads(checkpoint, tmp_path):
    path = raster(
        tmp_path / "scene.tif", noise(300, 520), tiled=True, blockxsize=128, blockysize=64
    )
    embed(
        checkpoint, [path], out=tmp_path / "E", modalities=("lores",), window_px=128, batch_size=4
    )
    rows = rows_of(tmp_path / "E", "lores")
    offsets = [(r, c) for r in (0, 128, 172) for c in (0, 128, 256, 384, 392)]
    assert rows["window"].tolist() == [[r, c, 128, 128] for r, c in offsets]
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
            assert np.allclose(rows["embedding"][number], vector[0], atol=1e-5)
            assert rows["gsd_m"][number] == pytest.approx(gsd_m, rel=1e-6)
            box = shapely.geometry.mapping(shapely.box(*dataset.window_bounds(window)))
            expected = shapely.geometry.shape(transform_geom(dataset.crs, "OGC:CRS84", box))
            geometry = frame.geometry[number]
            assert geometry.symmetric_difference(expected).area < 1e-9 * expected.area
            assert rows["bounds"][number] == pytest.approx(expected.bounds)
    assert np.array_equal(np.stack(frame["embedding"]), rows["embedding"])
    assert frame["id"][1] == "scene.tif#0,128"


def test_a_small_raster_is_one_window_padded_to_whole_patches(checkpoint, tmp_path):
    path = raster(tmp_path / "small.tif", noise(40, 64))
    embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",))
    rows = rows_of(tmp_path / "E", "lores")
    assert rows["window"].tolist() == [[0, 0, 48, 64]]
    assert rows["valid_fraction"] == pytest.approx(40 / 48)
    with rasterio.open(path) as dataset:
        images = np.pad(dataset.read(), ((0, 0), (0, 8), (0, 0)))[None]
        with torch.inference_mode():
            model = salibi_model.load(checkpoint)
            _, vector = model.encode(
                torch.from_numpy(images), "lores", gsd_m=float(rows["gsd_m"][0])
            )
        corners = shapely.box(*dataset.bounds)
    assert np.allclose(rows["embedding"], vector, atol=1e-5)
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet").to_crs(UTM)
    assert frame.geometry[0].symmetric_difference(corners).area < 1e-6 * corners.area


def test_nodata_is_kept_and_empty_windows_are_left_out(checkpoint, tmp_path):
    values = noise(64, 192)
    values[:, :, 64:128] = 0
    values[:, :16, :64] = 0
    path = raster(tmp_path / "holes.tif", values, nodata=0)
    result = embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), window_px=64)
    assert (result.num_rows, result.num_empty) == ({"lores": 2}, {"lores": 1})
    rows = rows_of(tmp_path / "E", "lores")
    assert rows["window"][:, 1].tolist() == [0, 128]
    assert rows["valid_fraction"] == pytest.approx([0.75, 1.0])
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(values[None, :, :, :64]), "lores", gsd_m=float(rows["gsd_m"][0])
        )
    assert np.allclose(rows["embedding"][0], vector[0], atol=1e-5)


def test_black_is_not_nodata_unless_it_is_said_to_be(checkpoint, tmp_path):
    values = noise(64, 128)
    values[:, :, :64] = 0
    path = raster(tmp_path / "black.tif", values)
    options = {"modalities": ("lores",), "window_px": 64}
    assert embed(checkpoint, [path], out=tmp_path / "A", **options).num_rows == {"lores": 2}
    with_nodata = embed(checkpoint, [path], out=tmp_path / "B", nodata=0.0, **options)
    assert with_nodata.num_rows == {"lores": 1}


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
        ("power", lambda db: (10 ** (db / 10)).astype(np.float64)),
        ("dB", lambda db: db.astype(np.float32)),
        ("stored", lambda db: np.clip(np.rint((db + 30) / 0.15), 1, 255).astype(np.uint8)),
        ("db", lambda db: np.rint(db * 100).astype(np.int16)),
    ],
    ids=["linear", "power", "dB", "stored", "scaled-integers"],
)
def test_radar_in_any_units_comes_to_the_same_stored_values(checkpoint, tmp_path, units, make):
    """Bands are found by their names, though the file has them the other way round."""
    decibel = np.random.default_rng(0).normal(-12, 4, (2, 64, 64)).clip(-29, 7)
    path = raster(tmp_path / "sar.tif", make(decibel)[::-1], names=("VH", "VV"))
    if units == "db":
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = (0.01, 0.01)
    embed(checkpoint, [path], out=tmp_path / "E", units=units)
    rows = rows_of(tmp_path / "E", "sar")
    stored = np.clip(np.rint((decibel + 30) / 0.15), 1, 255).astype(np.uint8)
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(stored)[None], "sar", gsd_m=float(rows["gsd_m"][0])
        )
    assert np.allclose(rows["embedding"], vector, atol=1e-3)


S2 = Modality(
    name="s2", sensor="sentinel-2", zoom=15, gsd_ratio=1.0, size_px=256, bands=("red", "nir"),
    units="reflectance", scale=(0.002, 0.004), offset=(-0.002, -0.004), mean=(60.0, 90.0),
    std=(40.0, 50.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "number_of", "tags"),
    [
        ({"units": "dn"}, lambda reflectance: reflectance * 10_000, None),
        ({"units": "DN", "offset": -0.1}, lambda reflectance: reflectance * 10_000 + 1000, None),
        ({"units": "dn"}, lambda reflectance: reflectance * 10_000 + 1000, (1e-4, -0.1)),
        ({"units": "dn"}, lambda reflectance: reflectance * 20_000, (5e-5, 0.0)),
        ({"units": "reflectance", "scale": 1e-4}, lambda reflectance: reflectance * 10_000, None),
    ],
    ids=["numbers", "baseline-04.00", "tagged", "other-scale", "reflectance"],
)
def test_sentinel_2_numbers_come_to_the_same_stored_values(tmp_path, options, number_of, tags):
    torch.manual_seed(0)
    config = ModelConfig(
        architecture="scale-mae", size=SIZE, modalities=(S2,), objectives=("reconstruction",),
        base_gsd_m=3.7,
    )  # fmt: skip
    save_model(ScaleMae(config).eval(), tmp_path / "model", training={"step": 1})
    stored = np.random.default_rng(0).integers(10, 250, (2, 64, 64), dtype=np.uint8)
    physical = np.reshape(S2.offset, (2, 1, 1)) + np.reshape(S2.scale, (2, 1, 1)) * stored
    numbers = np.rint(number_of(physical)).astype(np.uint16)
    if options["units"].lower() == "dn":
        numbers[:, :16], stored[:, :16] = 0, 0
    path = raster(tmp_path / "s2.tif", numbers, names=("red", "nir"))
    if tags is not None:
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (tags[0],) * 2, (tags[1],) * 2
    embed(tmp_path / "model", [path], out=tmp_path / "E", **options)
    rows = rows_of(tmp_path / "E", "s2")
    assert rows["valid_fraction"] == [(stored != 0).all(axis=0).mean()]
    with torch.inference_mode():
        _, vector = salibi_model.load(tmp_path / "model").encode(
            torch.from_numpy(stored)[None], "s2", gsd_m=float(rows["gsd_m"][0])
        )
    assert np.allclose(rows["embedding"], vector, atol=1e-6)


def test_plain_images_need_a_gsd_and_have_no_place(checkpoint, tmp_path):
    for name, edge in (("a.png", 64), ("b.jpg", 80)):
        Image.fromarray(noise(edge, edge, seed=edge).transpose(1, 2, 0)).save(tmp_path / name)
    images = [tmp_path / "a.png", tmp_path / "b.jpg"]
    with pytest.raises(UsageError, match=r"a\.png: it has no coordinate reference.*--gsd-m"):
        embed(checkpoint, images, out=tmp_path / "E", modalities=("lores",))
    embed(checkpoint, images, out=tmp_path / "E", modalities=("lores",), gsd_m=5.0)
    rows = rows_of(tmp_path / "E", "lores")
    assert rows["window"].tolist() == [[0, 0, 64, 64], [0, 0, 80, 80]]
    assert np.isnan(rows["bounds"]).all()
    assert rows["gsd_m"].tolist() == [5.0, 5.0]
    frame = geopandas.read_parquet(tmp_path / "E/embeddings.parquet")
    assert frame.geometry.isna().all()
    assert [Path(source).name for source in frame["source"]] == ["a.png", "b.jpg"]


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
               stride_px=6000)
print(result.num_rows["lores"], result.num_empty["lores"], (peak() - before) // 1024)
"""
    rows, empty, grown_mb = map(int, run_in_process(code, checkpoint, path, tmp_path / "E").split())
    assert (rows, rows + empty) == (2, 100)
    assert grown_mb < 1200


REMOTE = """
import sys
from salibi_model.embeddings.embed import embed
embed(sys.argv[1], [sys.argv[2]], out=sys.argv[3], modalities=("lores",), window_px=128,
      stride_px=1900, bands=("red", "green", "blue"))
"""


def test_remote_rasters_are_read_by_ranges(checkpoint, tmp_path):
    """In a process of its own: rasterio keeps Python still while it opens a file."""
    from tests.support.services.servers import RangeServer, serve

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
    rows = rows_of(tmp_path / "E", "hires_4x")
    assert rows["gsd_m"] == pytest.approx(gsd_m, rel=1e-3)
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
    with pytest.raises(UsageError, match="--units power"):
        embed(checkpoint, [joined], units="dB", **options)
    embed(checkpoint, [joined], units="linear", **options)
    with np.errstate(divide="ignore"):
        decibel = 10 * np.log10(np.stack(layers))
    expected = to_stored(decibel, describe("sar"), "dB")
    rows = rows_of(tmp_path / "E", "sar")
    with torch.inference_mode():
        _, vector = salibi_model.load(checkpoint).encode(
            torch.from_numpy(expected)[None], "sar", gsd_m=float(rows["gsd_m"][0])
        )
    assert np.allclose(rows["embedding"][0], vector[0], atol=1e-4)
