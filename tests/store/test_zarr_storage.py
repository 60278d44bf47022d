"""Reads of a published dataset are cached on disk: the same bytes, fewer requests, a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.releases.publish import publish
from salibi_data.store.errors import UsageError
from salibi_data.store.zarr_storage import DiskCache
from salibi_model.data.store import SampleStore
from tests.support.services.buckets import SuffixServer
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(micro_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    publish(micro_store, f"file://{folder}")
    return folder


@pytest.fixture
def web(folder: Path) -> Iterator[SuffixServer]:
    with serve(SuffixServer(folder)) as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALIBI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_second_reader_asks_for_no_image(
    web: SuffixServer, cache: Path, micro_store: Path
) -> None:
    local = SampleStore(micro_store)
    for _ in range(2):
        remote = SampleStore(web.url)
        for name in ("sar", "hires_4x"):
            assert np.array_equal(remote.read(name, [1, 5]), local.read(name, [1, 5]))
        requested, web.log[:] = [entry.path for entry in web.log], []
    assert {path.rsplit("/", 1)[-1] for path in requested} <= {"zarr.json", "latest.json"}
    assert not any("/c/" in path for path in requested)


def test_without_the_variable_nothing_is_kept(
    web: SuffixServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SALIBI_CACHE")
    SampleStore(web.url).read("sar", [1])
    assert not cache.exists()


def test_the_folder_stays_below_its_bound_and_the_samples_right(
    web: SuffixServer, cache: Path, micro_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_CACHE_GB", "0.002")
    local, remote = SampleStore(micro_store), SampleStore(web.url)
    largest = 0
    for index in range(20):
        assert np.array_equal(remote.read("hires", [index]), local.read("hires", [index]))
        largest = max(largest, size(cache))
    assert 0.5e6 < largest <= 2e6


def test_a_piece_that_was_damaged_is_fetched_again(
    web: SuffixServer, cache: Path, micro_store: Path
) -> None:
    SampleStore(web.url).read("sar", [3])
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    images = SampleStore(web.url).read("sar", [3])
    assert np.array_equal(images, SampleStore(micro_store).read("sar", [3]))


def test_a_store_that_may_change_is_not_kept(cache: Path, micro_store: Path) -> None:
    with serve(SuffixServer(micro_store)) as server:
        SampleStore(server.url).read("sar", [1])
    assert not cache.exists()


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=10_000)
    for number in range(9):
        cache.write(str(number), bytes(900))
        time.sleep(0.002)
    assert cache.read("0") == bytes(900)
    for number in range(9, 14):
        time.sleep(0.002)
        cache.write(str(number), bytes(900))
        assert size(tmp_path) <= 10_000
    assert cache.read("0") is not None
    assert cache.read("1") is None


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_a_bound_that_is_none_is_refused(
    web: SuffixServer, cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SALIBI_CACHE_GB", text)
    with pytest.raises(UsageError, match="give gigabytes"):
        SampleStore(web.url)


def test_a_folder_that_cannot_be_made_is_refused(
    web: SuffixServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_bytes(b"a file")
    with pytest.raises(UsageError, match="name another"):
        SampleStore(web.url)
