"""Servers that are not Python packages, each started once and stopped with the tests."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.services.pgstac import LoadedApi
    from tests.support.services.proxy import PlanetaryComputer

NUM_COPIES = {
    "naip": 1500,
    "sentinel-1-rtc": 1500,
    "sentinel-2-l2a": 1500,
    "sentinel-2-c1-l2a": 600,
    "sentinel-1-grd": 50,
}
"""Shifted copies of the real items, by collection: several pages of each that matters."""


@pytest.fixture(scope="session")
def loaded_api(
    sample_catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoadedApi]:
    """The real items, the sample catalog's, and thousands of copies behind a real STAC API."""
    from tests.support.data.real_catalogs import REAL
    from tests.support.services.pgstac import LoadedApi, stac_api
    from tests.support.services.real_items import copies, real_items, sample_items

    if not REAL.is_dir():
        pytest.skip(f"no real STAC items at {REAL}; set SALIBI_REAL")
    originals = real_items()
    items = originals + sample_items(sample_catalog)
    for number, (collection, count) in enumerate(NUM_COPIES.items()):
        of_it = [item for item in originals if item["collection"] == collection]
        items += copies(of_it, count, seed=number)
    with stac_api(items, tmp_path_factory.mktemp("pgstac")) as api:
        yield LoadedApi(api=api, items=items)


@pytest.fixture(scope="session")
def hosted_sample(
    sample_catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlanetaryComputer]:
    """The sample catalog as the Planetary Computer would serve it, behind a local proxy."""
    from tests.support.services.azurite import CONTAINERS, azurite
    from tests.support.services.proxy import planetary_computer
    from tests.support.services.real_items import sample_items

    folder = tmp_path_factory.mktemp("planetary-computer")
    items = sample_items(sample_catalog)
    blobs: dict[str, dict[str, Path]] = {container: {} for container in CONTAINERS.values()}
    for item in items:
        container = CONTAINERS[item["collection"]]
        account, name = container.split("/")
        for asset in item["assets"].values():
            path = Path(asset["href"])
            blob = path.relative_to(sample_catalog).as_posix()
            blobs[container][blob] = path
            asset["href"] = f"https://{account}.blob.core.windows.net/{name}/{blob}"
    accounts = [container.partition("/")[0] for container in CONTAINERS.values()]
    with azurite(accounts, folder) as storage:
        for container, files in blobs.items():
            storage.upload(container, files)
        with planetary_computer(storage, items, folder) as service:
            yield service


@pytest.fixture
def provider(hosted_sample: PlanetaryComputer) -> PlanetaryComputer:
    """The same with nothing counted yet, quick, and with long-lived tokens."""
    hosted_sample.life, hosted_sample.promise = timedelta(hours=1), None
    hosted_sample.latency_s = 0.0
    hosted_sample.issued.clear()
    hosted_sample.statuses.clear()
    hosted_sample.refused.clear()
    return hosted_sample
