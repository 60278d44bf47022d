"""The documented Slurm example, on a real Slurm cluster of one node."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.data import samples
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "docs" / "examples" / "slurm.py"


@pytest.fixture(scope="module")
def slurm_environment() -> Iterator[dict[str, str]]:
    from tests.support.services.slurm_cluster import slurm

    pytest.importorskip("dask_jobqueue", reason="pip install -e '.[integration]'")
    with slurm() as environment:
        yield {**samples.environment(), **environment}


def test_the_example_builds_the_same_bytes(
    slurm_environment: dict[str, str], sample_toml: str, micro_store: Path, tmp_path: Path
) -> None:
    done = run_example(slurm_environment, sample_toml, tmp_path)
    assert done.returncode == 0, done.stderr
    assert samples.tree(tmp_path / "micro.zarr") == samples.tree(micro_store)
    jobs = list((tmp_path / "slurm-logs").glob("*.err"))
    assert len(jobs) >= 2
    assert any("Start worker at" in path.read_text() for path in jobs)


def test_jobs_that_slurm_cancels_lose_nothing(
    slurm_environment: dict[str, str], sample_toml: str, micro_store: Path, tmp_path: Path
) -> None:
    """All jobs are cancelled as soon as one works; new ones take over."""
    stop = threading.Event()
    cancelled: list[str] = []

    def cancel_first_jobs() -> None:
        while not stop.wait(0.2) and not cancelled:
            if parts(tmp_path):
                cancelled.extend(queue(slurm_environment))
                subprocess.run(["scancel", *cancelled], env=slurm_environment, check=True)

    watcher = threading.Thread(target=cancel_first_jobs)
    watcher.start()
    try:
        done = run_example(slurm_environment, sample_toml, tmp_path)
    finally:
        stop.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert cancelled
    assert len(list((tmp_path / "slurm-logs").glob("*.err"))) > len(cancelled)
    assert samples.tree(tmp_path / "micro.zarr") == samples.tree(micro_store)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_job_behind_and_goes_on(
    slurm_environment: dict[str, str],
    sample_toml: str,
    micro_store: Path,
    tmp_path: Path,
    by: signal.Signals,
) -> None:
    process = subprocess.Popen(
        example(sample_toml, tmp_path),
        env=slurm_environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not parts(tmp_path) and process.poll() is None:
        time.sleep(0.1)
    assert queue(slurm_environment)
    process.send_signal(by)
    assert process.wait(60) == 130
    deadline = time.monotonic() + 30  # Slurm takes a moment to end what it was told to
    while queue(slurm_environment) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert queue(slurm_environment) == []
    assert not (tmp_path / "micro.zarr").exists()
    done = run_example(slurm_environment, sample_toml, tmp_path)
    assert done.returncode == 0, done.stderr
    assert samples.tree(tmp_path / "micro.zarr") == samples.tree(micro_store)


def test_a_mistake_is_one_line(slurm_environment: dict[str, str], tmp_path: Path) -> None:
    done = run_example(slurm_environment, "no-such-catalog", tmp_path)
    assert done.returncode == 2
    assert "unknown catalog 'no-such-catalog'" in done.stderr
    assert "Traceback" not in done.stderr


def parts(folder: Path) -> list[Path]:
    """Blocks that are done."""
    return list((folder / "micro.zarr.building" / "parts").glob("[!.]*"))


def queue(environment: dict[str, str]) -> list[str]:
    """Identifiers of the jobs that wait or run."""
    command = ["squeue", "--noheader", "--format=%i", "--states=PENDING,RUNNING"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


def example(catalog: str, folder: Path) -> list[str]:
    arguments = ["--variant", "micro", "--catalog", catalog, "-o", str(folder / "micro.zarr")]
    arguments += ["--jobs", "2", "--workers", "1", "--memory", "2GB", "--interface", "lo"]
    return [sys.executable, str(EXAMPLE), *arguments]


def run_example(
    environment: dict[str, str], catalog: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        example(catalog, folder),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
