"""The record of a run: rows, images, TensorBoard; and trackers, as far as they need no package."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import RunFolder
from salibi_model.training.tracking.metrics_log import MetricsLog, read_metrics
from salibi_model.training.tracking.run import public
from salibi_model.training.tracking.trackers import check_trackers
from tests.support.paths import ROOT


def write(folder, steps, **kwargs):
    """Log these steps, the loss of each being ten times its number."""
    with closing(MetricsLog(RunFolder(folder), first_step=steps[0], **kwargs)) as log:
        for step in steps:
            log.write({"step": float(step), "loss": 10.0 * step})


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)


def events(folder):
    return EventAccumulator(str(folder / "events")).Reload()


def test_rows_are_read_back_with_what_each_step_has(tmp_path):
    with closing(MetricsLog(RunFolder(tmp_path), first_step=1)) as log:
        log.write({"step": 1.0, "loss": 0.123456789})
        log.write({"step": 2.0})
        log.write({"step": 3.0, "loss": 1e-30, "late": 5.0})
    rows = [{"step": 1, "loss": 0.123456789}, {"step": 2}, {"step": 3, "loss": 1e-30, "late": 5}]
    assert read_metrics(tmp_path / "metrics.csv") == rows


def test_steps_that_are_done_again_are_there_once(tmp_path):
    write(tmp_path, range(1, 6))
    write(tmp_path, range(4, 8))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == list(range(1, 8))
    scalars = events(tmp_path).Scalars("loss")
    assert [(event.step, event.value) for event in scalars] == [(s, 10.0 * s) for s in range(1, 8)]


def test_a_row_that_was_cut_short_is_dropped(tmp_path):
    write(tmp_path, range(1, 4))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,4")
    write(tmp_path, [5])
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3, 5]


def test_images_are_files_and_in_tensorboard(tmp_path):
    with closing(MetricsLog(RunFolder(tmp_path), first_step=1)) as log:
        log.write_image("reconstruction", 20, image(0))
        log.write_image("reconstruction", 40, image(1))
        log.write_image("reconstruction", 20, image(2))  # a step that is done again
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["reconstruction-00000020.png", "reconstruction-00000040.png"]
    for name, seed in zip(files, (2, 1), strict=True):
        np.testing.assert_array_equal(Image.open(tmp_path / "samples" / name), image(seed))
    logged = events(tmp_path)
    assert logged.Tags()["images"] == ["reconstruction"]
    assert {(one.step, one.width, one.height) for one in logged.Images("reconstruction")} >= {
        (20, 7, 5),
        (40, 7, 5),
    }


def test_an_unknown_tracker_is_refused_before_anything_is_changed(tmp_path):
    write(tmp_path, range(1, 4))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"no tracker 'comet'; take wandb or mlflow"):
        write(tmp_path, [2], trackers=("comet",))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_how(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as Python marks what cannot be imported
    with pytest.raises(UsageError, match=rf"pip install 'salibi\[{name}\]'"):
        write(tmp_path, [1], trackers=(name,))
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_folder_of_that_name_is_no_package(name, tmp_path, monkeypatch):
    """W&B leaves a folder ``wandb`` where it is run."""
    (tmp_path / name).mkdir()
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UsageError, match="is not installed"):
        check_trackers([name])


def test_trackers_that_nobody_asked_for_are_not_imported(tmp_path):
    code = (
        "import sys\n"
        "from salibi_model.checkpoints.files import RunFolder\n"
        "from salibi_model.training.tracking.metrics_log import MetricsLog\n"
        f"log = MetricsLog(RunFolder({str(tmp_path)!r}), first_step=1)\n"
        "log.write({'step': 1.0})\n"
        "log.close()\n"
        "print([name for name in ('wandb', 'mlflow', 'PIL') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1.0}]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("data/full.zarr", "data/full.zarr"),
        ("s3://bucket/a@b/x.zarr", "s3://bucket/a@b/x.zarr"),
        ("https://u:p@a.org:80/x.zarr?sig=1#f", "https://a.org:80/x.zarr"),
        ("GET http://u@a.org/x?s=1 and http://b.org", "GET http://a.org/x and http://b.org"),
        (("https://a.org?sig=1", 2, None), ["https://a.org", 2, None]),
        ({"stores": ["az://c/x?y"], "lr": 0.5}, {"stores": ["az://c/x"], "lr": 0.5}),
    ],
)
def test_trackers_are_told_no_secrets(value, told):
    assert public(value) == told


WORD = st.text(st.characters(exclude_categories=("Z", "C"), exclude_characters="/?#"), min_size=1)


@given(user=WORD, query=WORD)
def test_neither_users_nor_queries_are_told(user, query):
    assert public({"store": f"https://{user}@a.org/b?{query}"}) == {"store": "https://a.org/b"}
