"""Writes the offline sample catalog: COGs of three sensors over one ground, with static STAC.

A run writes to a hidden sibling folder and renames it at the end, so a folder with the catalog's
name is always complete. The same seed gives the same bytes with any number of processes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.synthetic.frame import COLUMNS, ROWS, area_bounds_lonlat
from salibi_data.synthetic.staging import staging_folder

if TYPE_CHECKING:
    from salibi_data.store.progress import Progress
    from salibi_data.synthetic.frame import Bounds

SAMPLE_BOUNDS_LONLAT: Final = area_bounds_lonlat(COLUMNS, ROWS)
"""West, south, east, north of the sample area, in degrees: 7 x 6 XYZ tiles at zoom 15, or 672 at
zoom 17."""

GENERATOR_VERSION: Final = 1
"""Version of the bytes: increased with every change that gives a seed other bytes."""

COLLECTIONS: Final = ("naip", "sentinel-1-rtc", "sentinel-2-l2a")

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """Content of a sample catalog."""

    directory: Path
    seed: int
    bounds_lonlat: Bounds
    """West, south, east, north, in degrees, of the tiles that every sensor covers."""
    num_items: Mapping[str, int]
    """Number of STAC items by collection."""
    num_bytes: int
    """Total size of all files."""
    is_new: bool
    """Whether this call wrote the catalog; False if it existed."""


def write_sample_catalog(
    directory: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    columns: int = COLUMNS,
    rows: int = ROWS,
    processes: int = 2,
) -> SampleSummary:
    """Write the sample catalog into ``directory``, unless it is there.

    Args:
        directory: folder that does not exist, is empty, or holds the catalog of these arguments.
        seed: random seed; the same seed always gives the same bytes.
        progress: called with (blocks done, blocks in total) as the work advances.
        columns: width of the area in zoom-15 tiles; a smaller area shows part of the same ground.
        rows: height of the area in zoom-15 tiles.
        processes: number of processes that render; 1 renders in this process.

    Raises:
        UsageError: ``directory`` holds something else, another run is writing it, or the area is
            empty or too large.
    """
    from salibi_data.synthetic import parallel
    from salibi_data.synthetic.frame import make_frame

    directory = Path(directory)
    identity = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "columns": columns,
        "rows": rows,
    }
    if _holds_catalog(directory, identity):
        return _summary(directory, identity, is_new=False)
    frame = make_frame(columns, rows)
    with staging_folder(directory) as staging:
        items = parallel.render_scenes(
            staging, frame, seed=seed, progress=progress, processes=processes
        )
        _write_stac(staging, items, identity)
        staging.replace(directory)
    return _summary(directory, identity, is_new=True)


def _holds_catalog(directory: Path, identity: Json) -> bool:
    """Return whether the folder holds the catalog; False if it is empty or does not exist.

    Raises:
        UsageError: it holds something else.
    """
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise UsageError(f"{directory} is a file; give a folder for the sample catalog.")
    if not any(directory.iterdir()):
        return False
    present_identity = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        root = json.loads((directory / "catalog.json").read_text(encoding="utf-8"))
        present_identity = root.get("salibi:sample")
    if present_identity == identity:
        return True
    content = f"a sample catalog of {present_identity}" if present_identity else "other files"
    raise UsageError(
        f"{directory} holds {content}, not the sample catalog of {identity}; give a new folder, "
        "or remove this one first."
    )


def _summary(directory: Path, identity: Json, *, is_new: bool) -> SampleSummary:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return SampleSummary(
        directory=directory,
        seed=identity["seed"],
        bounds_lonlat=area_bounds_lonlat(identity["columns"], identity["rows"]),
        num_items={
            name: sum(1 for path in files if path.match(f"{name}/*/*.json")) for name in COLLECTIONS
        },
        num_bytes=sum(path.stat().st_size for path in files),
        is_new=is_new,
    )


def _write_stac(folder: Path, items: list[Json], identity: Json) -> None:
    """Write items, collections and, last, the root catalog."""
    from salibi_data.synthetic import stac_catalog

    for name in COLLECTIONS:
        members = sorted(
            (item for item in items if item["collection"] == name), key=lambda item: str(item["id"])
        )
        for item in members:
            _write_json(folder / name / item["id"] / f"{item['id']}.json", item)
        _write_json(folder / name / "collection.json", stac_catalog.collection(name, members))
    _write_json(folder / "catalog.json", stac_catalog.catalog(COLLECTIONS, identity))


def _write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
