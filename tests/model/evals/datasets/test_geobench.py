"""GEO-Bench v1 from its files: all twelve tasks, with true values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from salibi_data.store.errors import UsageError
from salibi_model.evals.datasets.geobench import GeoBenchTask
from salibi_model.evals.datasets.geobench_tasks import GEOBENCH_TASKS
from salibi_model.evals.datasets.open import open_all, open_labelled
from tests.support.model.labelled.geobench_files import LOOKS, write_all, write_task
from tests.support.model.labelled.geobench_folders import EUROSAT, RED, needs_eurosat

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import LabelledImages


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("geobench"))


def folder_of(root: Path, name: str) -> Path:
    return root / GEOBENCH_TASKS[name].benchmark / name


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """A task to be damaged."""
    return write_task(tmp_path / "m-eurosat", "m-eurosat", num_train=4, num_valid=1, num_test=1)


def stored(task: LabelledImages, folder: Path, index: int) -> dict[str, np.ndarray]:
    """Data sets of a sample by plain name, as h5py shows them."""
    names = json.loads((folder / "default_partition.json").read_text())
    sample = [*names["train"], *names["valid"], *names["test"]][index]
    with h5py.File(folder / f"{sample}.hdf5") as file:
        return {name.partition("_20")[0]: file[name][()] for name in file}


# Every task


@pytest.mark.parametrize("name", list(GEOBENCH_TASKS))
def test_every_task_reads_as_its_files(root: Path, name: str) -> None:
    folder, spec = folder_of(root, name), GEOBENCH_TASKS[name]
    task = open_labelled(folder)
    assert (task.name, task.task, task.gsd_m) == (name, spec.kind, spec.gsd_m)
    assert len(task.classes) == len(set(task.classes)) == spec.num_classes
    some = [*task.bands[:8], *task.bands[-2:]]
    images = task.read([13, 2], some)
    assert images.dtype == np.float32
    for position, index in enumerate((13, 2)):
        held = stored(task, folder, index)
        for k, band in enumerate(some):
            source = spec.bands[band]
            values = held[source.name].astype(float)
            values = values[..., source.plane or 0] if values.ndim == 3 else values
            values = 10 * np.log10(values) if source.to_decibel else values
            size = images.shape[-1] // values.shape[-1]
            values = np.kron(values, np.ones((size, size)))
            np.testing.assert_allclose(images[position, k], values, rtol=1e-5)


@pytest.mark.parametrize("name", list(GEOBENCH_TASKS))
def test_labels_are_those_of_the_files(root: Path, name: str) -> None:
    folder = folder_of(root, name)
    task = open_labelled(folder)
    given = json.loads((folder / "label_stats.json").read_text())
    for split, key in (("train", "train"), ("validation", "valid"), ("test", "test")):
        names = json.loads((folder / "default_partition.json").read_text())[key]
        labels = task.labels(task.split_indices(split))
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, [given[each] for each in names])


@pytest.mark.parametrize("name", ["m-eurosat", "m-forestnet", "m-cashew-plant", "m-NeonTree"])
def test_statistics_come_from_the_task(root: Path, name: str) -> None:
    folder = folder_of(root, name)
    task = open_labelled(folder)
    bands = [task.bands[2], task.bands[0], task.bands[-1]]
    mean, std = task.statistics(bands)
    stats = json.loads((folder / "band_stats.json").read_text())
    band_statistics = [stats[GEOBENCH_TASKS[name].bands[band].name] for band in bands]
    np.testing.assert_array_equal(mean, [each["mean"] for each in band_statistics])
    np.testing.assert_array_equal(std, [each["std"] for each in band_statistics])


def test_radar_is_in_decibel_and_its_statistics_are_measured(root: Path) -> None:
    task = open_labelled(folder_of(root, "m-so2sat"))
    train = task.read(task.split_indices("train"), ["vv", "vh", "red"]).astype(np.float64)
    mean, std = task.statistics(["vv", "vh", "red"])
    np.testing.assert_allclose(mean, train.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, train.std((0, 2, 3)), rtol=1e-5)
    assert -25 < mean[0] < 0


def test_statistics_that_the_file_does_not_tell_are_measured(eurosat: Path) -> None:
    path = eurosat / "band_stats.json"
    statistics = json.loads(path.read_text())
    expected = statistics.pop("04 - Red")
    path.write_text(json.dumps(statistics))
    mean, std = open_labelled(eurosat).statistics(["nir", "red"])
    assert mean[1] == pytest.approx(expected["mean"])
    assert std[1] == pytest.approx(expected["std"])
    assert mean[0] == statistics["08 - NIR"]["mean"]


def test_power_that_is_not_positive_is_no_measurement(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "m-so2sat", "m-so2sat", num_train=2, num_valid=1, num_test=1)
    with h5py.File(folder / "train_0000.hdf5", "r+") as file:
        file["06 - VV.LEE Filtered"][0, 0] = 0.0
    task = open_labelled(folder)
    image = task.read([0], ["vv", "vh"])[0]
    assert np.isnan(image[0]).sum() == 1
    assert np.isnan(image[0, 0, 0])
    assert np.isfinite(task.statistics(["vv"])[0]).all()


def test_splits_are_disjoint_and_the_partitions_are_shares(root: Path) -> None:
    folder = folder_of(root, "m-pv4ger")
    whole, tenth = open_labelled(folder), open_labelled(folder, partition="0.50x_train")
    numbers = [whole.split_indices(split).tolist() for split in ("train", "validation", "test")]
    assert np.concatenate(numbers).tolist() == list(range(22))
    assert [len(each) for each in numbers] == [12, 4, 6]
    assert len(tenth.split_indices("train")) == 6
    assert len(tenth.split_indices("test")) == 6
    np.testing.assert_array_equal(
        tenth.labels(tenth.split_indices("test")), whole.labels(whole.split_indices("test"))
    )
    assert whole.digest != tenth.digest
    assert whole.digest == open_labelled(folder, partition="default").digest


def test_a_probe_finds_the_classes_of_the_generated_task(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "t", "m-eurosat", num_train=60, num_valid=10, num_test=40, px=8)
    task = open_labelled(folder)
    features = {
        split: task.read(task.split_indices(split), task.bands).mean((2, 3))
        for split in ("train", "test")
    }
    probe = KNeighborsClassifier(1).fit(features["train"], task.labels(task.split_indices("train")))
    assert probe.score(features["test"], task.labels(task.split_indices("test"))) > 0.9


def test_a_root_opens_as_all_twelve(root: Path) -> None:
    assert {task.name for task in open_all(root)} == set(GEOBENCH_TASKS) == set(LOOKS)
    assert len(open_all(root / "segmentation_v1.0")) == 6
    assert [task.name for task in open_all(folder_of(root, "m-pv4ger"))] == ["m-pv4ger"]
    with pytest.raises(UsageError, match="holds 12 GEO-Bench tasks; give one"):
        open_labelled(root)


# The real file


@needs_eurosat
def test_a_real_sample_reads_as_h5py_shows_it(tmp_path: Path) -> None:
    folder = tmp_path / "m-eurosat"
    shutil.copytree(EUROSAT, folder)
    (folder / "default_partition.json").write_text(
        json.dumps({"train": ["id_1905"], "valid": [], "test": []})
    )
    task = open_labelled(folder)
    assert task.classes[1] == "Residential Buildings"
    assert task.labels([0]).tolist() == [1]
    with h5py.File(folder / "id_1905.hdf5") as file:
        for band, source in GEOBENCH_TASKS["m-eurosat"].bands.items():
            np.testing.assert_array_equal(task.read([0], [band])[0, 0], file[source.name][()])
    mean, std = task.statistics(["red", "green", "blue"])
    assert mean[0] == pytest.approx(959.177867)
    assert std[2] == pytest.approx(334.28124)


@needs_eurosat
def test_eurosats_bands_have_the_values_of_their_wavelengths(tmp_path: Path) -> None:
    """Cirrus is all but dark; the two near-infrared bands agree; SWIR darkens with wavelength."""
    shutil.copytree(EUROSAT, tmp_path / "t")
    (tmp_path / "t" / "default_partition.json").write_text(
        json.dumps({"train": ["id_1905"], "valid": [], "test": []})
    )
    task = open_labelled(tmp_path / "t")
    bands = ["cirrus", "nir", "nir08", "nir09", "swir16", "swir22"]
    mean = dict(zip(bands, task.statistics(bands)[0], strict=True))
    assert mean["cirrus"] < 20
    assert mean["nir08"] == pytest.approx(mean["nir"], rel=0.2)
    assert mean["nir09"] < mean["nir"] / 2
    assert mean["swir22"] < mean["swir16"]
    image = dict(zip(bands, task.read([0], bands)[0], strict=True))
    likeness = {
        band: np.corrcoef(image["nir"].ravel(), image[band].ravel())[0, 1] for band in bands
    }
    assert sorted(likeness, key=lambda band: likeness[band])[-2] == "nir08"


def test_a_task_can_be_opened_by_its_class(root: Path) -> None:
    task = GeoBenchTask(str(folder_of(root, "m-bigearthnet")))
    assert task.labels([0]).shape == (1, 43)
    assert set(np.unique(task.labels(range(10)))) == {0, 1}


def test_data_that_was_changed_is_other_data(tmp_path):
    folder = write_task(tmp_path / "t", "m-eurosat", num_train=2, num_valid=1, num_test=1)
    before = open_labelled(folder).digest
    sample = next(folder.glob("*.hdf5"))
    with h5py.File(sample, "r+") as file:
        file[RED][0, 0] = 7
    assert open_labelled(folder).digest != before
