"""Pulling from a bucket, a folder and a web server; and samples read where they were published."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.releases.pull import pull
from salibi_data.store.errors import StoreError
from salibi_data.store.storage import open_storage
from salibi_model.data.store import SampleStore
from salibi_model.models import config as model_config
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.data import samples
from tests.support.model.nano import SIZE
from tests.support.model.weights.published import another
from tests.support.services.buckets import SuffixServer, s3_server
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.services.buckets import S3

pytest.importorskip("moto.server", reason="moto's server is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running:
        running.make("datasets")
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    server.environment(monkeypatch)
    return server


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, s3: S3, micro_store: Path, tmp_path: Path) -> str:
    """Where the micro store was published."""
    address = {"s3": f"s3://datasets/{request.node.name}", "file": f"file://{tmp_path}/published"}
    publish(micro_store, address[request.param])
    return address[request.param]


def test_what_is_pulled_is_the_store_byte_for_byte(
    url: str, micro_store: Path, tmp_path: Path
) -> None:
    done = pull(url, tmp_path / "deep/pulled.zarr")
    assert samples.tree(tmp_path / "deep/pulled.zarr") == samples.tree(micro_store)
    assert done.files_fetched == done.files
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pulled.zarr"]
    assert pull(url, tmp_path / "deep/pulled.zarr").files_fetched == 0


def test_a_web_server_that_lists_nothing_is_enough(micro_store: Path, tmp_path: Path) -> None:
    publish(micro_store, f"file://{tmp_path}/published")
    with serve(SuffixServer(tmp_path / "published")) as web:
        pull(web.url, tmp_path / "pulled.zarr")
        assert len(SampleStore(web.url)) == len(SampleStore(micro_store))
    assert samples.tree(tmp_path / "pulled.zarr") == samples.tree(micro_store)


def test_killed_and_run_again_it_fetches_what_is_missing(
    s3: S3, micro_store: Path, tmp_path: Path
) -> None:
    url, store = "s3://datasets/killed", tmp_path / "pulled.zarr"
    publish(micro_store, url)
    work = tmp_path / "pulled.zarr.building"
    process = subprocess.Popen(
        samples.command("pull", url, str(store), "--workers", "1"), env=samples.environment()
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(work.rglob("zarr.json"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not store.exists()
    done = pull(url, store)
    assert 0 < done.files_fetched < done.files
    assert samples.tree(store) == samples.tree(micro_store)
    assert not work.exists()
    verify(store)


def test_what_differs_from_its_checksum_is_not_kept(
    s3: S3, micro_store: Path, tmp_path: Path
) -> None:
    url, store = "s3://datasets/damaged", tmp_path / "pulled.zarr"
    release = publish(micro_store, url).release
    name = f"{release.store}/sar/c/0/0/0/0"
    size = (micro_store / "sar/c/0/0/0/0").stat().st_size
    open_storage(url).put(name, bytes(size))
    with pytest.raises(StoreError, match=r"sar/c/0/0/0/0 of .* differs from its checksum"):
        pull(url, store)
    assert not store.exists()
    publish(micro_store, url)
    done = pull(url, store)
    assert 0 < done.files_fetched < done.files
    assert samples.tree(store) == samples.tree(micro_store)


def test_something_else_at_the_path_stays(url: str, tmp_path: Path) -> None:
    (tmp_path / "pulled.zarr").mkdir()
    (tmp_path / "pulled.zarr/holiday.jpg").write_bytes(b"sea")
    with pytest.raises(StoreError, match="holds something else; nothing was changed"):
        pull(url, tmp_path / "pulled.zarr")
    assert samples.tree(tmp_path / "pulled.zarr").keys() == {"holiday.jpg"}


def test_a_manifest_that_names_files_elsewhere_is_refused(
    micro_store: Path, tmp_path: Path
) -> None:
    evil = another(micro_store, tmp_path / "evil.zarr")
    manifest = json.loads((evil / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"]["zarr.json"]
    (evil / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="damaged"):
        pull(evil, tmp_path / "pulled.zarr")
    assert not (tmp_path / "outside").exists()


def test_a_newer_release_is_not_pulled_over_an_earlier_one(
    url: str, micro_store: Path, tmp_path: Path
) -> None:
    pull(url, tmp_path / "pulled.zarr")
    publish(another(micro_store, tmp_path / "newer.zarr", software_version="9"), url)
    with pytest.raises(StoreError, match="holds something else"):
        pull(url, tmp_path / "pulled.zarr")
    assert samples.tree(tmp_path / "pulled.zarr") == samples.tree(micro_store)


def test_samples_are_read_where_they_were_published(
    url: str, micro_store: Path, tmp_path: Path
) -> None:
    remote, local = SampleStore(url), SampleStore(micro_store)
    assert remote.attributes == local.attributes
    for name, values in local[3].items():
        assert np.array_equal(remote[3][name], values)
    # A reader goes on with the release that it opened.
    publish(another(micro_store, tmp_path / "newer.zarr", software_version="9"), url)
    assert np.array_equal(remote[5]["sar"], local[5]["sar"])
    assert SampleStore(url).attributes.software_version == "9"


def test_training_from_a_bucket_learns_what_training_from_disk_does(
    s3: S3, micro_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)
    monkeypatch.setenv("SALIBI_CACHE", str(tmp_path / "cache"))
    url = "s3://datasets/training"
    publish(micro_store, url)
    results = [
        train(
            TrainingConfig(
                stores=(store,),
                modalities=("sar", "lores"),
                steps=2,
                batch_size=4,
                stop_on_collapse=False,  # the store has no validation samples to see one by
            ),
            out=tmp_path / name,
            device="cpu",
        )
        for name, store in (("bucket", url), ("disk", str(micro_store)))
    ]
    assert results[0].metrics["loss"] == results[1].metrics["loss"]
    written = (tmp_path / "bucket/config.toml").read_text()
    assert url in written
    assert s3.secret not in written


def test_a_damaged_pointer_is_told_by_the_model_half(url: str) -> None:
    open_storage(url).put("latest.json", b"{")
    with pytest.raises(StoreError, match=r"damaged latest\.json"):
        SampleStore(url)


def test_the_command_pulls_and_reports(micro_store: Path, tmp_path: Path) -> None:
    url, store = f"file://{tmp_path}/published", tmp_path / "pulled.zarr"
    publish(micro_store, url)
    done = samples.run("pull", url, str(store), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["files_fetched"] == figures["files"] == len(samples.tree(store)) - 1
    refused = samples.run("pull", f"file://{tmp_path}/nothing", str(tmp_path / "x.zarr"))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
