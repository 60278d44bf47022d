"""Writes the offline sample catalog: COGs of all three sensors over one ground, with static STAC.

A run writes into a hidden sibling folder and renames it when all is there, so that a folder with
the catalog's name is always a whole catalog. Equal seeds give equal bytes, whatever the number of
processes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import hold_lock
from salibi_data.synthetic.frame import COLUMNS, ROWS, area_bounds_lonlat

if TYPE_CHECKING:
    from salibi_data.synthetic.frame import Bounds

SAMPLE_BOUNDS_LONLAT: Final = area_bounds_lonlat(COLUMNS, ROWS)
"""West, south, east, north of the sample area: 7 x 6 XYZ tiles at zoom 15, 672 at zoom 17."""

GENERATOR_VERSION: Final = 1
"""Raised whenever the same seed would give other bytes."""

COLLECTIONS: Final = ("naip", "sentinel-1-rtc", "sentinel-2-l2a")

Json = dict[str, Any]
ReportProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """What a sample catalog holds."""

    directory: Path
    seed: int
    bounds_lonlat: Bounds
    """West, south, east, north of the tiles that every sensor covers."""
    num_items: Mapping[str, int]
    """By collection."""
    num_bytes: int
    """Size of all files."""
    is_new: bool
    """False if the catalog was there already."""


def write_sample_catalog(
    directory: Path,
    *,
    seed: int = 0,
    progress: ReportProgress | None = None,
    columns: int = COLUMNS,
    rows: int = ROWS,
    processes: int = 2,
) -> SampleSummary:
    """Write the sample catalog into ``directory``, or find it there.

    Args:
        directory: a folder that does not exist, is empty, or holds this very catalog.
        seed: equal seeds give equal bytes.
        progress: called with (steps done, steps in all) now and then.
        columns: width of the area in zoom-15 tiles; a smaller area is a piece of the same ground.
        rows: height of the area in zoom-15 tiles.
        processes: 1 works in this process, more start as many helpers.

    Raises:
        UsageError: ``directory`` holds something else, or another run is writing it.
    """
    from salibi_data.synthetic import parallel as drawing
    from salibi_data.synthetic.frame import make_frame

    directory = Path(directory)
    identity = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "columns": columns,
        "rows": rows,
    }
    if _holds(directory, identity):
        return _summary(directory, identity, is_new=False)
    frame = make_frame(columns, rows)
    with _staging(directory) as staging:
        items = drawing.render(staging, frame, seed=seed, progress=progress, processes=processes)
        _write_stac(staging, items, identity)
        staging.replace(directory)
    return _summary(directory, identity, is_new=True)


def _holds(directory: Path, identity: Json) -> bool:
    """Whether the catalog is there; False if nothing is.

    Raises:
        UsageError: something else is there.
    """
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise UsageError(f"{directory} is a file; give a folder for the sample catalog.")
    if not any(directory.iterdir()):
        return False
    found = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        content = json.loads((directory / "catalog.json").read_text(encoding="utf-8"))
        found = content.get("salibi:sample")
    if found == identity:
        return True
    held = f"a sample catalog of {found}" if found else "other files"
    raise UsageError(
        f"{directory} holds {held}, not the sample catalog of {identity}; give a new folder, "
        "or remove this one first."
    )


@contextlib.contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """An empty sibling folder to write in, removed unless it has been renamed.

    The lock on the folder goes with the process that holds it: what a killed run left behind is
    cleared by the next one, what a living run writes is not.

    Raises:
        UsageError: another run holds the folder.
    """
    target = directory.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.partial"
    staging.mkdir(exist_ok=True)
    busy = UsageError(f"another run is writing {directory}; wait for it, or give another folder.")
    with hold_lock(staging, busy=busy):
        try:
            _clear(staging)
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


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
    """Write items, collections and, last, the root."""
    from salibi_data.synthetic import stac_catalog as catalog

    for name in COLLECTIONS:
        members = sorted(
            (item for item in items if item["collection"] == name), key=lambda item: str(item["id"])
        )
        for item in members:
            _write_json(folder / name / item["id"] / f"{item['id']}.json", item)
        _write_json(folder / name / "collection.json", catalog.collection(name, members))
    _write_json(folder / "catalog.json", catalog.catalog(COLLECTIONS, identity))


def _write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
