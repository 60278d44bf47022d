"""Items and rasters of the sample catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NUM_ITEMS = {"naip": 6, "sentinel-1-rtc": 5, "sentinel-2-l2a": 6}


def items(catalog: Path, collection: str) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and content of every item, in order of its id."""
    paths = sorted(catalog.glob(f"{collection}/*/*.json"))
    return [(path.parent, json.loads(path.read_text())) for path in paths]
