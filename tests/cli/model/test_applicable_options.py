"""Options of `salibi-model` that do not apply: exit 2, one line, the option's name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from salibi_cli.common import run
from salibi_cli.model import app
from salibi_model.checkpoints.files import save_model
from tests.support.model.embedded import noise, raster, rows_of
from tests.support.model.labelled.geobench_files import write_task
from tests.support.model.nano import nano_model


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A GEO-Bench task, and a folder of images."""
    root = tmp_path_factory.mktemp("labelled")
    write_task(root / "task", "m-eurosat", num_train=2, num_valid=2, num_test=2)
    for label in "ab":
        (root / "images" / label).mkdir(parents=True)
        for k in range(3):
            pixels = np.random.default_rng(k).integers(0, 255, (16, 16, 3), "uint8")
            Image.fromarray(pixels).save(root / "images" / label / f"{k}.png")
    return root


GSD = ("--gsd-m", "1")
CASES = [
    (("eval", "knn", "RUN", "--data", "images", *GSD), "--partition default", "GEO-Bench tasks"),
    (("eval", "linear", "RUN", "--data", "images", *GSD), "--partition 0.10x_train", "GEO-Bench"),
    (("eval", "knn", "RUN", "--data", "task"), "--gsd-m 10", "folders of images"),
    (("eval", "knn", "RUN", "--data", "task", "--data", "images"), "--gsd-m 10", "folders of"),
    (("eval", "knn", "RUN", "--data", "images", *GSD), "--seed 0", "random weights"),
    (("eval", "linear", "RUN", "--data", "images", *GSD), "--seed 3", "random weights"),
    (("eval", "linear", "RUN", "--data", "images", *GSD), "-k 5", "-k"),
    (("eval", "knn", "RUN", "--data", "images", *GSD), "--head conv", "--head"),
    (("eval", "retrieval", "RUN", "--data", "S.zarr"), "--name x", "--out is not given"),
    (("compare", "S.zarr", "--data", "images", "--methods", "linear"), "-k 20", "the method knn"),
    (("compare", "S.zarr", "--data", "images", "--methods", "linear"), "--distance l2", "knn"),
    (("compare", "S.zarr", "--data", "task"), "--gsd-m 10", "folders of images"),
    (("embed", "RUN", "S.zarr", "-o", "E"), "--modality a,a", "twice"),
]


@pytest.mark.parametrize(("arguments", "option", "words"), CASES)
def test_it_is_refused_by_name(labelled, monkeypatch, capsys, arguments, option, words):
    monkeypatch.chdir(labelled)
    monkeypatch.setattr("sys.argv", ["salibi-model", *arguments, *option.split()])
    with pytest.raises(SystemExit) as stopped:
        run(app.application)
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert error.count("\n") == 1
    assert option.split()[0] in error
    assert words in error


def test_options_that_apply_reach_the_work(tmp_path, monkeypatch, capsys):
    """With their defaults, too."""
    save_model(nano_model(base_gsd_m=3.7).eval(), tmp_path / "model", training={"step": 1})
    raster(tmp_path / "x.tif", noise(128, 64))
    options = ("--modality", "lores", "--window-px", "64", "--stride", "64", "--nodata", "7")
    arguments = ["embed", tmp_path / "model", tmp_path / "x.tif", "-o", tmp_path / "E", *options]
    monkeypatch.setattr("sys.argv", ["salibi-model", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run(app.application)
    assert stopped.value.code == 0, capsys.readouterr().err
    assert len(rows_of(tmp_path / "E", "lores")["item"]) == 2
