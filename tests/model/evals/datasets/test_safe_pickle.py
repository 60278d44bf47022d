"""Pickles of GEO-Bench: numbers and arrays are read, nothing that they ask for is run."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from salibi_data.store.errors import StoreError
from salibi_model.evals.datasets.open import open_labelled
from salibi_model.evals.datasets.safe_pickle import unpickle_inert
from tests.support.model.labelled.geobench_files import write_all, write_task


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("geobench"))


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    """A task to be damaged."""
    return write_task(tmp_path / "m-eurosat", "m-eurosat", num_train=4, num_valid=1, num_test=1)


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
        "import sys; from salibi_model.evals.datasets.open import open_all\n"
        f"for task in open_all({str(root)!r}): task.labels([0])\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'geobench']\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
