"""Does a store hold what it promises? Checksums, schema, grid, splits, every sample, its zooms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from salibi_data.inspection.check_images import check_images, image_shards
from salibi_data.inspection.check_index import check_arrays, check_index, check_table
from salibi_data.store.errors import VerificationError
from salibi_data.store.open import ManifestEntry, StoreFiles
from salibi_data.store.schema import (
    MANIFEST_NAME,
)
from salibi_data.store.storage import is_url

if TYPE_CHECKING:
    from pathlib import Path

    from salibi_data.store.progress import Progress

_SHOWN: Final = 5
_REMEDY: Final = {
    False: "Remove it, and build or pull it again.",
    True: "Publish it again from a store that verifies: what is damaged is sent once more.",
}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what was found wrong."""

    num_samples: int
    num_files: int
    checks: tuple[str, ...]
    against_source: Mapping[str, float] | None = None
    """Samples read again, and the largest and mean difference in stored steps."""


def verify(
    store: str | Path,
    *,
    against_source: int = 0,
    catalog: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a store against its manifest, the schema, the grid, itself, and its sources.

    Args:
        store: path or URL of the Zarr group, or of a published dataset: its newest release.
        against_source: so many samples are read again from their sources and compared.
        catalog: name or TOML file that says where the sources are; default the store's own.
        progress: called with (samples read, samples in all).

    Returns:
        What was checked.

    Raises:
        StoreError: no store is there, or its attributes are damaged or of a newer schema.
        VerificationError: something is wrong; the message lists what.
        ReadError: a source cannot be read.

    Example:
        >>> salibi_data.verify(store_path).checks[:3]
        ('checksums', 'arrays', 'grid')
    """
    files = StoreFiles.at(store)
    group, attributes = files.open()
    manifest = files.manifest()
    problems = [*_check_files(files, manifest, but=image_shards(manifest, attributes))]
    if not problems:  # damaged files would only be reported again
        problems += check_arrays(group, attributes)
    if not problems:
        problems += check_index(group, attributes)
        problems += check_table(files, group, attributes)
        problems += check_images(files, manifest, attributes, progress)
    checks = ["checksums", "arrays", "grid", "splits", "table", "every image", "zooms"]
    compared = None
    if against_source and not problems:
        from salibi_data.inspection.source_check import compare_with_sources

        found = compare_with_sources(
            files, group, attributes, against_source, catalog=catalog, progress=progress
        )
        problems += found.problems
        checks.append(f"{found.num_samples} samples against their sources")
        compared = {
            "samples": found.num_samples,
            "max_difference": found.max_difference,
            "mean_difference": found.mean_difference,
        }
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise VerificationError(
            f"{files.where} does not hold what it promises: {shown}{more}. {_REMEDY[is_url(store)]}"
        )
    return Verification(
        num_samples=int(group["tile"].shape[0]),
        num_files=len(manifest),
        checks=tuple(checks),
        against_source=compared,
    )


def _check_files(
    files: StoreFiles, manifest: Mapping[str, ManifestEntry], *, but: frozenset[str]
) -> Iterator[str]:
    """Which files there are, their sizes, and checksums of all ``but`` some; the cards, too."""
    present = {name: size for name, size in files.sizes().items() if not name.endswith(".partial")}
    for name in sorted(set(present) - set(manifest) - {MANIFEST_NAME}):
        yield f"file {name} is not in the manifest"
    for name, entry in manifest.items():
        if name not in present:
            yield f"file {name} is missing"
        elif present[name] != entry.bytes or (
            name not in but and files.sha256(name, entry.bytes) != entry.sha256
        ):
            yield f"file {name} differs from its checksum"
    for name in files.damaged_cards():
        yield f"file {name} beside the store differs from its checksum"
