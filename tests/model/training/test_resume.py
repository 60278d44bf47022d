"""A run that was killed at any moment goes on exactly; damage is skipped; signals are heeded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import hold_lock
from salibi_model.checkpoints.files import DamagedCheckpointWarning
from salibi_model.errors import CheckpointError
from salibi_model.models import config as model_config
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resume import resumed_config
from salibi_model.training.tracking.metrics_log import read_metrics
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE
from tests.support.model.nano_runs import config as nano_config
from tests.support.paths import ROOT

SETTINGS = {
    "steps": 7,
    "batch_size": 4,
    "checkpoint_every": 3,
    "workers": 3,
    "ema": 0.9,
    "validation_samples": 0,
}
"""Two batches an epoch: checkpoints at steps 3 and 6 lie in the middle and at the end of one."""


def start(store, out, *, processes=1, **settings):
    """Train in a process of its own, or several; what it prints are the steps done."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [
            *launcher,
            "-m",
            "tests.support.model.nano_train",
            store,
            out,
            json.dumps({**SETTINGS, **settings}),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
    )


def finish(process, timeout_s=200):
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def wait_for(process, step):
    for line in process.stdout:
        if line.strip() == str(step):
            return
    raise AssertionError(finish(process)[2])


def kill(process, out):
    """SIGKILL the process, and those that torchrun started in sessions of their own."""
    process.kill()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(out).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
    finish(process)


def state(run):
    return torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)


def same(a, b):
    """Whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    ("processes", "kill_after", "settings"),
    [
        # Before the first checkpoint; in the middle of an epoch, between checkpoints.
        pytest.param(1, 2, {"crop_px": 128}, marks=pytest.mark.slow),
        pytest.param(1, 5, {"accumulate": 2}, marks=pytest.mark.slow),
        (2, 4, {"steps": 5}),
    ],
)
def test_killed_and_run_again_equals_never_killed(
    small_store, tmp_path, processes, kill_after, settings
):
    whole = start(small_store, tmp_path / "whole", processes=processes, **settings)
    cut = start(small_store, tmp_path / "cut", processes=processes, pause_s=0.4, **settings)
    wait_for(cut, kill_after)
    kill(cut, tmp_path / "cut")
    code, _, errors = finish(whole)
    assert code == 0, errors
    code, printed, errors = finish(
        start(small_store, tmp_path / "cut", processes=processes, **settings)
    )
    assert code == 0, errors
    done = [int(line) for line in printed.split()]
    assert min(done) == (4 if kill_after > 2 else 1)
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_step_and_keeps_it(small_store, tmp_path, number, code):
    run = start(small_store, tmp_path, steps=1000, checkpoint_every=1000, pause_s=0.1)
    wait_for(run, 2)
    run.send_signal(number)
    ended, printed, errors = finish(run)
    assert ended == code
    step = state(tmp_path)["step"]
    assert f"stopped by signal {int(number)} after step {step} of 1000" in errors
    assert len(errors.strip().splitlines()) == 1
    assert [int(line) for line in printed.split()][-1] == step


@pytest.fixture(scope="module")
def finished(small_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model_config.SIZES, "tiny", SIZE)
        train(nano_config(small_store, checkpoint_every=1), out=out)
    return out


@pytest.fixture
def trained(small_store, finished, tmp_path, nano_size):
    """A run of four steps with a checkpoint of each, to be damaged."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return nano_config(small_store, checkpoint_every=1), tmp_path


def test_the_newest_checkpoint_is_skipped_when_it_is_damaged(trained):
    config, run = trained
    before = state(run)
    newest = run / "checkpoints/step-00000004.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.warns(
        DamagedCheckpointWarning, match=r"step-00000004.*going on from step-00000003"
    ):
        result = train(config, out=run)
    assert result.first_step == 3
    assert same(state(run), before)
    assert [row["step"] for row in read_metrics(run / "metrics.csv")] == [1, 2, 3, 4]


def test_a_missing_checkpoint_is_skipped_as_well(trained):
    config, run = trained
    (run / "checkpoints/step-00000004.pt").unlink()
    (run / "checkpoints/step-00000003.pt").write_bytes(b"")
    with pytest.warns(DamagedCheckpointWarning) as warned:
        assert train(config, out=run).first_step == 2
    assert len(warned) == 2


def test_when_all_are_damaged_the_run_says_so(trained):
    config, run = trained
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"step-00000004.pt cannot be read"):
        train(config, out=run)


def test_only_the_newest_checkpoints_are_kept(trained):
    _, run = trained
    names = sorted(file.name for file in (run / "checkpoints").iterdir())
    assert names == [f"step-0000000{step}.pt" for step in (2, 3, 4)]


@pytest.mark.slow
def test_compiled_it_learns_the_same(small_store, tmp_path):
    """In a process without the tests' shape checks, which no compiler can follow."""
    for name, compiled in {"plain": False, "compiled": True}.items():
        run = start(small_store, tmp_path / name, compile=compiled, steps=2)
        code, _, errors = finish(run, timeout_s=800)
        assert code == 0, errors
    plain, compiled = (
        read_metrics(tmp_path / name / "metrics.csv") for name in ("plain", "compiled")
    )
    for a, b in zip(plain, compiled, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
    assert state(tmp_path / "compiled")["model"].keys() == state(tmp_path / "plain")["model"].keys()


def test_a_run_belongs_to_one_process_at_a_time(trained):
    config, run = trained
    with (
        hold_lock(run, busy=UsageError("held by the test")),
        pytest.raises(UsageError, match="another process is training in"),
    ):
        train(replace(config, steps=5), out=run)
    assert [row["step"] for row in read_metrics(run / "metrics.csv")] == [1, 2, 3, 4]
    assert train(resumed_config(run, steps=5), out=run).first_step == 4


def test_without_the_file_last_the_newest_checkpoint_counts(trained):
    config, run = trained
    (run / "last").unlink()
    assert train(config, out=run).first_step == 4


def test_a_store_is_no_folder_for_a_run(small_store):
    with pytest.raises(UsageError, match="Give another --out"):
        train(TrainingConfig(stores=(str(small_store),), steps=1), out=small_store)


def test_a_log_that_is_no_text_is_explained(trained):
    config, run = trained
    (run / "metrics.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(CheckpointError, match=r"metrics\.csv is damaged"):
        train(replace(config, steps=4), out=run)
