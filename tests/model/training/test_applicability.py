"""Options that a training does not use are refused before it starts."""

from __future__ import annotations

import pytest

from salibi_cli.common import run
from salibi_cli.model import app
from salibi_data.store.errors import UsageError
from salibi_model.models import config as model_config
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.model.labelled.geobench_files import write_task
from tests.support.model.nano import SIZE

OF_NO_USE = [
    ("--crop-share", "0.25,1", {}, "crop_share", "applies to crops"),
    ("--probe-every", "3", {}, "probe_every", "applies to a probe"),
    ("--probe-gsd-m", "3.7", {}, "probe_gsd_m", "applies to a probe with a folder"),
    ("--weights", "1", {}, "weights", "applies to several stores, but there is one"),
    ("--gsd-scaling", None, {"model": "croma"}, "gsd_scaling", "croma measures"),
    ("--no-gsd-scaling", None, {"model": "croma"}, "gsd_scaling", "croma measures"),
    ("--pairs", "sar:lores", {"objectives": "reconstruction"}, "pairs", "the contrastive loss"),
    ("--fusion", "shared", {"objectives": "contrastive"}, "fusion", "the only objective is"),
    ("--fine-target", "base", {"model": "scale-mae"}, "fine_target", "the model is scale-mae"),
    ("--fine-target", "base", {"compat": "original"}, "fine_target", "the model is the original"),
    ("--absolute-targets", None, {"model": "scale-mae"}, "normalise_patches", "is scale-mae"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nano_size(monkeypatch):
    """The smallest model."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)


@pytest.mark.parametrize(("flag", "value", "others", "name", "words"), OF_NO_USE)
def test_an_option_of_no_use_is_refused(
    small_store, tmp_path, monkeypatch, capsys, flag, value, others, name, words
):
    """Also where it is given with its default."""
    more = [part for key, text in others.items() for part in (f"--{key}", text)]
    option = [flag] if value is None else [flag, value]
    arguments = ["train", str(small_store), "--out", str(tmp_path / "run"), *more, *option]
    monkeypatch.setattr("sys.argv", ["salibi-model", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run(app.application)
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert error.startswith(f"error: {flag}")
    assert name in error
    assert words in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_share": (0.5, 1.0)}, r"--crop-share \(crop_share\) applies to crops"),
        ({"probe_every": 3, "probe_gsd_m": 2.0}, r"--probe-every .* --probe-gsd-m "),
        (
            {"model": "scale-mae", "fusion": "separate"},
            r"--fusion applies .* the model is scale-mae",
        ),
        ({"objectives": ("contrastive",), "fine_target": "base"}, r"--fine-target \(fine_target\)"),
    ],
)
def test_public_python_refuses_them_too(small_store, tmp_path, changes, words):
    config = TrainingConfig(stores=(str(small_store),), steps=1, **changes)
    with pytest.raises(UsageError, match=words):
        train(config, out=tmp_path / "run", device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_store_under_two_names_is_refused(small_store, tmp_path):
    twice = (str(small_store), f"{small_store.parent}/x/../{small_store.name}/")
    with pytest.raises(UsageError, match=r"a store is named twice among .*--weights instead"):
        train(TrainingConfig(stores=twice, steps=1), out=tmp_path / "run", device="cpu")


def test_the_gsd_of_a_task_is_known(small_store, tmp_path):
    task = write_task(tmp_path / "t", "m-eurosat", num_train=2, num_valid=2, num_test=2)
    config = TrainingConfig(stores=(str(small_store),), probe=str(task), probe_gsd_m=10.0)
    with pytest.raises(UsageError, match=r"--probe-gsd-m .* is a GEO-Bench task"):
        train(config, out=tmp_path / "run", device="cpu")


def test_the_options_of_a_run_are_taken_whole(small_store, tmp_path, monkeypatch, capsys):
    """A run's file has all options filled in: it may be repeated, and go on."""
    options = {"steps": 1, "batch_size": 4, "validation_samples": 0, "model": "croma"}
    config = TrainingConfig(stores=(str(small_store),), **options)
    train(config, out=tmp_path / "run", device="cpu")
    repeated = TrainingConfig.from_toml(tmp_path / "run" / "config.toml")
    assert repeated.gsd_scaling is False
    train(repeated, out=tmp_path / "again", device="cpu")
    arguments = ["--out", str(tmp_path / "run"), "--resume", "--steps", "2", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["salibi-model", "train", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run(app.application)
    assert stopped.value.code == 0, capsys.readouterr().err


def test_a_file_of_options_is_not_read_on_resuming(tmp_path, monkeypatch, capsys):
    arguments = ["--out", str(tmp_path / "run"), "--resume", "--config", str(tmp_path / "o.toml")]
    monkeypatch.setattr("sys.argv", ["salibi-model", "train", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run(app.application)
    assert stopped.value.code == 2
    assert "o.toml is not read with --resume" in capsys.readouterr().err
