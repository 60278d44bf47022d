"""GEO-Bench v1 from its files: all twelve tasks, true values, and nothing that a pickle asks for."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.datasets.geobench import GeoBenchTask
from salibi_model.evals.datasets.geobench_tasks import GEOBENCH_TASKS
from salibi_model.evals.datasets.labelled import LabelledImages, open_all, open_labelled
from salibi_model.evals.datasets.safe_pickle import unpickle_inert
from tests.support.data.real_catalogs import REAL
from tests.support.model.geobench_files import LOOKS, stand_ins, write_all, write_task

RED = "04 - Red"

EUROSAT = REAL / "labelled" / "geobench_m-eurosat_one"
needs_eurosat = pytest.mark.skipif(
    not EUROSAT.is_dir(), reason=f"no GEO-Bench sample at {EUROSAT}; set SALIBI_REAL"
)


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
    told = [stats[GEOBENCH_TASKS[name].bands[band].name] for band in bands]
    np.testing.assert_array_equal(mean, [each["mean"] for each in told])
    np.testing.assert_array_equal(std, [each["std"] for each in told])


def test_radar_is_in_decibel_and_its_statistics_are_measured(root: Path) -> None:
    task = open_labelled(folder_of(root, "m-so2sat"))
    train = task.read(task.split_indices("train"), ["vv", "vh", "red"]).astype(np.float64)
    mean, std = task.statistics(["vv", "vh", "red"])
    np.testing.assert_allclose(mean, train.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, train.std((0, 2, 3)), rtol=1e-5)
    assert -25 < mean[0] < 0


def test_statistics_that_the_file_does_not_tell_are_measured(eurosat: Path) -> None:
    path = eurosat / "band_stats.json"
    told = json.loads(path.read_text())
    expected = told.pop("04 - Red")
    path.write_text(json.dumps(told))
    mean, std = open_labelled(eurosat).statistics(["nir", "red"])
    assert mean[1] == pytest.approx(expected["mean"])
    assert std[1] == pytest.approx(expected["std"])
    assert mean[0] == told["08 - NIR"]["mean"]


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


@needs_eurosat
def test_a_partition_whose_files_are_not_there_is_refused() -> None:
    with pytest.raises(StoreError, match=r"lacks 20\d\d of the 2020 samples .* such as id_"):
        open_labelled(EUROSAT, partition="0.01x_train")


# Mistakes and damage


def test_what_is_not_there_is_named(eurosat: Path) -> None:
    with pytest.raises(UsageError, match=r"no partition '2x'; it has 0.01x_train.*default"):
        open_labelled(eurosat, partition="2x")
    with pytest.raises(UsageError, match=r"no band 'thermal'; it has coastal, blue"):
        open_labelled(eurosat).read([0], ["red", "thermal"])
    with pytest.raises(UsageError, match="is no folder"):
        open_labelled(eurosat / "nothing")
    with pytest.raises(UsageError, match="whose GSD and bands are known"):
        open_labelled(eurosat, gsd_m=10.0)


def test_a_renamed_folder_is_recognised_and_an_unknown_task_refused(eurosat: Path) -> None:
    assert open_labelled(eurosat.rename(eurosat.parent / "my copy")).name == "m-eurosat"
    other = eurosat.parent / "my copy"
    with stand_ins() as classes:
        specs = classes.make("geobench.task", "TaskSpecifications", dataset_name="m-mars")
        (other / "task_specs.pkl").write_bytes(pickle.dumps(specs))
    with pytest.raises(StoreError, match="none of the twelve tasks"):
        open_labelled(other)


def rewrite(folder: Path, sample: str = "train_0000", **datasets: Any) -> None:
    with h5py.File(folder / f"{sample}.hdf5", "r+") as file:
        for name, values in datasets.items():
            del file[name]
            if values is not None:
                file[name] = values


@pytest.mark.parametrize("name", ["task_specs.pkl", "band_stats.json", "default_partition.json"])
def test_a_damaged_side_file_is_named(eurosat: Path, name: str) -> None:
    path = eurosat / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match=name):
        open_labelled(eurosat)
    if name != "default_partition.json":
        path.unlink()
        with pytest.raises(StoreError, match=name):
            open_labelled(eurosat)


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_damaged_sample_is_named(eurosat: Path, kept: int) -> None:
    path = eurosat / "train_0001.hdf5"
    path.write_bytes(path.read_bytes()[:kept])
    task = open_labelled(eurosat)
    with pytest.raises(StoreError, match=r"train_0001.hdf5 cannot be read"):
        task.read([1], ["red"])
    with pytest.raises(StoreError, match=r"train_0001.hdf5 cannot be read"):
        task.labels([1])


def test_a_missing_sample_is_named(eurosat: Path) -> None:
    (eurosat / "test_0000.hdf5").unlink()
    with pytest.raises(StoreError, match=r"lacks 1 of the 6 samples .* test_0000"):
        open_labelled(eurosat)


def test_a_sample_in_two_splits_is_refused(eurosat: Path) -> None:
    path = eurosat / "default_partition.json"
    splits = json.loads(path.read_text())
    splits["test"] = splits["train"][:1]
    path.write_text(json.dumps(splits))
    with pytest.raises(StoreError, match="names samples twice"):
        open_labelled(eurosat)


def test_a_band_missing_from_one_file_is_named(eurosat: Path) -> None:
    rewrite(eurosat, **{"04 - Red": None})
    with pytest.raises(StoreError, match=r"train_0000.hdf5 has no band '04 - Red'; it has 01"):
        open_labelled(eurosat).read([0], ["red"])


def test_nan_is_kept_and_an_image_of_nothing_else_refused(eurosat: Path) -> None:
    values = np.full((20, 20), 7.0, np.float32)
    values[3, 4], values[5, 6] = np.nan, np.inf
    rewrite(eurosat, **{"04 - Red": values, "02 - Blue": np.full((20, 20), np.nan)})
    task = open_labelled(eurosat)
    read = task.read([0], ["red", "blue"])[0]
    assert np.argwhere(np.isnan(read[0])).tolist() == [[3, 4], [5, 6]]
    with pytest.raises(StoreError, match="holds no measurement"):
        task.read([0], ["blue"])


def test_images_of_different_sizes_are_refused(eurosat: Path) -> None:
    small = np.ones((9, 9))
    rewrite(eurosat, **{"01 - Coastal aerosol": small, "04 - Red": small})
    with pytest.raises(StoreError, match="differ in size"):
        open_labelled(eurosat).read([0, 1], ["red"])


def test_a_band_that_does_not_fit_the_grid_is_refused(eurosat: Path) -> None:
    rewrite(eurosat, **{"04 - Red": np.ones((7, 7))})
    with pytest.raises(StoreError, match="no whole part"):
        open_labelled(eurosat).read([0], ["red"])


@pytest.mark.parametrize("label", [10, -1, 2.5, "3", None, [1, 2]])
def test_a_label_that_is_no_class_is_refused(eurosat: Path, label: object) -> None:
    with h5py.File(eurosat / "train_0000.hdf5", "r+") as file:
        file.attrs["pickle"] = str(pickle.dumps({"label": label}))
    with pytest.raises(StoreError, match="whole numbers from 0 to 9"):
        open_labelled(eurosat).labels([0])


def test_a_segment_that_is_no_class_is_refused(tmp_path: Path) -> None:
    folder = write_task(
        tmp_path / "m-pv4ger-seg", "m-pv4ger-seg", num_train=1, num_valid=1, num_test=1
    )
    rewrite(folder, label=np.full((20, 20), 2))
    with pytest.raises(StoreError, match="0 to 1"):
        open_labelled(folder).labels([0])


# Pickles


class Harmful:
    """Would make a file, if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_samples_pickle_is_not_run(eurosat: Path, tmp_path: Path) -> None:
    harmful = pickle.dumps({"label": Harmful(tmp_path / "ran")})
    pickle.loads(harmful)  # noqa: S301
    assert (tmp_path / "ran").exists()  # it does harm where it can
    (tmp_path / "ran").unlink()
    with h5py.File(eurosat / "train_0000.hdf5", "r+") as file:
        file.attrs["pickle"] = str(harmful)
    with pytest.raises(StoreError, match=r"train_0000.hdf5 is refused.*'posix.system'"):
        open_labelled(eurosat).labels([0])
    assert not (tmp_path / "ran").exists()


def test_code_in_the_tasks_pickle_is_not_run(eurosat: Path, tmp_path: Path) -> None:
    (eurosat / "task_specs.pkl").write_bytes(pickle.dumps(Harmful(tmp_path / "ran")))
    with pytest.raises(StoreError, match=r"task_specs.pkl is refused.*'posix.system'"):
        open_labelled(eurosat)
    assert not (tmp_path / "ran").exists()


def test_code_in_place_of_a_pickles_text_is_not_run(eurosat: Path, tmp_path: Path) -> None:
    with h5py.File(eurosat / "train_0000.hdf5", "r+") as file:
        file.attrs["pickle"] = f"__import__('os').system('touch {tmp_path / 'ran'}')"
    with pytest.raises(StoreError, match="no description"):
        open_labelled(eurosat).labels([0])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("os", "system"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("geobench_evil", "Task"),
        ("copyreg", "_reconstructor"),
        ("torch", "load"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 4])
def test_other_names_are_refused_before_they_are_looked_up(
    module: str, name: str, protocol: int
) -> None:
    raw = f"c{module}\n{name}\n(S'1'\ntR.".encode()
    if protocol == 4:
        text = [b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name)]
        raw = b"\x80\x04" + b"".join(text) + b"\x93(\x8c\x011tR."
    with pytest.raises(StoreError, match=f"'{module}.{name}'"):
        unpickle_inert(raw, "a file")


def test_geobench_classes_are_never_imported() -> None:
    """Whatever name follows the package's: it is a stand-in, and nothing is loaded."""
    raw = b"cgeobench.config\nremove_all\n(S'home'\ntR."
    made = unpickle_inert(raw, "a file")
    assert made.origin == "geobench.config.remove_all"
    assert made.arguments == ("home",)
    assert "geobench" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [np.int64(7), np.float32(0.5), np.uint8(255), np.bool_(True), np.int16(-3)],
)
def test_numbers_of_numpy_are_read(value: np.generic) -> None:
    for protocol in (3, 4):
        assert unpickle_inert(pickle.dumps(value, protocol), "a file") == value.item()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["i8", ">f4", "u1"])
def test_arrays_of_numpy_are_read(dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    np.testing.assert_array_equal(unpickle_inert(pickle.dumps(array, 4), "a file").values, array)


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(StoreError, match="'O8', not numbers"):
        unpickle_inert(pickle.dumps(np.array([{}, print], dtype=object)[:1], 4), "a file")


def test_any_cut_of_a_pickle_is_one_clear_error(eurosat: Path) -> None:
    with h5py.File(eurosat / "train_0000.hdf5") as file:
        raw = ast.literal_eval(file.attrs["pickle"])
    for length in range(0, len(raw) - 1, 7):
        with pytest.raises(StoreError, match="a file is"):
            unpickle_inert(raw[:length], "a file")


def test_reading_imports_no_benchmark_package(root: Path) -> None:
    """In a process of its own, without the shape checks of the tests."""
    program = (
        "import sys; from salibi_model.evals.datasets.labelled import open_all\n"
        f"for task in open_all({str(root)!r}): task.labels([0])\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'geobench']\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_task_can_be_opened_by_its_class(root: Path) -> None:
    task = GeoBenchTask(str(folder_of(root, "m-bigearthnet")))
    assert task.labels([0]).shape == (1, 43)
    assert set(np.unique(task.labels(range(10)))) == {0, 1}


@pytest.mark.parametrize(
    "put",
    [
        lambda file: file.create_group(RED),
        lambda file: file.__setitem__(RED, h5py.SoftLink("/nowhere")),
        lambda file: file.__setitem__(RED, np.ones(64)),
        lambda file: file.__setitem__(RED, 5.0),
        lambda file: file.__setitem__(RED, np.ones((0, 0))),
        lambda file: file.__setitem__(RED, np.ones((64, 64), np.complex64)),
        lambda file: file.create_dataset(RED, (300_000, 300_000), "f4", chunks=(512, 512)),
        lambda file: file.create_dataset(RED, (64, 64), h5py.string_dtype()),
    ],
)
def test_a_band_that_is_no_image_is_refused(tmp_path, put):
    folder = write_task(tmp_path / "t", "m-eurosat", num_train=2, num_valid=1, num_test=1)
    for path in folder.glob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            del file[RED]
            put(file)
    data = open_labelled(folder)
    with pytest.raises(StoreError, match="is no image of real numbers"):
        data.read(data.split_indices("train"), ("red", "green"))


def test_data_that_was_changed_is_other_data(tmp_path):
    folder = write_task(tmp_path / "t", "m-eurosat", num_train=2, num_valid=1, num_test=1)
    before = open_labelled(folder).digest
    sample = next(folder.glob("*.hdf5"))
    with h5py.File(sample, "r+") as file:
        file[RED][0, 0] = 7
    assert open_labelled(folder).digest != before


def test_an_address_is_refused_without_its_secrets(tmp_path):
    with pytest.raises(UsageError, match="is an address") as caught:
        open_labelled("https://me:hunter2@example.org/x?sig=SECRET")
    assert "hunter2" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
