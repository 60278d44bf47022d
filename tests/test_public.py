"""Public Python: every name resolves, is documented, and its example runs as written."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import salibi_data
import salibi_model

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in (salibi_data, salibi_model)
    for name in dir(package)
]
DOCUMENTED = [
    parameter for parameter in PUBLIC if parameter.values[1] not in ("__version__", "errors")
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


@pytest.fixture(scope="session")
def example_names(
    sample_toml: str, few_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Names that examples use: a provider, a store, and a folder to write to."""
    return {
        "salibi_data": salibi_data,
        "salibi_model": salibi_model,
        "catalog": sample_toml,
        "store_path": few_store,
        "folder": tmp_path_factory.mktemp("examples"),
    }


@pytest.mark.parametrize(
    ("package", "name"),
    [parameter for parameter in DOCUMENTED if parameter.values[0] is salibi_data],
)
def test_its_example_runs(package: Any, name: str, example_names: dict[str, Any]) -> None:
    run_example(getattr(package, name), name, example_names)


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
