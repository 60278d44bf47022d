"""One raster on a server of ranges, for tests of how it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.data import cogs
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests time out and be sent again within a fraction of a second."""
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "0.3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a COG, ``a.tif``."""
    folder = tmp_path_factory.mktemp("cogs")
    cogs.write_cog(folder / "a.tif")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    """Serve the folder by ranges."""
    with serve(RangeServer(folder)) as server:
        yield server
