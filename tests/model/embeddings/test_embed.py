"""Embeddings of stores, rasters and images: against plain loops, rasterio and GDAL's own geometry."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xarray as xr
import zarr

import salibi_model
from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.embeddings.embed import embed
from salibi_model.embeddings.encode import read_ahead
from tests.support.data.samples import environment, tree
from tests.support.model.embedded import noise, raster, rows_of
from tests.support.model.nano import nano_model
from tests.support.model.stores import describe, write_store
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


def test_a_store_gives_what_a_plain_loop_gives(checkpoint, small_store, tmp_path):
    result = embed(
        checkpoint, [small_store], out=tmp_path / "E", batch_size=4, tokens=True, split="validation"
    )
    assert result.num_rows == {"sar": 6, "lores": 6, "hires_4x": 6}
    model, store = salibi_model.load(checkpoint), zarr.open_group(small_store, mode="r")
    for name in result.num_rows:
        rows = rows_of(tmp_path / "E", name)
        for row, sample in enumerate(range(10, 16)):
            images = torch.from_numpy(store[name][sample : sample + 1])
            with torch.inference_mode():
                tokens, vector = model.encode(images, name)
            assert np.allclose(rows["embedding"][row], vector[0], atol=1e-5)
            assert np.allclose(rows["tokens"][row], tokens[0], atol=1e-5)
        ratio = 0.5 if name == "hires_4x" else 1.0
        assert rows["gsd_m"] == pytest.approx(3.7 * ratio)
        assert rows["item"].tolist() == list(range(10, 16))


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


def test_provenance_is_in_the_attributes(checkpoint, small_store, tmp_path):
    import hashlib

    embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("sar",))
    dataset = xr.open_zarr(tmp_path / "E", group="sar", consolidated=False, chunks=None)
    assert dataset["embedding"].dims == ("row", "dim")
    provenance = dataset.attrs["salibi_embedding"]
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert provenance["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
    spec = describe("sar")
    assert (provenance["bands"], provenance["units"]) == (["vv", "vh"], "dB")
    assert (provenance["mean"], provenance["std"]) == (list(spec.mean), list(spec.std))
    assert provenance["inputs"] == [{"name": str(small_store), "plan_digest": "0" * 64}]
    kept = pq.read_schema(tmp_path / "E/embeddings.parquet").metadata[b"salibi_embedding"]
    assert json.loads(kept)["checkpoint_sha256"] == provenance["checkpoint_sha256"]


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
    reading, encoding = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(reading, names)  # noqa: S102 - it is our own documentation
    exec(encoding.replace("runs/tiny", str(checkpoint)), names)  # noqa: S102
    assert names["embedding"].shape == (1, 32)
    assert names["vectors"].shape == (6, 32)
    assert names["middle"].geom_type == "Point"


def test_the_documentation_lists_what_there_is(checkpoint, small_store, tmp_path):
    options = {"split": "validation", "modalities": ("sar",), "tokens": True}
    embed(checkpoint, [small_store], out=tmp_path / "E", **options)
    page = (ROOT / "docs/embeddings.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| \([^|]*\) \| (\w+) \|", page, flags=re.MULTILINE))
    group = zarr.open_group(tmp_path / "E/sar", mode="r")
    assert {name: str(group[name].dtype) for name in group.array_keys()} == listed
    attributes = page.split("The attributes,")[1].split("\n## ")[0]
    documented = re.findall(r"^\| (`[^|]*`) \| ", attributes, flags=re.MULTILINE)
    fields = {name for cell in documented for name in re.findall(r"`(\w+)`", cell)}
    assert set(group.attrs["salibi_embedding"]) == fields
    columns = pq.read_schema(tmp_path / "E/embeddings.parquet").names
    assert all(f"`{column}`" in page for column in columns)
