"""Public Python: every name resolves, is documented, and its example runs as written."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

import salibi_data
import salibi_model
from tests.support.model.weights.reference_weights import croma_weights

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in (salibi_data, salibi_model)
    for name in dir(package)
]
PAIRS = [
    (package, name)
    for package in (salibi_data, salibi_model)
    for name in dir(package)
    if name not in ("__version__", "errors")
]
DOCUMENTED = [
    pytest.param(package, name, id=f"{package.__name__}.{name}") for package, name in PAIRS
]


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_every_listed_name_is_there(package: Any, name: str) -> None:
    assert name in package.__all__
    assert getattr(package, name) is not None


@pytest.mark.parametrize("package", [salibi_data, salibi_model])
def test_other_names_are_not(package: Any) -> None:
    with pytest.raises(AttributeError, match="bild"):
        _ = package.bild


@pytest.mark.parametrize(("package", "name"), DOCUMENTED)
def test_errors_arguments_and_an_example_are_documented(package: Any, name: str) -> None:
    text = inspect.getdoc(getattr(package, name)) or ""
    assert "Example:" in text, f"{name} has no example"
    assert ">>>" in text, f"the example of {name} is not one that runs"
    if inspect.isfunction(getattr(package, name)):
        for argument in inspect.signature(getattr(package, name)).parameters:
            assert f"{argument}:" in text, f"{name} does not document {argument}"
        assert "Raises:" in text, f"{name} does not say what it raises"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder that one example writes to: several have images of their own."""
    return tmp_path


@pytest.fixture(scope="session")
def run_path(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of a small model, trained for two steps."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = salibi_model.TrainingConfig(
        stores=(str(small_store),), steps=2, batch_size=2, validation_samples=0
    )
    return salibi_model.train(config, out=out, device="cpu").out


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of weights in the layout that CROMA's authors publish."""
    path = tmp_path_factory.mktemp("weights") / "CROMA_base.pt"
    torch.save(croma_weights(), path)
    return path


@pytest.mark.parametrize("name", [name for package, name in PAIRS if package is salibi_data])
def test_an_example_of_the_data_half_runs(
    name: str, sample_toml: str, few_store: Path, folder: Path
) -> None:
    names = {"catalog": sample_toml, "store_path": few_store, "folder": folder}
    run_example(getattr(salibi_data, name), name, {"salibi_data": salibi_data, **names})


@pytest.mark.parametrize("name", [name for package, name in PAIRS if package is salibi_model])
def test_an_example_of_the_model_half_runs(
    name: str, small_store: Path, run_path: Path, weights_path: Path, folder: Path, one_thread: None
) -> None:
    documented = getattr(salibi_model, name)
    names = {
        **vars(sys.modules[documented.__module__]),
        "salibi_model": salibi_model,
        "torch": torch,
        "store_path": small_store,
        "run_path": run_path,
        "weights_path": weights_path,
        "folder": folder,
    }
    run_example(documented, name, names)


def run_example(documented: object, name: str, names: dict[str, Any]) -> None:
    """Run the examples in a docstring; fail with doctest's report where the output differs."""
    text = inspect.getdoc(documented) or ""
    test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, None)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("package", ["salibi_data", "salibi_model"])
def test_importing_a_package_loads_no_heavy_library(package: str) -> None:
    code = (
        f"import sys, {package}; "
        "print([m for m in sys.modules if m in ('numpy', 'torch', 'zarr', 'rasterio', 'cattrs')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
