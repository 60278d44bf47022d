"""A store, its page, and a server of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from salibi_data.store.render_rgb import as_rgb
from salibi_data.viewer.samples import ViewedSamples
from salibi_data.viewer.site import Site
from tests.support.data.many_samples import write_many
from tests.support.services.viewed import COUNT, serving


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_many(tmp_path_factory.mktemp("view") / "many.zarr", num_samples=COUNT)
    with_hole = zarr.open_group(path, mode="r+")["lores"]
    with_hole[0, :, :64, :64] = 0
    return path


@pytest.fixture(scope="session")
def site(store: Path) -> Site:
    return Site(ViewedSamples(store), as_rgb)


@pytest.fixture(scope="session")
def ask(site):
    with serving(site) as asking:
        yield asking
