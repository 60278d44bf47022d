"""The small sample catalog that the tests of the data half share, and what they do with it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.command_line import process_command, process_environment, run_here

COLUMNS, ROWS = 3, 2
"""Size in zoom-15 tiles: 96 tiles of zoom 17, 6 blocks."""

FEW: dict[str, Any] = {"variant": "micro", "limit": 24}
"""A build of a quarter of the samples, out of every block."""


def catalog_toml(sample: Path, at: Path) -> str:
    """A provider file beside ``at`` for the static catalog in the folder ``sample``."""
    at.write_text(
        'extends = "sample"\nname = "sample-test"\nkind = "static"\n'
        f'url = "{(sample / "catalog.json").as_posix()}"\n'
    )
    return str(at)


def served(url: str, catalog: Path, folder: Path) -> str:
    """A copy of the sample's items whose assets are at a server; its provider file."""
    for path in catalog.rglob("*.json"):
        content = json.loads(path.read_text())
        for asset in content.get("assets", {}).values():
            file = (path.parent / asset["href"]).resolve().relative_to(catalog.resolve())
            asset["href"] = f"{url}/{file.as_posix()}"
        copy = folder / path.relative_to(catalog)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps(content))
    return catalog_toml(folder, folder / "sample-test.toml")


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its name in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def environment() -> dict[str, str]:
    """Environment in which :func:`command` finds this checkout."""
    return process_environment()


def command(*arguments: str) -> list[str]:
    """``salibi-data`` with arguments, as a process of its own."""
    return process_command("salibi-data", *arguments)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``salibi-data`` to its end, in this process."""
    return run_here("salibi-data", *arguments)
