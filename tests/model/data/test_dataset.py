"""The loader as a whole: orders for all, several variants, crops, threads that end, errors that come."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.data.crops import Crop
from salibi_model.data.loader import DataLoader
from salibi_model.data.modalities import mean_gsd_m, shared_modalities
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError
from tests.support.model.batches import same, take
from tests.support.model.stores import write_store
from tests.support.paths import ROOT
from tests.support.services.buckets import SuffixServer
from tests.support.services.servers import serve


def at_zoom(path, zooms):
    """Make a store one of a base zoom finer by ``zooms``, as micro is to small."""
    group = zarr.open_group(path, mode="r+")
    content = group.attrs["salibi"]
    content["base_zoom"] += zooms
    for modality in content["modalities"].values():
        modality["zoom"] += zooms
    group.attrs["salibi"] = content
    group["gsd_m"][:] = np.asarray(group["gsd_m"][:]) / 2**zooms
    return path


@pytest.fixture(scope="module")
def coarse(small_store):
    return SampleStore(small_store)


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """Six training samples of two zooms more, without the fine modality."""
    path = tmp_path_factory.mktemp("fine") / "fine.zarr"
    write_store(path, num_samples=6, validation=0, modalities=["sar", "lores"], seed=9)
    return SampleStore(at_zoom(path, 2))


NAMES = ("sar", "lores", "hires_4x")


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    world_size=st.integers(1, 3),
    local=st.integers(1, 3),
    workers=st.integers(1, 5),
    weights=st.sampled_from([(), (1.0, 1.0), (0.3, 2.0)]),
)
def test_ranks_and_threads_share_one_order(coarse, fine, seed, world_size, local, workers, weights):
    options = {"modalities": ["sar"], "batch_size": world_size * local, "seed": seed}
    whole = DataLoader([coarse, fine], **options, weights=weights)
    expected = take(whole, whole.steps_per_epoch + 1)
    ranks = [
        DataLoader(
            [coarse, fine],
            **options,
            weights=weights,
            rank=rank,
            world_size=world_size,
            workers=workers,
            cache_bytes=rank % 2 << 30,
        )
        for rank in range(world_size)
    ]
    parts = [take(rank, len(expected)) for rank in ranks]
    for number, batch in enumerate(expected):
        shares = [part[number] for part in parts]
        assert sum((share.seeds for share in shares), ()) == batch.seeds
        assert {share.seed for share in shares} == {batch.seed}
        joined = torch.cat([share.images["sar"] for share in shares])
        assert torch.equal(joined, batch.images["sar"])
    seeds = [seed for batch in expected[:-1] for seed in batch.seeds]
    assert len(set(seeds)) == len(seeds)


def places(batches, store, count):
    """Which sample of a store each image is, where it is one; -1 elsewhere."""
    known = {image.tobytes(): i for i, image in enumerate(store.read("sar", range(len(store))))}
    return [
        known.get(image.numpy().tobytes(), -1)
        for batch in take(batches, count)
        for image in batch.images["sar"]
    ]


def test_an_epoch_of_two_stores_has_each_sample_once(coarse, fine):
    batches = DataLoader([coarse, fine], modalities=["sar"], batch_size=4, augment=False)
    assert batches.steps_per_epoch == 4
    assert sorted(places(batches, fine, 4)) == [-1] * 10 + list(range(6))


def test_weights_draw_more_of_a_store_without_repeats_before_it_is_exhausted(coarse, fine):
    batches = DataLoader(
        [coarse, fine], modalities=["sar"], batch_size=4, augment=False, weights=[1.0, 3.0]
    )
    drawn = places(batches, fine, 4)
    assert drawn.count(-1) == 4
    assert sorted(drawn.count(i) for i in range(6)) == [2] * 6


def test_weights_that_do_not_fit_the_stores_are_refused(coarse, fine):
    with pytest.raises(UsageError, match="1 weights for 2 stores"):
        DataLoader([coarse, fine], modalities=["sar"], batch_size=4, weights=[1.0])


def test_finer_base_pixels_are_told_and_what_a_store_lacks_is_nodata(coarse, fine):
    batches = DataLoader(
        [coarse, fine], modalities=NAMES, batch_size=16, augment=False, shuffle=False
    )
    (batch,) = take(batches, 1)
    assert batch.gsd_scale.dtype == torch.float32
    assert batch.gsd_scale.tolist() == [1.0] * 10 + [0.25] * 6
    assert batch.images["hires_4x"][:10].flatten(1).any(dim=1).all()
    assert not batch.images["hires_4x"][10:].any()
    assert np.array_equal(batch.images["lores"][10:].numpy(), fine.read("lores", range(6)))
    alone = take(DataLoader([coarse], modalities=NAMES, batch_size=4), 1)[0]
    assert alone.gsd_scale is None


def test_statistics_and_ground_distance_of_several_variants(coarse, fine):
    stores = [coarse, fine]
    sar, lores, high = shared_modalities(stores, NAMES)
    assert (sar.zoom, high.zoom) == (15, 16)
    assert high == coarse.attributes.modalities["hires_4x"]
    images = np.concatenate([coarse.read("lores", range(10)), fine.read("lores", range(6))])
    valid = np.ma.masked_equal(images, 0)
    # Nodata corners make samples weigh a little less than they are counted here.
    np.testing.assert_allclose(lores.mean, valid.mean(axis=(0, 2, 3)), rtol=2e-3)
    (weighted,) = shared_modalities(stores, ["sar"], weights=[1.0, 3.0])
    parts = [store.attributes.modalities["sar"].mean[0] for store in stores]
    assert weighted.mean[0] == pytest.approx(0.25 * parts[0] + 0.75 * parts[1])
    # 3.7 m per base pixel of the coarse store; the fine one's is a quarter of the reference's.
    assert mean_gsd_m(stores) == pytest.approx(3.7)
    assert mean_gsd_m(stores[::-1]) == pytest.approx(3.7 / 4)
    (reversed_high,) = (m for m in shared_modalities(stores[::-1], NAMES) if m.name == "hires_4x")
    assert reversed_high.zoom == 18


def test_stores_with_too_little_in_common_are_refused(coarse, fine):
    with pytest.raises(UsageError, match=r"no modality 'hires_4x'.*Name those to use"):
        shared_modalities([fine], NAMES)
    with pytest.raises(UsageError, match=r"no modality 'hires'.*Name two at least"):
        shared_modalities([coarse, fine], ["sar", "hires", "hires_4x"])
    with pytest.raises(UsageError, match="none of the 2 stores has a modality 'thermal'"):
        shared_modalities([coarse, fine], ["sar", "lores", "thermal"])
    with pytest.raises(UsageError, match="no store has a modality 'thermal'"):
        DataLoader([coarse], modalities=["thermal"], batch_size=2)
    with pytest.raises(UsageError, match="1 weights for 2 stores"):
        shared_modalities([coarse, fine], ["sar"], weights=[1.0])


def test_crops_are_of_one_ground_in_all_modalities(coarse):
    """The base image is the mean of 2x2 fine pixels; so it is after a crop, a shrink and a turn.

    To half the size, as parts of a base pixel are not the mean of the fine ones.
    """
    crop = Crop(min_share=0.75, max_share=0.75, size_px=96)
    options = {"split": "validation", "batch_size": 6, "crop": crop}  # none of it is nodata
    batches = DataLoader([coarse], modalities=("hires", "hires_4x"), **options)
    for batch in take(batches, 2):
        assert batch.images["hires"].shape == (6, 3, 96, 96)
        assert batch.images["hires_4x"].shape == (6, 3, 192, 192)
        halved = torch.nn.functional.avg_pool2d(batch.images["hires_4x"].float(), 2)
        differences = (halved - batch.images["hires"].float()).abs()
        assert differences.max() <= 1.5  # each of the three is rounded
        assert batch.gsd_scale.tolist() == [2.0] * 6


def test_each_sample_has_a_crop_of_its_own(coarse):
    crop = Crop(min_share=0.5, max_share=1.0, size_px=64)
    for batch in take(DataLoader([coarse], modalities=["sar"], batch_size=10, crop=crop), 2):
        edges = batch.gsd_scale * 64
        assert torch.equal(edges, edges.round())
        assert ((edges >= 128) & (edges <= 256)).all()
        assert len(edges.unique()) > 5


def test_crops_and_variants_multiply(coarse, fine):
    crop = Crop(min_share=0.5, max_share=0.5, size_px=128)
    stores = [coarse, fine]
    batches = DataLoader(stores, modalities=NAMES, batch_size=16, crop=crop, shuffle=False)
    (batch,) = take(batches, 1)
    assert batch.gsd_scale.tolist() == [1.0] * 10 + [0.25] * 6
    assert not batch.images["hires_4x"][10:].any()


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_crop_of_the_whole_changes_no_pixel(coarse, cache_bytes):
    options = {"modalities": NAMES, "batch_size": 5, "seed": 4, "cache_bytes": cache_bytes}
    whole = take(DataLoader([coarse], **options), 3)
    cropped = take(
        DataLoader([coarse], **options, crop=Crop(min_share=1.0, max_share=1.0, size_px=256)), 3
    )
    assert all(map(same, whole, cropped))
    assert all(batch.gsd_scale.tolist() == [1.0] * 5 for batch in cropped)


@pytest.mark.parametrize("after", [1, 4, 7])
def test_resumed_crops_and_mixes_equal_those_never_stopped(coarse, fine, after):
    def batches(workers):
        return DataLoader(
            [coarse, fine],
            modalities=("sar", "lores"),
            batch_size=3,
            weights=[1.0, 2.0],
            crop=Crop(min_share=0.3, max_share=0.6, size_px=64),
            workers=workers,
        )

    expected = take(batches(1), 9)
    stopped = batches(4)
    take(stopped, after)
    resumed = batches(3)
    resumed.load_state_dict(stopped.state_dict())
    for a, b in zip(take(resumed, 9 - after), expected[after:], strict=True):
        assert same(a, b)
        assert torch.equal(a.gsd_scale, b.gsd_scale)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 4}, "batch_size 5 -> 4"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"weights": [2.0]}, r"weights \[\] -> \[2.0\]"),
        ({"split": "validation"}, r"split train -> validation; samples \[10\] -> \[6\]"),
        ({"crop": Crop(min_share=0.5, max_share=1.0, size_px=64)}, "crop"),
        ({"shuffle": False}, "shuffle True -> False"),
    ],
)
def test_a_position_among_other_batches_is_refused(coarse, changed, message):
    options = {"modalities": ["sar"], "batch_size": 5}
    state = DataLoader([coarse], **options).state_dict()
    assert (state["epoch"], state["batch"]) == (0, 0)
    with pytest.raises(CheckpointError, match=message):
        DataLoader([coarse], **{**options, **changed}).load_state_dict(state)
    DataLoader([coarse], **options, workers=5, cache_bytes=0).load_state_dict(state)
    DataLoader([coarse], **options).load_state_dict({"epoch": 1, "batch": 1})


def loader_threads():
    return [thread for thread in threading.enumerate() if "salibi-batches" in thread.name]


def wait_until(fits, seconds):
    until = time.monotonic() + seconds
    while not fits() and time.monotonic() < until:
        time.sleep(0.02)
    assert fits()


def test_a_damaged_sample_is_told_by_its_store_and_threads_end(small_store, tmp_path):
    path = shutil.copytree(small_store, tmp_path / "cut.zarr")
    shard = path / "lores/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-2000])
    reader = iter(
        DataLoader([SampleStore(path)], modalities=["lores"], batch_size=2, cache_bytes=0)
    )
    with pytest.raises(StoreError, match=r"cut\.zarr: array 'lores' cannot be read"):
        next(reader)
    wait_until(lambda: not loader_threads(), 10)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_shard_that_is_gone_is_no_nodata(small_store, tmp_path, cache_bytes):
    path = shutil.copytree(small_store, tmp_path / "gone.zarr")
    (path / "sar/c/0/0/0/0").unlink()
    batches = DataLoader(
        [SampleStore(path)], modalities=["sar"], batch_size=10, cache_bytes=cache_bytes
    )
    with pytest.raises(StoreError, match="sar/c/0/0/0/0 is missing"):
        next(iter(batches))


def test_only_a_few_batches_are_read_ahead_and_waiting_is_told(small_store):
    with serve(SuffixServer(small_store.parent, latency_s=0.05)) as server:
        store = SampleStore(f"{server.url}/{small_store.name}")
        batches = DataLoader([store], modalities=["sar"], batch_size=1, cache_bytes=0, workers=1)
        reader = iter(batches)
        next(reader)
        waited_first = batches.waited_s

        def num_images():
            return sum("sar/c/" in entry.path for entry in server.log) - 1  # the shard's index

        wait_until(lambda: num_images() == 1 + 2 and not server.active, 10)
        time.sleep(4 * server.latency_s)  # in which it could have read on
        assert num_images() == 1 + 2
        next(reader)
        assert batches.waited_s < waited_first
        assert waited_first >= server.latency_s
        reader.close()


def test_whoever_leaves_does_not_wait_for_a_server_that_stalls(small_store):
    with serve(SuffixServer(small_store.parent)) as server:
        store = SampleStore(f"{server.url}/{small_store.name}")
        reader = iter(
            DataLoader([store], modalities=["sar"], batch_size=2, cache_bytes=0, workers=4)
        )
        next(reader)
        server.latency_s = 2
        next(reader)
        wait_until(lambda: server.active > 0, 5)
        started = time.monotonic()
        reader.close()
        assert time.monotonic() - started < server.latency_s
        wait_until(lambda: not loader_threads(), 10)


ENDLESS = """
import sys, time
from salibi_model.data.loader import DataLoader
from salibi_model.data.store import SampleStore
store = SampleStore(sys.argv[1])
for number, batch in enumerate(DataLoader([store], modalities=["sar"], batch_size=2, cache_bytes=0, workers=4)):
    print(number, flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stopped_ends(small_store, sent):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(small_store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process:
        while process.stdout.readline() != b"3\n":
            assert process.poll() is None
        process.send_signal(sent)
        _, errors = process.communicate(timeout=20)
    assert process.returncode in (-sent, 130, 1)
    assert errors.count(b"Traceback") <= 1
