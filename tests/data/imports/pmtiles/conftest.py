"""Released archives, and the store that they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from salibi_data.imports.pmtiles.importer import ImportReport, import_pmtiles
from tests.support.data.released_archives import (
    LEFT,
    TOP,
    release,
    square,
)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Archives of 9 landscapes at the corner of four blocks; not to be written to."""
    return release(square(3, left=LEFT + 7, top=TOP + 2)).write(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def imported(
    released: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ImportReport]:
    """The store of it; not to be written to."""
    store = tmp_path_factory.mktemp("imported") / "x.zarr"
    return store, import_pmtiles(store, **released)
