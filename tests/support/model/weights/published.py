"""Releases to publish: stores that differ, made without building them again."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from salibi_data.assembly.writer import write_manifest

if TYPE_CHECKING:
    from pathlib import Path


def another(store: Path, at: Path, **attributes: object) -> Path:
    """The same store with other attributes, so that it is another release; files are shared."""
    shutil.copytree(store, at, copy_function=os.link)
    metadata = json.loads((at / "zarr.json").read_text())
    metadata["attributes"]["salibi"].update(attributes)
    for name in ("zarr.json", "manifest.json"):
        (at / name).unlink()
    (at / "zarr.json").write_text(json.dumps(metadata))
    write_manifest(at)
    return at


def damaged(store: Path, at: Path, name: str) -> Path:
    """The same store with one byte of a file changed."""
    shutil.copytree(store, at, copy_function=os.link)
    content = bytearray((at / name).read_bytes())
    content[len(content) // 2] ^= 1
    (at / name).unlink()
    (at / name).write_bytes(content)
    return at
