"""Azure Blob Storage on 127.0.0.1: Azurite, with real shared access signatures.

https://github.com/Azure/Azurite
"""

from __future__ import annotations

import base64
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.services.processes import free_port, server

CONTAINERS = {
    "naip": "naipeuwest/naip",
    "sentinel-1-rtc": "sentinel1euwestrtc/sentinel1-grd-rtc",
    "sentinel-2-l2a": "sentinel2l2a01/sentinel2-l2",
}
"""Storage account and container of each collection, as the Planetary Computer has them."""


@dataclass(frozen=True, kw_only=True)
class BlobStorage:
    """A running Azurite."""

    port: int
    keys: Mapping[str, str]
    """Account name to its key, base64."""

    def upload(self, container: str, blobs: Mapping[str, Path]) -> None:
        """Put files into a new container, named ``ACCOUNT/CONTAINER``, by blob name."""
        from azure.storage.blob import BlobServiceClient

        account, name = container.split("/")
        service = BlobServiceClient(
            f"http://127.0.0.1:{self.port}/{account}",
            credential={"account_name": account, "account_key": self.keys[account]},
        )
        with service, service.create_container(name) as client:
            for blob, path in blobs.items():
                with path.open("rb") as content:
                    client.upload_blob(blob, content)

    def token(self, container: str, life: timedelta) -> tuple[str, datetime]:
        """A signature that lets one read ``ACCOUNT/CONTAINER``, and when it ends."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        account, name = container.split("/")
        # Signatures state whole seconds; what they cut off would be missing from the life promised.
        expiry = (datetime.now(UTC) + life).replace(microsecond=0) + timedelta(seconds=1)
        signature = generate_container_sas(
            account,
            name,
            account_key=self.keys[account],
            permission=ContainerSasPermissions(read=True, list=True),
            start=expiry - life - timedelta(minutes=5),
            expiry=expiry,
        )
        return signature, expiry


def azurite_program() -> Path:
    """The server's program, on PATH or in this environment; the test is skipped without it."""
    beside = Path(sys.prefix) / "node" / "node_modules" / ".bin" / "azurite-blob"
    program = shutil.which("azurite-blob") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("Azurite is not installed; run `make test-integration`")
    return Path(program)


@contextmanager
def azurite(accounts: list[str], folder: Path) -> Iterator[BlobStorage]:
    """Blob storage with these accounts, kept in memory."""
    pytest.importorskip("azure.storage.blob", reason="pip install -e '.[integration]'")
    keys = {name: base64.b64encode(secrets.token_bytes(64)).decode() for name in accounts}
    port = free_port()
    options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with server(
        [azurite_program(), "--blobPort", str(port), *options],
        log=folder / "azurite.log",
        ready=lambda: _listens(port),
        env={"AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in keys.items())},
    ):
        yield BlobStorage(port=port, keys=keys)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
