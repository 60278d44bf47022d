"""Stores in buckets and on web servers: the same bytes as on disk, and one line for each failure."""

from __future__ import annotations

import json
import socket
import threading
import time

import numpy as np
import pytest
import rasterio
import torch

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import is_remote
from salibi_data.store.storage import parallel_map
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.embeddings.options import Choices
from salibi_model.embeddings.rasters import OpenRaster, RasterFile
from tests.support.data import cogs
from tests.support.model.batches import same, take
from tests.support.services.buckets import SECRET, SuffixServer, s3_server
from tests.support.services.servers import serve

pytest.importorskip("moto.server", reason="moto's server is not installed")


@pytest.fixture(scope="module")
def bucket(small_store):
    with s3_server() as server:
        server.upload(small_store, "samples", "deep/small.zarr")
        yield server


@pytest.fixture
def s3(bucket, monkeypatch):
    bucket.environment(monkeypatch)
    return bucket


def refusal(location):
    with pytest.raises((StoreError, UsageError)) as caught:
        SampleStore(location)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    assert "reader" not in message
    return message


def test_batches_from_a_bucket_equal_those_from_disk(s3, small_store):
    options = {"modalities": ("sar", "hires_4x"), "batch_size": 5, "seed": 1, "workers": 8}
    remote = SampleStore("s3://samples/deep/small.zarr")
    local = SampleStore(small_store)
    assert len(remote) == 16
    for cache_bytes in (0, 1 << 30):
        from_bucket, from_disk = (
            take(DataLoader([store], **options, cache_bytes=cache_bytes), 3)
            for store in (remote, local)
        )
        assert all(map(same, from_bucket, from_disk))


def test_a_store_in_a_bucket_and_one_on_disk_are_mixed(s3, small_store):
    stores = [SampleStore("s3://samples/deep/small.zarr/"), SampleStore(small_store)]
    (batch,) = take(
        DataLoader(stores, modalities=["sar"], batch_size=20, shuffle=False, augment=False), 1
    )
    assert torch.equal(batch.images["sar"][:10], batch.images["sar"][10:])


@pytest.mark.parametrize("start", ["s3://", "/vsis3/"])
def test_rasters_to_embed_are_read_from_the_same_server(s3, tmp_path, start):
    path = cogs.write_cog(tmp_path / "a.tif", pixels=600)
    s3.storage("samples").put("deep/a.tif", path)
    file = RasterFile(f"{start}samples/deep/a.tif", Choices(), OpenRaster())
    values, valid = file.read((100, 200, 64, 64), [1, 2, 3])
    with rasterio.open(path) as dataset:
        expected = dataset.read([1, 2, 3], window=((100, 164), (200, 264)))
    assert np.array_equal(values, expected)
    assert valid.all()


def test_what_is_not_there_is_told_in_one_line(s3):
    assert "its bucket does not exist" in refusal("s3://nowhere/small.zarr")
    assert "no Zarr group is there" in refusal("s3://samples/other.zarr")


def test_an_unreachable_endpoint_is_told_in_one_line(s3, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert "the server cannot be reached" in refusal("s3://samples/deep/small.zarr")


def test_plain_http_must_be_meant(s3, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "set AWS_ALLOW_HTTP=true" in refusal("s3://samples/deep/small.zarr")


def test_refused_access_is_told_in_one_line(small_store, monkeypatch):
    """From the second request on the server checks signatures; nobody has a right to anything."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        server.make("samples")
        server.environment(monkeypatch)
        assert "access is refused" in refusal("s3://samples/small.zarr")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("https://host/small.zarr?sig=not-to-be-told", "credentials in the environment"),
        ("s3://reader:not-to-be-told@samples/small.zarr", "credentials in the environment"),
        ("ftp://host/small.zarr", "no stores are read from ftp://"),
        ("az://container/small.zarr", "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3://", "it is not the address of a store"),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(location, message, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    assert message in refusal(location)


def test_a_shard_that_is_gone_is_an_error_and_no_nodata(small_store, monkeypatch, tmp_path):
    with s3_server() as server:
        server.environment(monkeypatch)
        server.upload(small_store, "samples", "cut.zarr")
        server.delete("samples", "cut.zarr/lores/c/1/0/0/0")
        store = SampleStore("s3://samples/cut.zarr")
        assert store.read("lores", [3]).any()
        with pytest.raises(
            StoreError,
            match=r"s3://samples/cut\.zarr is damaged: its file lores/c/1/0/0/0 is missing",
        ):
            store.read("lores", [3, 12])


def test_a_web_server_is_read_with_one_request_per_image_once_indexes_are_known(small_store):
    with serve(SuffixServer(small_store.parent)) as server:
        store = SampleStore(f"{server.url}/{small_store.name}")
        first = store.read("lores", [5])
        before = len(server.log)
        again = store.read("lores", [2])
        assert len(server.log) == before + 1
    local = SampleStore(small_store)
    assert np.array_equal(first, local.read("lores", [5]))
    assert np.array_equal(again, local.read("lores", [2]))


@pytest.mark.parametrize("fault", ["503", "reset", "truncated"])
def test_passing_faults_are_tried_again(small_store, fault):
    with serve(SuffixServer(small_store.parent)) as server:
        store = SampleStore(f"{server.url}/{small_store.name}")
        server.plan = ["", fault]
        image = store.read("lores", [5])
    assert np.array_equal(image, SampleStore(small_store).read("lores", [5]))


def test_a_fault_in_the_middle_reaches_the_consumer(small_store):
    with serve(SuffixServer(small_store.parent)) as server:
        store = SampleStore(f"{server.url}/{small_store.name}")
        batches = DataLoader([store], modalities=["lores"], batch_size=5, cache_bytes=0)
        reader = iter(batches)
        next(reader)
        server.fault_rate, server.faults = 1.0, ("403",)
        with pytest.raises(
            StoreError, match="'lores' cannot be read: it is missing, or access is"
        ) as caught:
            [next(reader) for _ in range(9)]
        assert "\n" not in str(caught.value)


def test_consolidated_metadata_spare_requests(small_store, tmp_path):
    """A store of `salibi-data build`: opening reads the group's file and the splits."""
    import shutil

    path = shutil.copytree(small_store, tmp_path / "built.zarr")
    group = json.loads((path / "zarr.json").read_text())
    arrays = {file.parent.name: json.loads(file.read_text()) for file in path.glob("*/zarr.json")}
    group["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": arrays,
    }
    (path / "zarr.json").write_text(json.dumps(group))
    with serve(SuffixServer(tmp_path)) as server:
        SampleStore(f"{server.url}/built.zarr")
        assert {entry.path for entry in server.log} == {
            "built.zarr/zarr.json",
            "built.zarr/split/c/0",
        }


@pytest.mark.parametrize(
    ("location", "remote"),
    [
        ("scene.tif", False),
        ("file:///data/scene.tif", False),
        ("https://a.org/scene.tif", True),
        ("/vsis3/bucket/scene.tif", True),
    ],
)
def test_what_is_on_another_machine_is_known_by_its_address(location, remote):
    assert is_remote(location) == remote


def test_work_is_done_in_parallel_and_given_in_order():
    meeting = threading.Barrier(3, timeout=30)

    def work(item):
        meeting.wait()
        return item * item

    assert list(parallel_map(work, [3, 1, 2], workers=3)) == [9, 1, 4]


def test_an_error_cancels_the_work_that_has_not_begun():
    done = []

    def work(item):
        if item == 0:
            raise StoreError("first")
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(StoreError, match="first"):
        list(parallel_map(work, range(200), workers=1))
    assert len(done) < 199
