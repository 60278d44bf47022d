"""Dask workers and schedulers that are killed in mid-build; the same bytes when run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from salibi_data.assembly.executor import Executor, WorkerDied, open_executor
from salibi_data.builds.build import build
from salibi_data.store.errors import UsageError
from tests.support.data import samples
from tests.support.data.samples import tree

DASK = [sys.executable, "-m", "distributed.cli"]


@contextmanager
def cluster(folder: Path, *, num_workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler and workers as processes of their own; the scheduler is the first of them."""
    file = folder / "scheduler.json"
    environment = samples.environment()
    started = []

    def start(tool: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", tool, "--scheduler-file", str(file), *arguments]
        log = (folder / f"{tool}-{len(started)}.log").open("w")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        log.close()

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_for(file.exists)
        for _ in range(num_workers):
            start("worker", "--nthreads", "1", "--no-dashboard", "--no-nanny")
        import json

        yield json.loads(file.read_text())["address"], started
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait_for(condition, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def started_build(store: Path, toml: str, *arguments: str) -> subprocess.Popen:
    command = samples.command(
        "build", "--variant", "micro", "--catalog", toml, "-o", str(store), *arguments
    )
    return subprocess.Popen(
        command,
        env=samples.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def num_parts(store: Path) -> int:
    return len(list(store.with_name(f"{store.name}.building").glob("parts/*.arrow")))


def test_a_worker_killed_in_mid_build_costs_nothing(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "x.zarr"
    process = started_build(store, sample_toml, "--workers", "2")
    wait_for(lambda: num_parts(store) >= 1 or process.poll() is not None)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) >= 2
    workers[0].send_signal(signal.SIGKILL)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "samples built" in output
    assert tree(store) == tree(micro_store)


@pytest.mark.slow
def test_a_scheduler_killed_in_mid_build_is_one_clear_line_and_loses_nothing(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    store = tmp_path / "x.zarr"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with cluster(first, num_workers=1) as (address, processes):
        build_process = started_build(store, sample_toml, "--scheduler", address)
        wait_for(lambda: num_parts(store) >= 2 or build_process.poll() is not None)
        processes[0].send_signal(signal.SIGKILL)
        _, errors = build_process.communicate(timeout=180)
    assert build_process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert "run the same command again" in errors
    kept = num_parts(store)
    assert kept >= 2
    with cluster(second, num_workers=2) as (address, processes):
        again = started_build(store, sample_toml, "--scheduler", address)
        wait_for(lambda: num_parts(store) > kept or again.poll() is not None)
        processes[-1].send_signal(signal.SIGKILL)  # and one of its workers, too
        _, errors = again.communicate(timeout=180)
        assert again.returncode == 0, errors
    assert tree(store) == tree(micro_store)


@pytest.mark.slow
def test_ctrl_c_is_one_clear_line_and_loses_nothing(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    """As a terminal sends it: to the build and to all of its workers."""
    store = tmp_path / "x.zarr"
    command = samples.command(
        *("build", "--variant", "micro", "--catalog", sample_toml, "-o", str(store)),
        *("--workers", "2"),
    )
    process = subprocess.Popen(
        command,
        env=samples.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: num_parts(store) >= 1 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["error: interrupted; run the same command again to go on"]
    assert samples.run(*command[3:]).returncode == 0
    assert tree(store) == tree(micro_store)


def die(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def double(number: int) -> int:
    return 2 * number


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Executor]:
    """Starting a cluster takes seconds; dead workers are replaced, so that tests may share it."""
    with open_executor(2, None) as executor:
        yield executor


def test_tasks_are_taken_as_workers_become_free(two_workers: Executor) -> None:
    taken = []

    def tasks() -> Iterator[tuple[int, object, tuple[int]]]:
        for number in range(200):
            taken.append(number)
            yield number, double, (number,)

    running = two_workers.run(tasks())
    next(running)
    assert len(taken) < 30
    assert len(list(running)) == 199


@pytest.mark.timeout(300)
def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done(
    two_workers: Executor,
) -> None:
    tasks = [(n, die if n == 3 else double, (n,)) for n in range(8)]
    results = dict(two_workers.run(iter(tasks)))
    assert isinstance(results.pop(3), WorkerDied)
    assert results == {n: 2 * n for n in range(8) if n != 3}


def test_an_address_without_a_scheduler_is_a_usage_error(
    sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salibi_data.assembly.executor.CONNECT_TIMEOUT_S", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense", ""):
        begun_s = time.monotonic()
        with pytest.raises(UsageError, match="no Dask scheduler"):
            build(
                tmp_path / "x.zarr",
                variant="micro",
                catalog=sample_toml,
                limit=2,
                scheduler=address,
            )
        assert time.monotonic() - begun_s < 20
    with pytest.raises(UsageError, match="either --workers or --scheduler"):
        build(
            tmp_path / "y.zarr",
            variant="micro",
            catalog=sample_toml,
            workers=2,
            scheduler="tcp://127.0.0.1:9",
        )
