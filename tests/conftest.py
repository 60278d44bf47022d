"""Set up all tests: shape checks of the model half, and one small store."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.support.once import made_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No test is late because the machine has other work.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# Every annotation of the model half, shapes included, is checked on every call in the tests.
install_import_hook("salibi_model", "beartype.beartype")


def pytest_configure() -> None:
    """Give Ctrl-C its meaning back: a shell takes it from what it starts in the background.

    Ignoring it is inherited, and tests send it to processes that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported.

    Every server that a test stops collects garbage, to find what is still open; with all of torch,
    rasterio and the tests among the objects to look at, that takes half a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to a catalog are sent again at once, without the pauses between them."""
    monkeypatch.setattr("salibi_data.catalog.paging.PAUSES_S", (0.001, 0.001))
    monkeypatch.setenv("SALIBI_SEARCH_BACKOFF_S", "0.001")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors are done sooner by one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 10 training and 6 validation samples, with all four modalities; read only."""
    from tests.support.model.stores import write_store

    folder = made_once(
        tmp_path_factory, "small", lambda folder: write_store(folder / "small.zarr", num_samples=16)
    )
    return folder / "small.zarr"


@pytest.fixture(scope="session")
def sample_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small sample catalog; read only."""
    from salibi_data.synthetic import write_sample_catalog
    from tests.support.data.samples import COLUMNS, ROWS

    def make(folder: Path) -> None:
        write_sample_catalog(folder / "catalog", columns=COLUMNS, rows=ROWS)

    return made_once(tmp_path_factory, "sample", make) / "catalog"


@pytest.fixture(scope="session")
def sample_toml(sample_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Provider file of the small sample catalog."""
    from tests.support.data.samples import catalog_toml

    return catalog_toml(sample_catalog, tmp_path_factory.mktemp("toml") / "sample-test.toml")


@pytest.fixture(scope="session")
def micro_store(sample_toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``micro`` store of the small sample catalog; read only."""
    from salibi_data.builds.build import build

    def make(folder: Path) -> None:
        build(folder / "micro.zarr", variant="micro", catalog=sample_toml)

    return made_once(tmp_path_factory, "micro", make) / "micro.zarr"


@pytest.fixture(scope="session")
def few_store(sample_toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a quarter of the samples, out of every block; read only."""
    from salibi_data.builds.build import build
    from tests.support.data.samples import FEW

    def make(folder: Path) -> None:
        build(folder / "few.zarr", **FEW, catalog=sample_toml)

    return made_once(tmp_path_factory, "few", make) / "few.zarr"
