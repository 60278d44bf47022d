"""A real S3 server on 127.0.0.1 (moto), and one of plain HTTP that knows ranges from the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from obstore.store import S3Store
from servers import RangeServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

SECRET = "not-to-be-told"  # noqa: S105


class SuffixServer(RangeServer):
    """Answers ``bytes=-100`` too, as object stores do."""

    def _span(self, request, file):
        asked = request.headers.get("Range", "")
        if file.is_file() and asked.startswith("bytes=-"):
            size = file.stat().st_size
            return (max(0, size - int(asked.removeprefix("bytes=-"))), size)
        return super()._span(request, file)


@dataclass(frozen=True, kw_only=True)
class S3:
    """A running server; any key and secret are accepted."""

    endpoint: str

    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point the standard variables at it, and nothing else."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "reader",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)

    def make(self, bucket: str) -> None:
        """Make a bucket."""
        urlopen(Request(f"{self.endpoint}/{bucket}", method="PUT")).close()  # noqa: S310

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Make a bucket and put a folder's files into it."""
        self.make(bucket)
        storage = self._storage(bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                storage.put(f"{prefix}/{path.relative_to(folder)}", path)

    def delete(self, bucket: str, key: str) -> None:
        """Take an object away."""
        self._storage(bucket).delete(key)

    def _storage(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id="reader",
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )


@contextmanager
def s3_server(**environment: str) -> Iterator[S3]:
    """Run moto's server in a process of its own until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, "moto_server ended"
            assert time.monotonic() < deadline, "moto_server does not answer"
            time.sleep(0.05)
        yield S3(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
