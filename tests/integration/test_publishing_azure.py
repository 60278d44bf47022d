"""Publishing to Azure Blob Storage (Azurite) with a shared access signature, and pulling from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.releases.pull import pull
from salibi_data.store.errors import StoreError
from salibi_data.store.open import StoreFiles
from salibi_data.store.storage import list_sizes, open_storage
from salibi_model.data.store import SampleStore
from tests.support.data import samples
from tests.support.model.weights.published import another
from tests.support.services.azurite import BlobStorage, azurite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

ACCOUNT, CONTAINER = "salibitest", "datasets"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobStorage]:
    with azurite([ACCOUNT], tmp_path_factory.mktemp("azurite")) as running:
        running.upload(f"{ACCOUNT}/{CONTAINER}", {})
        yield running


@pytest.fixture
def azure(storage: BlobStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a publisher; its signature."""
    signature = sign(storage, timedelta(hours=1))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", signature)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{storage.port}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    return signature


def sign(storage: BlobStorage, life: timedelta) -> str:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    return generate_container_sas(
        ACCOUNT,
        CONTAINER,
        account_key=storage.keys[ACCOUNT],
        permission=ContainerSasPermissions(read=True, write=True, create=True, list=True),
        expiry=datetime.now(UTC) + life,
    )


def test_what_was_published_verifies_and_is_pulled_byte_for_byte(
    azure: str, micro_store: Path, tmp_path: Path
) -> None:
    url = f"az://{CONTAINER}/whole"
    assert publish(micro_store, url, dry_run=True).files_sent
    assert not list_sizes(open_storage(url))
    done = publish(micro_store, url)
    verify(url)
    assert publish(micro_store, url).files_sent == 0
    pull(url, tmp_path / "pulled.zarr")
    assert samples.tree(tmp_path / "pulled.zarr") == samples.tree(micro_store)
    published = SampleStore(url)
    assert len(published) == done.release.samples
    assert (published[2]["sar"] == SampleStore(micro_store)[2]["sar"]).all()


def test_of_two_releases_at_once_none_is_lost_without_a_word(
    azure: str, micro_store: Path, tmp_path: Path
) -> None:
    url = f"az://{CONTAINER}/both"
    publish(micro_store, url)
    second, third = (
        another(micro_store, tmp_path / f"{version}.zarr", software_version=version)
        for version in ("9", "10")
    )

    def other(done: int, total: int) -> None:
        if done == total:
            publish(third, url)

    with pytest.raises(StoreError, match="another release was published"):
        publish(second, url, progress=other)
    assert StoreFiles.at(url).manifest() == StoreFiles.at(third).manifest()


def test_killed_and_run_again(azure: str, micro_store: Path) -> None:
    import subprocess
    import time

    url = f"az://{CONTAINER}/killed"
    process = subprocess.Popen(
        samples.command("publish", str(micro_store), url, "--workers", "1"),
        env=samples.environment(),
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list_sizes(open_storage(url))) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    with pytest.raises(StoreError, match="is not a Salibi store"):
        StoreFiles.at(url)
    done = publish(micro_store, url)
    assert 0 < done.files_sent < done.files
    verify(url)


@pytest.mark.parametrize("fault", ["expired", "tampered", "missing"])
def test_signatures_that_are_refused(
    azure: str,
    storage: BlobStorage,
    micro_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    refused = {
        "expired": sign(storage, -timedelta(hours=1)),
        "tampered": azure.replace("sp=rcwl", "sp=rcwdl"),
        "missing": azure.partition("sig=")[0] + "sig=AAAA",
    }[fault]
    assert refused != azure
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", refused)
    with pytest.raises(StoreError, match="access is refused") as caught:
        publish(micro_store, f"az://{CONTAINER}/refused")
    message = str(caught.value)
    assert "sig" not in message
    assert "\n" not in message


def test_a_container_that_is_not_there(azure: str, micro_store: Path) -> None:
    with pytest.raises(StoreError, match=r"refused|does not exist"):
        publish(micro_store, "az://nowhere/micro")
