"""A bucket that checks signatures, a folder, and stores to publish there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.store.storage import BLOCK_BYTES
from tests.support.data.published_stores import BUCKET
from tests.support.model.weights.published import another
from tests.support.services.buckets import S3, signed_s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def server() -> Iterator[S3]:
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    with signed_s3_server(BUCKET) as running:
        yield running


@pytest.fixture(scope="session")
def some_store(micro_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the micro store with all modalities; one of its files is sent in parts."""
    store = tmp_path_factory.mktemp("some") / "some.zarr"
    subset(micro_store, store, Selection(limit=30))
    assert any(path.stat().st_size > BLOCK_BYTES for path in store.rglob("0"))
    return store


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    server.environment(monkeypatch)
    return server


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> str:
    """An address where nothing is yet."""
    if request.param == "file":
        return f"file://{tmp_path}/published"
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def newer(some_store: Path, tmp_path: Path) -> Path:
    return another(some_store, tmp_path / "newer.zarr", software_version="9")
