"""The manifest of a store: size and checksum of each of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from salibi_data.store.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """Size and checksum of one file, as the manifest lists them."""

    bytes: int
    sha256: str


def parse_manifest(content: bytes, *, where: str) -> dict[str, ManifestEntry]:
    """Parse a manifest: size and SHA-256 of every file, by its name.

    Raises:
        StoreError: it is damaged.
    """
    try:
        files: Mapping[str, Any] = json.loads(content)["files"]
        entries = {
            name: ManifestEntry(bytes=int(entry["bytes"]), sha256=str(entry["sha256"]))
            for name, entry in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where} is damaged; build or pull it again.") from error
    # A manifest from the network must not make pull write outside of its folder.
    if any(".." in PurePosixPath(name).parts or name.startswith("/") for name in entries):
        raise StoreError(f"{where} is damaged: it names files outside of the store.")
    return entries
