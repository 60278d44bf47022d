"""A real STAC API on 127.0.0.1: stac-fastapi.pgstac over PostgreSQL with PostGIS.

https://github.com/stac-utils/stac-fastapi-pgstac
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.services.processes import free_port, server

SETUP_TIMEOUT_S = 180
DEBIAN = Path("/usr/lib/postgresql")
"""Folder of the server's programs on Debian, with a folder per version, outside PATH."""


@dataclass(frozen=True, kw_only=True)
class StacApi:
    """A running API."""

    url: str
    log: Path

    def requests(self, method: str) -> int:
        """Searches it has answered so far by GET or POST."""
        return self.log.read_text().count(f'"{method} /search')


@dataclass(frozen=True, kw_only=True)
class LoadedApi:
    """A STAC API and all that it holds."""

    api: StacApi
    items: list[dict[str, Any]]


def postgres_programs() -> Path:
    """Folder of ``initdb`` and ``postgres``; the test is skipped where there is none."""
    versions = sorted(
        (path for path in DEBIAN.glob("*/bin") if (path / "initdb").exists()),
        key=lambda path: int(path.parent.name),
    )
    initdb = shutil.which("initdb")
    if not versions and initdb is None:
        pytest.skip("PostgreSQL is not installed; run `make test-integration`")
    return versions[-1] if versions else Path(str(initdb)).resolve().parent


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """An empty database with PostGIS at hand; yields the PG* settings that lead to it."""
    programs = postgres_programs()
    # PostgreSQL refuses to run as root; pytest's own temporary folders admit root alone.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="salibi-pg-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        settings = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(free_port()),
            "PGUSER": "postgres",
            "PGPASSWORD": "unused",
            "PGDATABASE": "postgres",
        }
        _initialise(programs, folder / "data", user)
        start = [programs / "postgres", "-D", folder / "data", "-p", settings["PGPORT"]]
        start += ["-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with server(
            start,
            log=folder / "postgres.log",
            ready=lambda: _answers(programs, settings),
            user=user,
            stop=signal.SIGQUIT,  # at once: nothing of it is kept
        ):
            if not _query(
                programs, settings, "select 1 from pg_available_extensions where name = 'postgis'"
            ):
                pytest.skip("PostGIS is not installed; run `make test-integration`")
            yield settings


def _initialise(programs: Path, data: Path, user: str | None) -> None:
    identity = pwd.getpwnam(user) if user else None
    subprocess.run(
        [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ],
        user=identity.pw_uid if identity else None,
        group=identity.pw_gid if identity else None,
        extra_groups=[] if identity else None,
        cwd="/",
        check=True,
        capture_output=True,
        timeout=SETUP_TIMEOUT_S,
    )


def _answers(programs: Path, settings: Mapping[str, str]) -> bool:
    command = [programs / "pg_isready", "-q"]
    return subprocess.run(command, env={**os.environ, **settings}, check=False).returncode == 0


def _query(programs: Path, settings: Mapping[str, str], sql: str) -> str:
    command = [programs / "psql", "-Atqc", sql]
    return subprocess.run(
        command, env={**os.environ, **settings}, check=True, capture_output=True, text=True
    ).stdout.strip()


@contextmanager
def stac_api(items: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[StacApi]:
    """The API over a database that holds ``items``, and a collection for each they name."""
    pytest.importorskip("stac_fastapi.pgstac", reason="pip install -e '.[integration]'")
    pytest.importorskip("pypgstac", reason="pip install -e '.[integration]'")
    with postgres() as settings:
        _load(items, folder, settings)
        port = free_port()
        api = StacApi(url=f"http://127.0.0.1:{port}", log=folder / "api.log")
        start = [sys.executable, "-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app"]
        start += ["--host", "127.0.0.1", "--port", str(port)]
        with server(start, log=api.log, ready=lambda: _serves(api.url), env=settings):
            yield api


def _serves(url: str) -> bool:
    try:
        return requests.get(f"{url}/_mgmt/ping", timeout=5).ok
    except requests.RequestException:
        return False


def _load(items: Iterable[Mapping[str, Any]], folder: Path, settings: Mapping[str, str]) -> None:
    items = list(items)
    collections = [_collection(name) for name in sorted({item["collection"] for item in items})]
    pypgstac = [str(Path(sys.executable).with_name("pypgstac"))]
    _run([*pypgstac, "migrate"], settings)
    for table, rows in (("collections", collections), ("items", items)):
        path = folder / f"{table}.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _run([*pypgstac, "load", table, str(path), "--method", "upsert"], settings)


def _run(command: list[str], settings: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=SETUP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2000-01-01T00:00:00Z", None]]},
        },
        "links": [],
    }
