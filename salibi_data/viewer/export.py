"""Writes the page as static files for any web server; a second run continues an interrupted one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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

    from salibi_data.store.progress import Progress

STAMP: Final = ".salibi-export.json"
"""Name of the file that records the store and options of an export."""

_NUM_PROBES: Final = 6
"""Number of images of each modality and zoom that are encoded to estimate the size of all."""
_BATCH_SIZE: Final = 32
"""Number of files submitted at a time; an interrupted run waits for at most so many."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """Content of an exported folder."""

    num_files: int
    num_written: int
    """Number of files that this run wrote; the others existed."""
    num_bytes: int
    """Total size of all files."""


def estimate_image_bytes(site: Site) -> int:
    """Estimate the size of all images from a few of each modality and zoom."""
    paths_by_kind: dict[tuple[str, str], list[str]] = {}
    for path in site.tile_paths():
        _, modality, zoom, _, _ = path.split("/")
        paths_by_kind.setdefault((modality, zoom), []).append(path)
    total = 0
    for paths in paths_by_kind.values():
        probes = [site.get(path) for path in paths[:: -(-len(paths) // _NUM_PROBES)]]
        sizes = [len(probe.body) for probe in probes if probe is not None]
        total += round(sum(sizes) / len(sizes) * len(paths))
    return total


def export(site: Site, folder: str | Path, *, progress: Progress | None = None) -> ExportSummary:
    """Write every file of ``site`` below ``folder``, ``index.html`` last.

    Files are written atomically, so those of an interrupted run are complete and are kept.

    Args:
        site: site to write.
        folder: target, created if it does not exist.
        progress: called with (files done, files in total).

    Raises:
        UsageError: the folder holds something else, or an export of another store or with other
            options; or the address of the site's base map may contain a secret.
    """
    folder = Path(folder)
    if site.basemap is not None and site.basemap.may_contain_secret:
        raise UsageError(
            "the base map's address has a query or a user name, which may be a secret, and others "
            "can read an export; give an address without, or a PMTiles file."
        )
    _claim_folder(folder, site.digest)
    paths = list(site.paths())
    num_written = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        was_written = _write_files(site, folder, paths[:-1], threads)
        for num_done, is_new in enumerate(was_written, start=1):
            num_written += is_new
            if progress is not None:
                progress(num_done, len(paths))
    num_written += _write_file(site, folder, INDEX_HTML)
    if progress is not None:
        progress(len(paths), len(paths))
    files = [folder / path for path in paths if (folder / path).is_file()]
    return ExportSummary(
        num_files=len(files),
        num_written=num_written,
        num_bytes=sum(file.stat().st_size for file in files),
    )


def _claim_folder(folder: Path, digest: str) -> None:
    """Create the folder with a stamp of the site's digest, or check the stamp of a present one."""
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


def _write_files(
    site: Site, folder: Path, paths: Iterable[str], threads: ThreadPoolExecutor
) -> Iterator[bool]:
    """Write files in batches. Yield for each, in order, whether this run wrote it."""
    remaining = iter(paths)
    while batch := list(islice(remaining, _BATCH_SIZE)):
        yield from threads.map(lambda path: _write_file(site, folder, path), batch)


def _write_file(site: Site, folder: Path, path: str) -> bool:
    """Write one file if it is missing and the site has it. Return whether it was written."""
    file = folder / path
    if file.is_file():
        return False
    resource = site.get(path)
    if resource is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as partial:
        partial.write_bytes(resource.body)
    return True
