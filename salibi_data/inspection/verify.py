"""Verifies a store: files and checksums, arrays, grid, splits, table, and every image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from salibi_data.inspection.check_images import check_images, image_shards
from salibi_data.inspection.check_index import check_arrays, check_index, check_table
from salibi_data.store.errors import VerificationError
from salibi_data.store.open import StoreFiles
from salibi_data.store.schema import (
    MANIFEST_NAME,
)
from salibi_data.store.storage import is_url

if TYPE_CHECKING:
    from pathlib import Path

    from salibi_data.store.manifest import ManifestEntry
    from salibi_data.store.progress import Progress

_MAX_LISTED: Final = 5
"""Number of problems that the message lists."""
_LOCAL_REMEDY: Final = "Remove it, and build or pull it again."
_REMOTE_REMEDY: Final = "Publish it again from a store that passes: it replaces damaged files."


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Record of the checks that a store passed."""

    num_samples: int
    num_files: int
    """Number of files in the manifest."""
    checks: tuple[str, ...]
    """Names of the checks."""
    is_listed: bool = True
    """Whether the names of the files could be listed; if not, a file beyond the manifest is not noticed."""
    against_source: Mapping[str, float] | None = None
    """Number of samples compared with their sources (``samples``), and the largest and mean
    difference in steps of the stored values; None if none was compared."""


def verify(
    store: str | Path,
    *,
    against_source: int = 0,
    catalog: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a store against its manifest, the schema, the grid, itself and, if asked, its sources.

    Args:
        store: path or URL of the Zarr group, or of a published dataset: its newest release.
        against_source: number of samples to read again from their sources and compare.
        catalog: name or TOML file of the catalog that locates the sources; default the store's own.
        progress: called with (samples read, samples in total).

    Returns:
        The checks that the store passed.

    Raises:
        StoreError: no store is there, or its attributes are damaged or of a newer schema.
        VerificationError: the store has problems; the message lists the first of them.
        UsageError: the sources are unknown, so that samples cannot be compared with them.
        ReadError: a source cannot be read.

    Example:
        >>> salibi_data.verify(store_path).checks[:3]
        ('checksums', 'arrays', 'grid')
    """
    files = StoreFiles.at(store)
    group, attributes = files.open()
    manifest = files.manifest()
    listed = files.listed_sizes()
    skip_checksums = image_shards(manifest, attributes)
    problems = [*_check_files(files, manifest, listed or {}, skip_checksums=skip_checksums)]
    # Each stage only runs on a store without problems so far: they would be reported again.
    if not problems:
        problems += check_arrays(group, attributes)
    if not problems:
        problems += check_index(group, attributes)
        problems += check_table(files, group, attributes)
        problems += check_images(files, manifest, attributes, progress)
    checks = ["checksums", "arrays", "grid", "splits", "table", "every image", "zooms"]
    differences = None
    if against_source and not problems:
        from salibi_data.inspection.source_check import compare_with_sources

        comparison = compare_with_sources(
            files, group, attributes, against_source, catalog=catalog, progress=progress
        )
        problems += comparison.problems
        checks.append(f"{comparison.num_samples} samples against their sources")
        differences = {
            "samples": comparison.num_samples,
            "max_difference": comparison.max_difference,
            "mean_difference": comparison.mean_difference,
        }
    if problems:
        raise VerificationError(_failure_message(files.where, problems, is_remote=is_url(store)))
    return Verification(
        num_samples=int(group["tile"].shape[0]),
        num_files=len(manifest),
        checks=tuple(checks),
        is_listed=listed is not None,
        against_source=differences,
    )


def _failure_message(where: str, problems: list[str], *, is_remote: bool) -> str:
    listed = "; ".join(problems[:_MAX_LISTED])
    num_more = len(problems) - _MAX_LISTED
    more = f"; and {num_more} more" if num_more > 0 else ""
    remedy = _REMOTE_REMEDY if is_remote else _LOCAL_REMEDY
    return f"{where} does not pass verification: {listed}{more}. {remedy}"


def _check_files(
    files: StoreFiles,
    manifest: Mapping[str, ManifestEntry],
    listed: Mapping[str, int],
    *,
    skip_checksums: frozenset[str],
) -> Iterator[str]:
    """Yield files that are missing, unexpected, or differ from their size or checksum.

    The cards beside a published store are checked as well.

    Args:
        files: store to check.
        manifest: size and checksum of every file.
        listed: size of every file that the storage lists, by name; empty where it lists none.
        skip_checksums: names of files whose checksums are compared elsewhere.
    """
    present = {name: size for name, size in listed.items() if not name.endswith(".partial")}
    # Not every bucket lists all that may be read.
    present |= files.sizes_of(name for name in manifest if name not in present)
    for name in sorted(set(present) - set(manifest) - {MANIFEST_NAME}):
        yield f"file {name} is not in the manifest"
    for name, entry in manifest.items():
        if name not in present:
            yield f"file {name} is missing{'' if listed else ', or access is refused'}"
        elif present[name] != entry.bytes or (
            name not in skip_checksums and files.sha256(name, entry.bytes) != entry.sha256
        ):
            yield f"file {name} differs from its checksum"
    for name in files.damaged_cards():
        yield f"file {name} beside the store differs from its checksum"
