"""Builds that are killed, disturbed or out of disk space, and run again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from salibi_data.builds.build import build
from salibi_data.builds.status import Step, status
from salibi_data.plans.planner import plan
from salibi_data.store.errors import StoreError
from tests.support.data import samples
from tests.support.data.samples import FEW, tree


def test_killed_three_times_and_run_again_gives_the_same_bytes(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "killed.zarr"
    arguments = ["build", "--variant", "micro", "--catalog", sample_toml, "-o", str(store)]
    chance = random.Random(20261122)
    workspace = tmp_path / "killed.zarr.building"
    kills = 0
    while kills < 3:
        workers = str(1 + kills % 2)
        process = subprocess.Popen(
            samples.command(*arguments, "--workers", workers),
            env=samples.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # The clock starts when work does, so that every kill lands in the middle of it.
        while not (workspace / "parts").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.2, 3.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break  # faster than the clock: what is there must be whole all the same
        kills += 1
    finished = samples.run(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert kills >= 2
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
    build(tmp_path / "a.zarr", **FEW, catalog=toml)
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
    used = plan(**FEW, catalog=toml).scenes["naip"]
    quad = folder / min(scene.hrefs["image"] for scene in used.values())
    content = quad.read_bytes()
    quad.write_bytes(content[: len(content) // 3])
    return toml, quad, content


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


KILL_POINTS = [
    "assembly.writer.create_arrays",
    "assembly.writer.finish_store",
    "assembly.writer._undo_finish",
    "builds.contents.write_samples",
    "assembly.writer.write_manifest",
    "assembly.writer.replace_store",
]


PAIR = {"variant": "micro", "limit": 2}


@pytest.fixture(scope="module")
def pair_store(sample_toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of :data:`PAIR`; read only."""
    store = tmp_path_factory.mktemp("pair") / "pair.zarr"
    build(store, **PAIR, catalog=sample_toml)
    return store


@pytest.mark.parametrize("point", KILL_POINTS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopped_at_every_rename_and_run_again_gives_the_same_bytes(
    point: str,
    after: bool,
    pair_store: Path,
    sample_toml: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each step of putting the store together, stopped before and after it is done."""
    from importlib import import_module

    module_name, _, name = point.rpartition(".")
    module = import_module(f"salibi_data.{module_name}")
    arguments = {**PAIR, "catalog": sample_toml}

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
    workspace = tmp_path / "stopped.zarr.building"
    for zarr_folder in workspace.glob("store-*/zarr"):  # as a write that was cut off leaves them
        (zarr_folder / ".manifest.json.partial").write_text("{")
    report = build(tmp_path / "stopped.zarr", **arguments)
    assert not report.failures
    assert tree(tmp_path / "stopped.zarr") == tree(pair_store)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".jsonl"] == ["stopped.zarr"]


def test_another_plan_at_the_same_path_is_not_mixed_up(sample_toml: str, tmp_path: Path) -> None:
    """In one process: build, remove, build another plan at the same path."""
    for limit in (2, 3):
        shutil.rmtree(tmp_path / "x.zarr", ignore_errors=True)
        build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml, limit=limit)
    build(tmp_path / "y.zarr", variant="micro", catalog=sample_toml, limit=3)
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "y.zarr")


def test_a_part_that_is_lost_is_a_failure_never_fewer_samples(
    few_store: Path, sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed, or cut short by a power cut, between being made and being put together."""
    monkeypatch.setattr("salibi_data.assembly.workspace.VISIBLE_WITHIN_S", 0.1)
    store = tmp_path / "x.zarr"

    def lose(step: Step) -> None:
        if step.stage == "samples" and step.done == step.total:
            first, second, *_ = sorted((tmp_path / "x.zarr.building" / "parts").glob("*.arrow"))
            first.unlink()
            second.write_bytes(second.read_bytes()[:1000])

    report = build(store, **FEW, catalog=sample_toml, progress=lose)
    assert [failure.kind for failure in report.failures] == ["lost", "lost"]
    assert status(store)["failures_by_kind"] == {"lost": 2}
    assert not build(store, **FEW, catalog=sample_toml).failures
    assert tree(store) == tree(few_store)


@pytest.mark.parametrize("harm", ["flip", "swap", "junk"])
def test_a_part_that_is_not_what_it_was_is_made_again(
    harm: str, few_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "x.zarr"

    class Killed(BaseException):
        pass

    def stop(step: Step) -> None:
        if step.stage == "shards":
            raise Killed

    with pytest.raises(Killed):
        build(store, **FEW, catalog=sample_toml, progress=stop)
    first, second, *_ = sorted((tmp_path / "x.zarr.building" / "parts").glob("*.arrow"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes({"flip": content, "swap": second.read_bytes(), "junk": b"junk"}[harm])
    try:
        report = build(store, **FEW, catalog=sample_toml)
        assert [failure.kind for failure in report.failures] == ["lost"]
    except StoreError as error:
        assert "Run the same command again" in str(error)  # noqa: PT017 - the other way to notice
    assert not build(store, **FEW, catalog=sample_toml).failures
    assert tree(store) == tree(few_store)


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
