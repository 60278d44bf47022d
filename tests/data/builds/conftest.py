"""Stores that the tests of builds share."""

from __future__ import annotations

from pathlib import Path

import pytest

from salibi_data.builds.build import build
from tests.support.data.samples import FEW
from tests.support.once import made_once


@pytest.fixture(scope="session")
def few_store(sample_toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of ``FEW``; read only."""

    def make(folder: Path) -> None:
        build(folder / "few.zarr", **FEW, catalog=sample_toml)

    return made_once(tmp_path_factory, "few", make) / "few.zarr"
