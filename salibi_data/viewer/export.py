"""The page as files that any web server serves; run again, it goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import remove_partials, write_atomically
from salibi_data.viewer.site import INDEX_HTML, Site

if TYPE_CHECKING:
    from collections.abc import Iterable

Progress = Callable[[int, int], None]

STAMP: Final = ".salibi-export.json"
"""Says which store and options the files of a folder belong to."""

_TRIED: Final = 6
"""Pictures of each modality and zoom that are drawn to know how large all will be."""
_AT_ONCE: Final = 32
"""Files under way at a time; an interruption waits for them."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What lies in the folder now."""

    num_files: int
    num_written: int
    num_bytes: int


def expected_bytes(site: Site) -> int:
    """About how large all pictures are, from a few of each modality and zoom."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    for path in site.tile_paths():
        _, modality, zoom, _, _ = path.split("/")
        by_kind.setdefault((modality, zoom), []).append(path)
    total = 0
    for paths in by_kind.values():
        tried = [site.get(path) for path in paths[:: -(-len(paths) // _TRIED)]]
        sizes = [len(found.body) for found in tried if found is not None]
        total += round(sum(sizes) / len(sizes) * len(paths))
    return total


def export(site: Site, folder: str | Path, *, progress: Progress | None = None) -> Exported:
    """Write every file of ``site`` below ``folder``; ``index.html`` comes last.

    Files that are there are kept, as each appears whole or not at all.

    Args:
        site: what to write.
        folder: made if need be.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the folder holds something else, or an export of another store or with other
            options; or the site names a base map whose address may hold a secret.
    """
    folder = Path(folder)
    if site.basemap is not None and site.basemap.may_hold_a_secret:
        raise UsageError(
            "the base map's address has a query or a user in it, which may be a secret, and an export "
            "is for others to see; take an address without, or a PMTiles file."
        )
    _claim(folder, site.digest)
    paths = list(site.paths())
    num_written = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for done, written in enumerate(_written(site, folder, paths[:-1], threads), start=1):
            num_written += written
            if progress is not None:
                progress(done, len(paths))
    num_written += _write(site, folder, INDEX_HTML)
    if progress is not None:
        progress(len(paths), len(paths))
    files = [folder / path for path in paths if (folder / path).is_file()]
    return Exported(
        num_files=len(files),
        num_written=num_written,
        num_bytes=sum(file.stat().st_size for file in files),
    )


def _claim(folder: Path, digest: str) -> None:
    """Take the folder for the site of ``digest``, or find that it is its own already."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / STAMP
    if stamp.is_file():
        if json.loads(stamp.read_text()) != {"site": digest}:
            raise UsageError(
                f"{folder} holds an export of another store, or with other options; remove it or name "
                "another folder."
            )
        remove_partials(folder)
        return
    if any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty and not an export of this store; name another folder."
        )
    with write_atomically(stamp) as partial:
        partial.write_text(json.dumps({"site": digest}))


def _written(
    site: Site, folder: Path, paths: Iterable[str], threads: ThreadPoolExecutor
) -> Iterator[bool]:
    """Whether each file was written, in order; a few are under way at a time, however many there are."""
    left = iter(paths)
    while some := list(islice(left, _AT_ONCE)):
        yield from threads.map(lambda path: _write(site, folder, path), some)


def _write(site: Site, folder: Path, path: str) -> bool:
    """Write one file unless it is there; nothing where the site has nothing."""
    file = folder / path
    if file.is_file():
        return False
    found = site.get(path)
    if found is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as partial:
        partial.write_bytes(found.body)
    return True
