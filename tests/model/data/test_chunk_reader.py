"""Samples read past Zarr's scheduler are those that plain Zarr reads, and damage is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from salibi_data.store.errors import StoreError
from salibi_data.store.open import open_group
from salibi_model.data.chunk_reader import ChunkReader
from salibi_model.data.store import SampleStore
from tests.support.model.stores import landscape, write_store
from tests.support.services.buckets import SuffixServer
from tests.support.services.servers import serve

NUM_SAMPLES = 11
SHARD = 4
KEY = "sar/c/1/0/0/0"
"""The second of three shards."""

PACKINGS = {
    "zstd and checksum": [ZstdCodec(level=3), Crc32cCodec()],
    "zstd": [ZstdCodec(level=0)],
    "checksum": [Crc32cCodec()],
    "plain": [],
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The last but one is all nodata: Zarr does not write it."""
    made = np.stack([landscape(np.random.default_rng(i))["sar"] for i in range(NUM_SAMPLES)])
    made[NUM_SAMPLES - 2] = 0
    return made


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Callable[..., Path]:
    """Make a store whose SAR images are packed as asked for."""
    whole = tmp_path_factory.mktemp("whole") / "a.zarr"
    write_store(whole, num_samples=NUM_SAMPLES, modalities=["sar"])
    return partial(_packed, whole, images)


def _packed(
    whole: Path, images: np.ndarray, folder: Path, *, compressors: object, **options: object
) -> Path:
    path = shutil.copytree(whole, folder / "a.zarr")
    made = zarr.open_group(path, mode="r+").create_array(
        "sar",
        shape=images.shape,
        dtype="uint8",
        compressors=compressors,
        overwrite=True,
        **{
            "chunks": (1, *images.shape[1:]),
            "shards": (SHARD, *images.shape[1:]),
            **options,
        },
    )
    made[:] = images
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, packed: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return packed(folder, compressors=PACKINGS["zstd and checksum"])


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_gives_what_zarr_gives(
    tmp_path: Path, images: np.ndarray, packed: Callable[..., Path], packing: str
) -> None:
    path = packed(tmp_path, compressors=PACKINGS[packing])
    assert ChunkReader.for_array(open_group(str(path))["sar"]) is not None
    store = SampleStore(path)
    assert np.array_equal(store.read("sar", range(NUM_SAMPLES)), zarr.open_array(path / "sar")[:])
    assert all(np.array_equal(store.image("sar", i), images[i]) for i in range(NUM_SAMPLES))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": [BloscCodec(cname="lz4")]},
        {"compressors": [], "filters": [zarr.codecs.TransposeCodec(order=(0, 1, 3, 2))]},
        {"compressors": [], "shards": None},
        {"compressors": [], "chunks": (2, 2, 256, 256)},
        {"compressors": [], "chunks": (1, 1, 256, 256)},
    ],
    ids=["codec", "filter", "no shards", "two samples", "one band"],
)
def test_what_is_laid_out_otherwise_is_left_to_zarr(
    tmp_path: Path, images: np.ndarray, packed: Callable[..., Path], options: dict[str, object]
) -> None:
    path = packed(tmp_path, **options)
    assert ChunkReader.for_array(open_group(str(path))["sar"]) is None
    store = SampleStore(path)
    assert np.array_equal(store.read("sar", [7, 2, 3]), images[[7, 2, 3]])
    assert np.array_equal(store.image("sar", 5), images[5])


@settings(max_examples=30, deadline=None)
@given(indices=st.lists(st.integers(0, NUM_SAMPLES - 1), max_size=12))
def test_any_choice_of_samples_is_as_zarr_has_it(
    path: Path, images: np.ndarray, indices: list[int]
) -> None:
    assert np.array_equal(SampleStore(path).read("sar", indices), images[indices])


def test_samples_may_be_written_to_though_images_may_not(path: Path) -> None:
    store = SampleStore(path)
    assert store[3]["sar"].flags.writeable
    assert not store.image("sar", 3).flags.writeable


def test_a_run_costs_one_request_per_shard(path: Path, images: np.ndarray) -> None:
    with serve(SuffixServer(path.parent)) as server:
        store = SampleStore(f"{server.url}/{path.name}")
        for _ in range(2):
            server.log.clear()
            assert np.array_equal(store.read("sar", range(1, 7)), images[1:7])
        asked = [entry.path for entry in server.log]
    assert asked == [f"{path.name}/sar/c/{number}/0/0/0" for number in (0, 1)]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("byte", [100, -300, -30], ids=["sample", "another", "index"])
def test_one_wrong_bit_is_told(tmp_path: Path, path: Path, byte: int, *, remote: bool) -> None:
    damaged = shutil.copytree(path, tmp_path / "damaged.zarr")
    content = bytearray((damaged / KEY).read_bytes())
    content[byte] ^= 1
    (damaged / KEY).write_bytes(content)
    with serve(SuffixServer(tmp_path)) as server:
        store = SampleStore(f"{server.url}/damaged.zarr" if remote else damaged)
        assert store.read("sar", range(4)).any()
        with pytest.raises(StoreError, match=r"'sar' cannot be read \(a checksum differs"):
            store.read("sar", range(4, 8))


@pytest.mark.parametrize("remote", [False, True])
def test_a_shard_that_was_cut_after_it_was_opened_is_told(
    tmp_path: Path, path: Path, *, remote: bool
) -> None:
    damaged = shutil.copytree(path, tmp_path / "damaged.zarr")
    with serve(SuffixServer(tmp_path)) as server:
        store = SampleStore(f"{server.url}/damaged.zarr" if remote else damaged)
        store.image("sar", 4)
        content = (damaged / KEY).read_bytes()
        (damaged / KEY).write_bytes(content[: len(content) // 2])
        with pytest.raises(StoreError, match=r"'sar' cannot be read"):
            store.image("sar", 7)


@pytest.mark.parametrize("remote", [False, True])
def test_a_missing_shard_is_told_by_its_name(tmp_path: Path, path: Path, *, remote: bool) -> None:
    damaged = shutil.copytree(path, tmp_path / "damaged.zarr")
    (damaged / KEY).unlink()
    with serve(SuffixServer(tmp_path)) as server:
        store = SampleStore(f"{server.url}/damaged.zarr" if remote else damaged)
        with pytest.raises(StoreError, match=rf"its file {KEY} is missing"):
            store.image("sar", 4)
