"""The labelled sample: whole, deterministic, true to its landscape, apart from the catalog's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from sklearn.neighbors import KNeighborsClassifier

from salibi_data.store.errors import UsageError
from salibi_data.synthetic import labelled
from salibi_data.synthetic.frame import make_frame
from salibi_data.synthetic.ground.landscape import GroundWindow, draw_landscape
from salibi_data.synthetic.ground.survey import CLASSES
from salibi_model.evals.datasets.open import open_labelled
from tests.support.data.samples import command, environment, run, tree

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import LabelledImages

SMALL = {"num_train": 8, "num_validation": 2, "num_test": 8}


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled") / "sample"
    steps: list[tuple[int, int]] = []
    summary = labelled.write_labelled_sample(
        folder, **SMALL, progress=lambda done, total: steps.append((done, total))
    )
    assert summary.is_new
    assert sorted(steps) == [(k, 5) for k in range(1, 6)]
    return folder


@pytest.fixture(scope="session")
def data(sample: Path) -> LabelledImages:
    return open_labelled(sample)


def test_it_opens_as_labelled_images(sample: Path, data: LabelledImages) -> None:
    assert data.classes == tuple(CLASSES)
    assert data.bands == ("red", "green", "blue")
    assert data.gsd_m == pytest.approx(0.6, rel=1e-3)
    for split, num in (("train", 8), ("validation", 2), ("test", 8)):
        labels = data.labels(data.split_indices(split))
        assert np.bincount(labels).tolist() == [num] * len(CLASSES)
    assert data.read([0], data.bands).shape == (1, 3, 128, 128)


def test_description_states_classes_resolution_and_licence(sample: Path) -> None:
    description = json.loads((sample / "labelled.json").read_text())
    assert description["classes"] == list(CLASSES)
    assert (description["gsd_m"], description["licence"]) == (0.6, "CC0-1.0")
    text = (sample / "README.txt").read_text()
    for word in (*CLASSES, "0.6 m", "CC0-1.0", "Seed        0"):
        assert word in text


def test_the_label_covers_most_of_the_ground(sample: Path) -> None:
    """Against the landscape itself, at the pixels of the image."""
    frame = make_frame()
    number, extent = 4, labelled._EXTENT_M
    land = draw_landscape(seed=1_000_000 + number, width_m=extent, height_m=extent)
    materials = np.array([surface.material for surface in land.surfaces])
    paths = sorted(sample.glob(f"*/*/*_{number}_*.tif"))
    assert len(paths) == 4 * len(CLASSES)
    for path in paths:
        with rasterio.open(path) as file:
            west = file.transform.c - frame.origin_e
            north = file.transform.f - frame.origin_n - 20_000 * (number + 1)
            pixel_m = file.transform.a
        window = GroundWindow(west_m=west, north_m=north, pixel_m=pixel_m, rows=128, columns=128)
        ground = materials[land.sample(window).feature]
        share = np.isin(ground, list(CLASSES[path.parent.name])).mean()
        assert share > 0.57, path.name


def test_no_two_images_show_one_ground(sample: Path) -> None:
    boxes = []
    for path in sample.glob("*/*/*.tif"):
        with rasterio.open(path) as file:
            boxes.append(file.bounds)
    west, south, east, north = np.array(boxes).T
    disjoint = (west[:, None] >= east - 0.01) | (east[:, None] <= west + 0.01)
    disjoint |= (south[:, None] >= north - 0.01) | (north[:, None] <= south + 0.01)
    assert disjoint[~np.eye(len(boxes), dtype=bool)].all()
    frame = make_frame()
    assert (south > frame.origin_n + frame.height_m).all()  # away from the catalog's ground


def test_mean_colours_tell_something_but_not_all(data: LabelledImages) -> None:
    features = {
        split: data.read(data.split_indices(split), data.bands).mean((2, 3))
        for split in ("train", "test")
    }
    probe = KNeighborsClassifier(1).fit(features["train"], data.labels(data.split_indices("train")))
    score = probe.score(features["test"], data.labels(data.split_indices("test")))
    assert 2 / len(CLASSES) < score < 0.85


def test_it_is_found_again_and_nothing_else_is_overwritten(sample: Path, tmp_path: Path) -> None:
    before = tree(sample)
    summary = labelled.write_labelled_sample(sample, **SMALL)
    assert not summary.is_new
    assert summary.num_images["test"] == dict.fromkeys(CLASSES, 8)
    with pytest.raises(UsageError, match="holds something else"):
        labelled.write_labelled_sample(sample, **SMALL, seed=1)
    assert tree(sample) == before
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        labelled.write_labelled_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_run_that_was_killed_ends_in_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    """With another number of processes, too: the sample was made by two."""
    folder = tmp_path / "labelled"
    program = (
        "from pathlib import Path; from salibi_data.synthetic.labelled import write_labelled_sample\n"
        f"write_labelled_sample(Path({str(folder)!r}), **{SMALL}, processes=1,"
        " progress=lambda done, total: __import__('os')._exit(9))\n"
    )
    done = subprocess.run(
        [command()[0], "-c", program], env=environment(), check=False, timeout=120
    )
    assert done.returncode == 9
    assert not folder.exists()
    assert (tmp_path / ".labelled.partial").exists()
    labelled.write_labelled_sample(folder, **SMALL, processes=1)
    assert [each.name for each in tmp_path.iterdir()] == ["labelled"]
    assert tree(folder) == tree(sample)


def test_the_command_offers_it() -> None:
    assert "--labelled" in run("sample", "--help").stdout
