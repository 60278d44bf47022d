"""The documented template for training on Slurm, on a real cluster of one node, two processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from salibi_model.training.tracking.metrics_log import read_metrics
from tests.support.data import samples
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

TEMPLATE = ROOT / "docs" / "examples" / "train.sbatch"
STEPS = 24
SETTINGS = ["--size", "tiny", "--steps", str(STEPS), "--batch-size", "4", "--device", "cpu"]
NODE = ["--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0"]
"""Options that adapt the template to this node."""


@pytest.fixture(scope="module")
def slurm_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster, and ``salibi-model`` of this checkout on PATH."""
    from tests.support.services.slurm_cluster import slurm

    programs = tmp_path_factory.mktemp("bin")
    command = programs / "salibi-model"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m salibi_cli.model "$@"\n')
    command.chmod(0o755)
    with slurm() as environment:
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        yield {**samples.environment(), **environment, "PATH": path}


@pytest.fixture(scope="module")
def uninterrupted(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that torchrun starts and nobody stops."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "salibi_cli.model", *training(small_store, out)],
        env={**samples.environment(), "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=True,
    )
    return out


def test_a_job_that_is_told_its_time_is_up_goes_on_later(
    slurm_environment: dict[str, str], small_store: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """SIGUSR1 to the job's step, as ``--signal`` sends it; no checkpoint was due before."""
    job = Job(slurm_environment, small_store, tmp_path, "--checkpoint-every=1000")
    job.wait_for(lambda: job.num_steps() >= 3)
    job.run("scancel", "--signal=USR1", job.identifier)
    job.wait_for(lambda: job.num_restarts() == 1)
    stopped_at = job.num_steps()
    assert 3 <= stopped_at < STEPS
    job.start_now()
    job.wait_for(lambda: job.state() == "COMPLETED")
    assert f"went on from step {stopped_at}\n" in job.log()
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_job_that_is_requeued_without_a_warning_goes_on_from_its_checkpoint(
    slurm_environment: dict[str, str], small_store: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """The case of a node that fails, or of a job of higher priority."""
    job = Job(slurm_environment, small_store, tmp_path, "--checkpoint-every=2")
    job.wait_for(lambda: job.num_steps() >= 5)
    job.run("scontrol", "requeue", job.identifier)
    job.wait_for(lambda: job.num_restarts() == 1)
    job.start_now()
    job.wait_for(lambda: job.state() == "COMPLETED")
    assert re.search(r"went on from step \d+\n", job.log())
    assert_same_run(tmp_path / "run", uninterrupted)


def test_the_time_limit_itself(
    slurm_environment: dict[str, str], small_store: Path, tmp_path: Path
) -> None:
    """A job of two minutes that is told so one minute before, by Slurm."""
    job = Job(
        *(slurm_environment, small_store, tmp_path, "--checkpoint-every=1000", "--steps=100000"),
        options=["--time=2", "--signal=USR1@60"],
    )
    job.wait_for(lambda: job.num_restarts() == 1)
    stopped_at = job.num_steps()
    job.start_now()
    job.wait_for(lambda: job.num_steps() > stopped_at)
    job.run("scancel", job.identifier)
    assert stopped_at > 0
    assert "time is nearly up: back into the queue" in job.log()
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))


def test_a_cancelled_job_stays_away(
    slurm_environment: dict[str, str], small_store: Path, tmp_path: Path
) -> None:
    job = Job(slurm_environment, small_store, tmp_path, "--checkpoint-every=1000")
    job.wait_for(lambda: job.num_steps() >= 3)
    job.run("scancel", job.identifier)
    job.wait_for(lambda: job.state() == "CANCELLED")
    assert job.num_restarts() == 0


def test_tasks_without_a_meeting_place_are_refused(
    slurm_environment: dict[str, str], small_store: Path, tmp_path: Path
) -> None:
    """Each would take itself for the only one, and write to the same folder."""
    done = subprocess.run(
        ["srun", "--ntasks=2", "salibi-model", *training(small_store, tmp_path / "run")],
        env=slurm_environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "error: srun started 2 tasks" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


class Job:
    """A training from the template, with options of ``train`` added."""

    def __init__(
        self,
        environment: dict[str, str],
        store: Path,
        folder: Path,
        *extra: str,
        options: list[str] | None = None,
    ) -> None:
        self._environment = environment
        self._output, self._metrics = folder / "job.log", folder / "run" / "metrics.csv"
        arguments = [*training(store, folder / "run"), *extra][1:]
        sbatch = ["sbatch", "--parsable", f"--output={self._output}", *NODE, *(options or [])]
        self.identifier = self.run(*sbatch, str(TEMPLATE), *arguments).strip()

    def run(self, *command: str) -> str:
        """Run a Slurm command; give its output."""
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def description(self) -> str:
        return self.run("scontrol", "show", "job", self.identifier)

    def state(self) -> str:
        return re.findall(r"JobState=(\w+)", self.description())[0]

    def num_restarts(self) -> int:
        return int(re.findall(r"Restarts=(\d+)", self.description())[0])

    def start_now(self) -> None:
        """A requeued job waits for two minutes, until its credential of before has expired."""
        self.wait_for(lambda: self.state() == "PENDING")
        self.run("scontrol", "update", f"JobId={self.identifier}", "StartTime=now")

    def num_steps(self) -> int:
        return len(read_metrics(self._metrics)) if self._metrics.exists() else 0

    def log(self) -> str:
        return self._output.read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            if time.monotonic() > deadline or self.state() in ("FAILED", "TIMEOUT", "NODE_FAIL"):
                pytest.fail(f"{self.description()}\n{self.log()}")
            time.sleep(0.3)


def training(store: Path, out: Path) -> list[str]:
    return ["train", str(store), *SETTINGS, "--out", str(out)]


def assert_same_run(run: Path, other: Path) -> None:
    """Weights bit for bit, and the same losses; each step once."""
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]
    rows, others = (read_metrics(folder / "metrics.csv") for folder in (run, other))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in others]
