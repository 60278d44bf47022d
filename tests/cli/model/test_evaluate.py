"""`salibi-model eval` as a user runs it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from typer.testing import CliRunner

from salibi_cli.model import app as commands
from salibi_model.checkpoints.files import save_model
from salibi_model.evals.results import Results
from tests.support.model.labelled.geobench_files import write_task
from tests.support.model.labelled.tasks import fails
from tests.support.model.nano import nano_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return nano_model().eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "nano"
    save_model(model, folder / "model", training={"step": 1})
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two GEO-Bench tasks, as a root of them."""
    root = tmp_path_factory.mktemp("geobench")
    sizes = {"num_train": 12, "num_valid": 4, "num_test": 6, "px": 32}
    write_task(root / "classification_v1.0/m-eurosat", "m-eurosat", **sizes)
    write_task(root / "classification_v1.0/m-bigearthnet", "m-bigearthnet", **sizes)
    write_task(root / "segmentation_v1.0/m-pv4ger-seg", "m-pv4ger-seg", **sizes)
    return root


def call(*arguments):
    result = CliRunner().invoke(commands.application, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_a_root_of_tasks_from_the_command_line(checkpoint, tasks, tmp_path):
    out = tmp_path / "results"
    given = (checkpoint, "--data", tasks, "--out", out)
    table = call("eval", "knn", *given, "-k", 3)
    assert "m-eurosat" in table.stdout
    assert "m-bigearthnet" in table.stdout
    assert "skipped: m-pv4ger-seg is a segmentation task" in table.stderr
    rows = json.loads(call("eval", "linear", *given, "--floors", "--json").stdout)
    assert {row["model"] for row in rows} == {"nano", "nano, untrained", "mean colour"}
    assert {row["metric"] for row in rows} == {"accuracy", "f1-micro", "f1-macro"}
    call("eval", "segment", *given, "--epochs", 2, "--head", "conv", "--name", "other")
    again = call("eval", "knn", checkpoint / "model", *given[1:], "-k", 3)
    assert again.stdout == table.stdout
    assert f"m-eurosat by nano (lores) is in {out}" in again.stderr.replace("\n", " ")
    scores = Results(out).scores
    assert {row.method for row in scores} == {"knn", "linear", "segment-conv"}
    assert {row.model for row in scores if row.dataset == "m-pv4ger-seg"} == {"other"}
    assert all(row.settings["partition"] == "default" for row in scores)
    assert (out / "results.md").read_text().count("\n") == len(scores) + 2
    with Image.open(out / "results.png") as figure:
        assert figure.size[0] > 1000


def test_folders_of_classes_from_the_command_line(checkpoint, tmp_path):
    rng = np.random.default_rng(0)
    for name, colour in (("Forest", (20, 90, 30)), ("Sea", (10, 20, 90))):
        folder = tmp_path / "classes" / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = rng.normal(colour, 4, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}_{number}.png")
    given = (checkpoint, "--data", tmp_path / "classes", "--gsd-m", 10, "--out", tmp_path / "r")
    rows = json.loads(call("eval", "linear", *given, "--scales", "1,2", "--json").stdout)
    assert {row["gsd_m"] for row in rows} == {10, 20}
    assert all(row["value"] == 1.0 for row in rows)


def test_retrieval_writes_rows_where_asked(checkpoint, small_store, tmp_path):
    other = tmp_path / "2021.zarr"
    shutil.copytree(small_store, other)
    given = (checkpoint, "--data", small_store, "--against", other)
    output = call("eval", "retrieval", *given, "--out", tmp_path / "r").stdout
    assert "lores > lores" in output
    assert "among those of" in output
    rows = Results(tmp_path / "r").scores
    assert len(rows) == 18
    assert {row.settings["against"] for row in rows} == {"2021.zarr"}
    assert (tmp_path / "r/results.png").is_file()


def test_mistakes_are_one_line(checkpoint, tasks, small_store, tmp_path, monkeypatch, capsys):
    eurosat = tasks / "classification_v1.0/m-eurosat"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "results.json").write_text("[")
    numbers = tmp_path / "numbers"
    for number in range(6):
        (numbers / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 3, "dtype": "uint16"}
        profile |= {"crs": "EPSG:32631", "transform": Affine(10, 0, 5e5, 0, -10, 4.6e6)}
        with rasterio.open(numbers / "ab"[number % 2] / f"{number}.tif", "w", **profile) as file:
            file.write(np.random.default_rng(number).integers(100, 9000, (3, 32, 32)))
    plain = ("knn", "--data", numbers, "--modality", "lores")
    for arguments, code, words in (
        (plain, 2, "numbers: the images have values from 1"),
        ((*plain, "--units", "db"), 2, "images in dB do not suit 'lores'"),
        ((*plain, "--units", "furlongs"), 2, "no units 'furlongs'"),
        (("knn", "--data", eurosat, "--units", "dn"), 2, "as its units are"),
        (("knn", "--data", small_store), 2, "its samples have no labels"),
        (("knn", "--data", tmp_path / "absent"), 2, "absent"),
        (("linear", "--data", "s3://bucket/data.zarr"), 2, "eval retrieval"),
        (("segment", "--data", eurosat), 2, "is a classification task"),
        (("segment", "--data", eurosat, "--head", "unet"), 2, "expected one of linear, conv"),
        (("knn", "--data", eurosat, "-k", 0), 2, "-k"),
        (("knn", "--data", eurosat, "--modality", "nir"), 2, "no modality 'nir'"),
        (("knn", "--data", eurosat, "--modality", "sar"), 2, "lacks vv, vh"),
        (
            ("knn", "--data", eurosat, "--modality", "lores", "--scales", "4"),
            2,
            "less than a patch",
        ),
        (("knn", "--data", eurosat, "--scales", "a"), 2, "--scales"),
        (("knn", "--data", eurosat, "--out", damaged), 1, "is damaged"),
        (("knn", "--data", eurosat, "--device", "cuda:99"), 2, "cannot be used"),
    ):
        method, *options = arguments
        out = () if "--out" in options else ("--out", tmp_path / "out")
        exit_code, message = fails(monkeypatch, capsys, "eval", method, checkpoint, *options, *out)
        assert (exit_code, message.count("\n")) == (code, 1), message
        assert words in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["knn", "linear", "segment", "retrieval"])
def test_help_has_an_example(command):
    assert "Example" in call("eval", command, "--help").stdout
