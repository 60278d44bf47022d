"""GEO-Bench files that are damaged, missing or of another shape: named in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.datasets.open import open_labelled
from tests.support.model.labelled.geobench_files import stand_ins, write_task
from tests.support.model.labelled.geobench_folders import EUROSAT, RED, needs_eurosat


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """A task to be damaged."""
    return write_task(tmp_path / "m-eurosat", "m-eurosat", num_train=4, num_valid=1, num_test=1)


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
    words = r"differ in size: train_0000\.hdf5 has 9 x 9 px, where most \(\d of \d\) have 20 x 20"
    for batches in (
        [[0, 1]],
        [[1, 0]],
        [[0], [1]],
        [[1], [0]],
    ):  # of a batch, and from one to the next
        task = open_labelled(eurosat)
        with pytest.raises(StoreError, match=words):
            [task.read(batch, ["red"]) for batch in batches]


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


def test_an_address_is_refused_without_its_secrets(tmp_path):
    with pytest.raises(UsageError, match="is an address") as caught:
        open_labelled("https://me:hunter2@example.org/x?sig=SECRET")
    assert "hunter2" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
