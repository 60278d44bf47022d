"""Builds: killed, resumed, shared among workers, on a full disk, with broken sources."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from salibi_data.builds.build import build
from salibi_data.builds.status import Step, status
from salibi_data.inspection.verify import open_store, verify
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.errors import SelectionError, StoreError, UsageError
from salibi_data.store.schema import SPLITS
from salibi_data.store.tiles import tile_bounds
from tests.support.data import samples
from tests.support.data.samples import tree


def test_a_store_verifies(micro_store: Path) -> None:
    found = verify(micro_store)
    assert found.num_samples > 40
    assert not micro_store.with_name("micro.zarr.building").exists()


def test_two_workers_write_the_same_bytes(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    build(tmp_path / "two.zarr", variant="micro", catalog=sample_toml, workers=2)
    assert tree(tmp_path / "two.zarr") == tree(micro_store)


def test_a_plan_built_later_gives_the_same_bytes(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    plan("micro", catalog=sample_toml).write(tmp_path / "plan.parquet")
    build(tmp_path / "planned.zarr", plan=tmp_path / "plan.parquet")
    assert tree(tmp_path / "planned.zarr") == tree(micro_store)


def test_where_the_catalog_lies_does_not_change_a_byte(
    micro_store: Path, sample_catalog: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample_catalog, tmp_path / "moved")
    moved = samples.catalog_toml(tmp_path / "moved", tmp_path / "sample-test.toml")
    build(tmp_path / "moved.zarr", variant="micro", catalog=moved)
    assert tree(tmp_path / "moved.zarr") == tree(micro_store)
    assert str(sample_catalog).encode() not in b"".join(
        path.read_bytes() for path in micro_store.rglob("*.*") if path.is_file()
    )


def test_killed_five_times_and_run_again_gives_the_same_bytes(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "killed.zarr"
    arguments = ["build", "--variant", "micro", "--catalog", sample_toml, "-o", str(store)]
    chance = random.Random(20261122)
    workshop = tmp_path / "killed.zarr.building"
    kills = 0
    while kills < 5:
        workers = str(1 + kills % 2)
        process = subprocess.Popen(
            samples.command(*arguments, "--workers", workers),
            env=samples.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # The clock starts when work does, so that every kill lands in the middle of it.
        while not (workshop / "parts").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.2, 3.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break  # faster than the clock: what is there must be whole all the same
        kills += 1
    finished = samples.run(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert kills >= 3
    assert tree(store) == tree(micro_store)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "killed.zarr",
        "killed.zarr.log.jsonl",
    ]


def test_a_finished_store_is_left_alone(sample_toml: str, micro_store: Path) -> None:
    before = tree(micro_store)
    assert build(micro_store, variant="micro", catalog=sample_toml).was_complete
    with pytest.raises(StoreError, match="another dataset"):
        build(micro_store, variant="small", catalog=sample_toml)
    with pytest.raises(StoreError, match="another dataset"):
        build(micro_store, variant="micro", catalog=sample_toml, limit=3)
    assert tree(micro_store) == before


def test_a_folder_of_something_else_is_left_alone(sample_toml: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not a finished Salibi store"):
        build(tmp_path, variant="micro", catalog=sample_toml)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unfinished_build_of_something_else_is_left_alone(
    broken_catalog: tuple[str, Path, bytes], tmp_path: Path
) -> None:
    toml, _, _ = broken_catalog
    build(tmp_path / "a.zarr", variant="micro", catalog=toml)
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="unfinished build of something else"):
        build(tmp_path / "a.zarr", variant="micro", catalog=toml, limit=3)


def test_two_builds_of_one_store_do_not_meet(sample_toml: str, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "x.zarr.building").mkdir()
    with (tmp_path / "x.zarr.building" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another build is at work"):
            build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml)


@pytest.fixture
def broken_catalog(sample_catalog: Path, tmp_path: Path) -> tuple[str, Path, bytes]:
    """A copy of the catalog with one NAIP quad cut short; the file, and its true content."""
    folder = tmp_path / "catalog"
    shutil.copytree(sample_catalog, folder)
    toml = samples.catalog_toml(folder, tmp_path / "sample-test.toml")
    used = plan("micro", catalog=toml).scenes["naip"]
    quad = folder / min(scene.hrefs["image"] for scene in used.values())
    content = quad.read_bytes()
    quad.write_bytes(content[: len(content) // 3])
    return toml, quad, content


def test_a_truncated_file_is_a_failure_never_nodata(
    micro_store: Path, broken_catalog: tuple[str, Path, bytes], tmp_path: Path
) -> None:
    toml, quad, content = broken_catalog
    store = tmp_path / "micro.zarr"
    arguments = ["build", "--variant", "micro", "--catalog", toml, "-o", str(store)]
    failed = samples.run(*arguments)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "blocks could not be made" in failed.stderr
    assert quad.name in failed.stderr
    # Those that could be made are there, whole, and equal to the ones of the unbroken catalog.
    verify(store)
    some, every = (open_store(path)[0] for path in (store, micro_store))
    rows = [every["tile"][:].tolist().index(tile) for tile in some["tile"][:].tolist()]
    assert 0 < len(rows) < every["tile"].shape[0]
    assert np.array_equal(some["hires"][:], every["hires"][:][rows])
    assert set(status(store)["failures_by_kind"]) == {"damaged"}

    quad.write_bytes(content)
    again = samples.run(*arguments)
    assert again.returncode == 0, again.stderr
    assert tree(store) == tree(micro_store)
    assert not status(store)["failures"]


def test_a_missing_file_is_a_failure(
    broken_catalog: tuple[str, Path, bytes], tmp_path: Path
) -> None:
    toml, quad, _ = broken_catalog
    quad.unlink()
    report = build(tmp_path / "out.zarr", variant="micro", catalog=toml)
    assert report.failures
    assert all(quad.name in failure.reason for failure in report.failures)
    assert {failure.kind for failure in report.failures} == {"missing"}


def can_mount() -> bool:
    probe = "mount -t tmpfs -o size=1m tmpfs /mnt"
    command = ["unshare", "-m", "sh", "-c", probe]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a small tmpfs")
def test_a_full_disk_is_one_clear_line_and_loses_nothing(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    """A disk of 8 MB fills up during the build; the parts written are then taken along."""
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    arguments = ["build", "--variant", "micro", "--catalog", sample_toml, "-o", "{}/micro.zarr"]
    script = (
        f'mount -t tmpfs -o size=8m tmpfs {disk} && "$@"; code=$?; cp -r {disk} {saved}; exit $code'
    )
    on_disk = samples.command(*(part.format(disk) for part in arguments))
    full = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *on_disk],
        env=samples.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1
    assert "the disk is full" in full.stderr
    assert list((saved / "micro.zarr.building" / "parts").glob("*.arrow"))
    assert samples.run(*(part.format(saved) for part in arguments)).returncode == 0
    assert tree(saved / "micro.zarr") == tree(micro_store)


def test_limit_takes_an_even_reproducible_sample(sample_toml: str, tmp_path: Path) -> None:
    few, more = (plan("micro", catalog=sample_toml, limit=limit) for limit in (5, 12))
    assert (few.num_samples, more.num_samples) == (5, 12)
    assert {c.tile for c in few.choices()} < {c.tile for c in more.choices()}


def test_a_plan_file_reads_back_as_it_was(sample_toml: str, tmp_path: Path) -> None:
    made = plan("micro", catalog=sample_toml)
    made.write(tmp_path / "plan.parquet")
    read = Plan.read(tmp_path / "plan.parquet")
    assert read.digest == made.digest
    assert list(read.choices()) == list(made.choices())
    assert read.request == made.request


def test_filters_that_drop_everything_say_so(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    group = open_store(micro_store)[0]
    _, x, y = group["tile"][int(np.argmax(group["cloud_fraction"][:]))].tolist()
    west, south, east, north = tile_bounds(17, [x], [y])[0].tolist()
    strict = tmp_path / "strict.toml"
    strict.write_text('extends = "micro"\nname = "strict"\n[quality]\nmax_cloud_fraction = 0.0\n')
    cloudy = (west, south, east, north)
    with pytest.raises(SelectionError, match="all 1 planned samples were dropped"):
        build(tmp_path / "no.zarr", variant=str(strict), catalog=sample_toml, bounds_lonlat=cloudy)
    assert not (tmp_path / "no.zarr").exists()


def test_cloudy_tiles_are_dropped_and_counted(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    cloudy = open_store(micro_store)[0]["cloud_fraction"][:]
    assert cloudy.max() <= 0.1
    clear = tmp_path / "clear.toml"
    clear.write_text('extends = "micro"\nname = "clear"\n[quality]\nmax_cloud_fraction = 0.0\n')
    report = build(tmp_path / "clear.zarr", variant=str(clear), catalog=sample_toml)
    kept = open_store(tmp_path / "clear.zarr")[0]
    assert kept["cloud_fraction"][:].max() == 0
    assert report.num_samples == (cloudy == 0).sum()
    assert report.dropped["clouds"] > 0


def test_samples_of_different_splits_never_touch(micro_store: Path) -> None:
    group, _ = open_store(micro_store)
    tile, split = group["tile"][:].astype(int), group["split"][:]
    assert {SPLITS["train"]} < set(split.tolist())
    for a in range(len(tile)):
        apart = np.abs(tile[:, 1:] - tile[a, 1:]).max(axis=1)
        assert np.all(split[apart <= 1] == split[a])


def test_a_variant_that_the_catalog_cannot_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sentinel-1-rtc"):
        build(tmp_path / "x.zarr", variant="micro", catalog="earth-search")
    assert not list(tmp_path.iterdir())


KILL_POINTS = [
    "assembly.writer.create_arrays",
    "assembly.writer.finish",
    "assembly.writer._forget_earlier_finish",
    "builds.layout.write_samples",
    "assembly.writer.write_manifest",
    "assembly.writer.swap_in",
]


@pytest.mark.parametrize("point", KILL_POINTS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_every_rename_and_run_again_gives_the_same_bytes(
    point: str, after: bool, sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of putting the store together, stopped before and after it is done."""
    from importlib import import_module

    module_name, _, name = point.rpartition(".")
    module = import_module(f"salibi_data.{module_name}")
    arguments = {"variant": "micro", "catalog": sample_toml, "limit": 2}
    build(tmp_path / "whole.zarr", **arguments)

    class Killed(BaseException):
        pass

    step = getattr(module, name)

    def stopped(*args: object, **kwargs: object) -> None:
        if after:
            step(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, name, stopped)
        with pytest.raises(Killed):
            build(tmp_path / "stopped.zarr", **arguments)
    workshop = tmp_path / "stopped.zarr.building"
    for zarr_folder in workshop.glob("store-*/zarr"):  # as a write that was cut off leaves them
        (zarr_folder / ".manifest.json.partial").write_text("{")
    report = build(tmp_path / "stopped.zarr", **arguments)
    assert not report.failures
    assert tree(tmp_path / "stopped.zarr") == tree(tmp_path / "whole.zarr")
    stores = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".jsonl")
    assert stores == ["stopped.zarr", "whole.zarr"]


def test_another_plan_at_the_same_path_is_not_mixed_up(sample_toml: str, tmp_path: Path) -> None:
    """In one process: build, remove, build another plan at the same path."""
    for limit in (2, 3):
        shutil.rmtree(tmp_path / "x.zarr", ignore_errors=True)
        build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml, limit=limit)
    build(tmp_path / "y.zarr", variant="micro", catalog=sample_toml, limit=3)
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "y.zarr")


def test_a_plan_of_another_request_has_another_digest(sample_toml: str) -> None:
    dated = plan("micro", catalog=sample_toml, limit=2, dates="2000-01-01/2040-01-01")
    assert dated.digest != plan("micro", catalog=sample_toml, limit=2).digest


def test_a_part_that_is_lost_is_a_failure_never_fewer_samples(
    micro_store: Path, sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed, or cut short by a power cut, between being made and being put together."""
    monkeypatch.setattr("salibi_data.assembly.workspace.SEEN_WITHIN_S", 0.1)
    store = tmp_path / "x.zarr"

    def lose(step: Step) -> None:
        if step.stage == "samples" and step.done == step.total:
            first, second, *_ = sorted((tmp_path / "x.zarr.building" / "parts").glob("*.arrow"))
            first.unlink()
            second.write_bytes(second.read_bytes()[:1000])

    report = build(store, variant="micro", catalog=sample_toml, progress=lose)
    assert [failure.kind for failure in report.failures] == ["lost", "lost"]
    assert status(store)["failures_by_kind"] == {"lost": 2}
    assert not build(store, variant="micro", catalog=sample_toml).failures
    assert tree(store) == tree(micro_store)


def test_units_that_cannot_be_made_are_refused_before_any_work(
    sample_toml: str, tmp_path: Path
) -> None:
    toml = tmp_path / "odd.toml"
    toml.write_text(
        'extends = "micro"\nname = "odd"\n[[modality]]\nname = "sar"\nsensor = "sentinel-1"\n'
        'product = "rtc"\nbands = ["vv"]\nunits = "reflectance"\nrange = [[0.0, 1.0]]\n'
    )
    with pytest.raises(UsageError, match=r"wants reflectance .* is in power"):
        plan(str(toml), catalog=sample_toml)


def test_workers_of_another_version_are_refused(
    sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salibi_data.builds.block_task.__version__", "0.0.1")
    with pytest.raises(StoreError, match=r"a worker runs salibi 0\.0\.1"):
        build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml, limit=2)


@pytest.mark.parametrize("harm", ["flip", "swap", "junk"])
def test_a_part_that_is_not_what_it_was_is_made_again(
    harm: str, micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "x.zarr"

    class Killed(BaseException):
        pass

    def stop(step: Step) -> None:
        if step.stage == "shards":
            raise Killed

    with pytest.raises(Killed):
        build(store, variant="micro", catalog=sample_toml, progress=stop)
    first, second, *_ = sorted((tmp_path / "x.zarr.building" / "parts").glob("*.arrow"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes({"flip": content, "swap": second.read_bytes(), "junk": b"junk"}[harm])
    try:
        report = build(store, variant="micro", catalog=sample_toml)
        assert [failure.kind for failure in report.failures] == ["lost"]
    except StoreError as error:
        assert "Run the same command again" in str(error)  # noqa: PT017 - the other way to notice
    assert not build(store, variant="micro", catalog=sample_toml).failures
    assert tree(store) == tree(micro_store)


def test_a_finished_store_that_lacks_a_file_is_not_called_finished(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    shutil.copytree(micro_store, tmp_path / "x.zarr")
    shard = next(
        path for path in (tmp_path / "x.zarr" / "hires" / "c").rglob("*") if path.is_file()
    )
    shard.unlink()
    with pytest.raises(StoreError, match="missing or cut short; remove the store"):
        build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml)


SCRIPT = """
import salibi_data
salibi_data.build({store!r}, variant="micro", catalog={catalog!r}, limit=4, workers=2)
"""


def test_a_script_without_a_main_guard_is_told_so(sample_toml: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(store=str(tmp_path / "x.zarr"), catalog=sample_toml))
    done = subprocess.run(
        [sys.executable, str(script)],
        env=samples.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "x.zarr").exists()


def test_nothing_but_false_counts_as_not_given(sample_toml: str, tmp_path: Path) -> None:
    made = plan("micro", catalog=sample_toml, limit=2)
    with pytest.raises(UsageError, match="a plan says all"):
        build(tmp_path / "x.zarr", plan=made, max_cloud=0.0)
