"""The authors' released PMTiles archives into a store: what it holds, and what is unknown of it.

Nothing but the archives' directories is in memory; tiles are decoded shard by shard, by whoever
writes the shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from salibi_data.assembly.executor import WorkerDied, check_main_module, open_executor
from salibi_data.assembly.shards import StoreContents, make_store
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.builds.options import BuildOptions
from salibi_data.builds.samples_table import write_unsourced
from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.variants import EXAMPLE, Variant, example_variant, load_variant
from salibi_data.imports.pmtiles.directory import Archive, open_archive
from salibi_data.imports.pmtiles.layout import fits, own_modalities
from salibi_data.imports.pmtiles.samples import (
    ArchiveSamples,
    base_zoom_of,
    complete_samples,
    given_layouts,
)
from salibi_data.plans.splits import assign_or_guard
from salibi_data.store import __version__
from salibi_data.store.errors import ReadError, SelectionError, UsageError
from salibi_data.store.filesystem import file_sha256
from salibi_data.store.schema import SPLITS, UNKNOWN_TIME, Modality, StoreAttributes
from salibi_data.store.tiles import ground_gsd_m

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.imports.pmtiles.layout import ArchiveLayout
    from salibi_data.store.progress import Progress

Splits = Literal["blocks", "none"]

CATALOG: Final = "pmtiles"
"""Name of the catalog in the attributes of an imported store."""
RULES_VERSION: Final = 1
"""Version of the import's rules; raised when the same archives would give other bytes."""
_TERMS: Final = "earth-search"
"""Catalog whose licences are those of the sensors themselves, not of a provider's processing."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Result of an import."""

    store: Path
    base_zoom: int
    num_samples: int
    num_tiles: Mapping[str, int]
    """Number of tiles at the base zoom by archive; some lack a part in another archive."""
    splits: Mapping[str, int]
    damaged: tuple[str, ...]
    """Names ``zoom/column/row`` of samples left out because a tile cannot be decoded."""
    was_complete: bool
    """Whether the store was finished already and nothing was done."""


def import_pmtiles(
    store: str | Path,
    *,
    sar: str | Path | None = None,
    lores: str | Path | None = None,
    hires: str | Path | None = None,
    variant: str | None = None,
    zoom: int | None = None,
    splits: Splits = "blocks",
    skip_damaged: bool = False,
    workers: int = BuildOptions.workers,
    progress: Progress | None = None,
) -> ImportReport:
    """Import released archives as a store, or continue an import that was stopped.

    Args:
        store: path of the Zarr group to make.
        sar: archive of Sentinel-1 tiles; without it the store has no ``sar``.
        lores: archive of Sentinel-2 tiles, likewise.
        hires: archive of NAIP tiles and their children, likewise.
        variant: name or TOML file of the variant that this is a release of: its name and its rule
            for splits are taken. By default it is called ``released``, and split as ``micro`` is.
        zoom: the base zoom, where the archives have samples at several.
        splits: ``blocks`` as in built stores, but samples between blocks are kept, as split
            ``guard``; ``none`` puts all samples into training.
        skip_damaged: leave out samples of which a tile cannot be decoded, instead of failing.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: called as shards are done.

    Raises:
        UsageError: no archive, no file where one should be, the zoom is not clear, or the variant
            does not fit.
        ReadError: an archive or a tile is damaged, or not what this software reads.
        SelectionError: no tile has all parts.
        StoreError: something else is at the store's path, or another process is at work on it.

    Example:
        >>> _ = salibi_data.export_pmtiles(store_path, folder / "to_import")
        >>> report = salibi_data.import_pmtiles(
        ...     folder / "imported.zarr", lores=folder / "to_import" / "visual_tiles.pmtile"
        ... )
        >>> report.num_samples == salibi_data.info(store_path)["samples"]
        True
    """
    check_main_module()
    if splits not in get_args(Splits):
        raise UsageError(f"splits are {splits!r}; give one of {', '.join(get_args(Splits))}.")
    given = {"sar": sar, "lores": lores, "hires": hires}
    archives = {name: open_archive(path) for name, path in given.items() if path is not None}
    if not archives:
        raise UsageError("no archive was given; name those of sar, lores and hires.")
    base_zoom = base_zoom_of(archives, zoom)
    rules = _variant(variant, base_zoom)
    samples = complete_samples(archives, base_zoom)
    damaged = _damaged(samples, workers) if skip_damaged else []
    left_out = tuple(f"{base_zoom}/{samples.x[n]}/{samples.y[n]}" for n in damaged)
    samples = samples.take(np.setdiff1d(np.arange(len(samples)), damaged))
    if not len(samples):
        raise SelectionError(
            "every sample has a tile that is damaged; download the archives again."
        )
    split = _split(rules, samples, splits)
    was_made = make_store(
        store,
        _contents(archives, rules, samples, split, left_out),
        workers=workers,
        progress=progress,
    )
    return ImportReport(
        store=Path(store),
        base_zoom=base_zoom,
        num_samples=len(samples),
        num_tiles={name: archive.num_tiles(base_zoom) for name, archive in archives.items()},
        splits={name: int((split == code).sum()) for name, code in SPLITS.items()},
        damaged=left_out,
        was_complete=not was_made,
    )


def _variant(name_or_path: str | None, base_zoom: int) -> Variant:
    """Load the variant that gives the name and the rule for splits."""
    if name_or_path is None:
        return replace(example_variant(base_zoom), name="released")
    variant = load_variant(name_or_path)
    if variant.split_by != "blocks":
        raise UsageError(
            f"variant {variant.name} is split by {variant.split_by}, and archives do not say which "
            "theirs are; name another variant."
        )
    if variant.base_zoom != base_zoom:
        raise UsageError(
            f"variant {variant.name} is at zoom {variant.base_zoom}, and the archives' samples are at "
            f"zoom {base_zoom}; name the variant that they are a release of."
        )
    return variant


def _damaged(samples: ArchiveSamples, workers: int) -> list[int]:
    """Find samples with a damaged tile by decoding every tile."""
    num_shards = -(-len(samples) // SAMPLES_PER_SHARD)
    tasks = ((n, ArchiveSamples.damaged, (samples.shard(n),)) for n in range(num_shards))
    damaged: list[int] = []
    with open_executor(workers, None) as executor:
        for number, result in executor.run(tasks):
            if isinstance(result, WorkerDied):
                raise ReadError(f"tiles could not be checked: {result.reason}. Run it again.")
            damaged += [number * SAMPLES_PER_SHARD + row for row in result]
    return sorted(damaged)


def _split(rules: Variant, samples: ArchiveSamples, splits: Splits) -> NDArray[np.uint8]:
    """Split code of each sample; samples between blocks are kept in the split ``guard``."""
    if splits == "none":
        return np.full(len(samples), SPLITS["train"], np.uint8)
    return assign_or_guard(rules, samples.x, samples.y)


def _contents(
    archives: Mapping[str, Archive],
    rules: Variant,
    samples: ArchiveSamples,
    split: NDArray[np.uint8],
    left_out: tuple[str, ...],
) -> StoreContents:
    modalities = {
        name: modality
        for layout, archive in given_layouts(archives)
        for name, modality in _modalities(layout, archive, rules).items()
    }
    attributes = StoreAttributes(
        variant=rules.name,
        catalog=CATALOG,
        base_zoom=rules.base_zoom,
        sensors=tuple(dict.fromkeys(modality.sensor for modality in modalities.values())),
        modalities=modalities,
        plan_digest="",
        software_version=__version__,
        notes=tuple(_notes(archives, split, left_out)),
    )
    checksums = _checksums(archives)
    digest = _digest(checksums, attributes, split, left_out)
    metadata = {
        "plan_digest": digest,
        "request": {"variant": rules.name, "catalog": CATALOG},
        "archives": checksums,
    }
    num_samples, num_sensors = len(samples), len(attributes.sensors)
    return StoreContents(
        attributes=replace(attributes, plan_digest=digest),
        index={
            "tile": np.stack([np.full(num_samples, rules.base_zoom), samples.x, samples.y], axis=1),
            "gsd_m": ground_gsd_m(rules.base_zoom, samples.y),
            "acquired": np.full((num_samples, num_sensors), UNKNOWN_TIME),
            "cloud_fraction": np.full(num_samples, np.nan),
            "split": split,
        },
        shard=samples.shard,
        write_samples=partial(write_unsourced, sensors=attributes.sensors, about=metadata),
        digest=digest[:24],
    )


def _modalities(layout: ArchiveLayout, archive: Archive, rules: Variant) -> dict[str, Modality]:
    """Describe an archive's modalities, from its own metadata if an export of ours wrote it."""
    own = own_modalities(archive)
    if own is None:
        return {name: _foreign_modality(name, layout, archive, rules) for name in layout.modalities}
    for name in layout.modalities:
        if name not in own or not fits(layout, own[name], rules.base_zoom):
            raise ReadError(
                f"{archive.path} was written from a store that has no {name} of "
                f"{', '.join(layout.bands)} for base zoom {rules.base_zoom}; export it again."
            )
    return {name: own[name].with_statistics((), ()) for name in layout.modalities}


def _foreign_modality(
    name: str, layout: ArchiveLayout, archive: Archive, rules: Variant
) -> Modality:
    """Describe a modality of a foreign archive: no physical units, the archive's attribution."""
    recipes = {recipe.name: recipe for recipe in load_variant(EXAMPLE).modalities}
    modality = rules.modality(recipes[name], load_catalog(_TERMS))
    credit = archive.metadata.get("attribution")
    return replace(
        modality,
        units="display",
        scale=(1.0,) * len(layout.bands),
        offset=(0.0,) * len(layout.bands),
        collection="",
        attribution=credit if credit and isinstance(credit, str) else modality.attribution,
    )


def _notes(
    archives: Mapping[str, Archive], split: NDArray[np.uint8], left_out: tuple[str, ...]
) -> Iterator[str]:
    """Yield notes for readers of the store."""
    foreign = [name for name, archive in archives.items() if own_modalities(archive) is None]
    yield "Imported from PMTiles archives: scenes, acquisition dates and clouds are unknown."
    if foreign:
        yield (
            f"{', '.join(foreign)}: 0 where a tile was observed is stored as 1; a tile of nothing but "
            "0 is taken for a failed download, and is nodata."
        )
    if "sar" in foreign:
        yield (
            "sar: the dB scale of the 8-bit values is unknown. The release's scaling wraps the "
            "brightest to 0, and its alpha is that of VV: a stored 1 may be the darkest value, the "
            "brightest, or VH without observation."
        )
    guards = int((split == SPLITS["guard"]).sum())
    if guards:
        yield (
            f"{guards} samples touch a block of a split they must not leak into; they are in split "
            "guard, which nothing is trained or measured on."
        )
    elif not split.any():
        yield "All samples are in the training split."
    if left_out:
        yield f"{len(left_out)} samples are left out, as a tile of theirs cannot be decoded."


def _checksums(archives: Mapping[str, Archive]) -> dict[str, str]:
    """SHA-256 of each archive's file, computed in parallel."""
    with ThreadPoolExecutor(len(archives)) as threads:
        checksums = threads.map(file_sha256, [archive.path for archive in archives.values()])
        return dict(zip(archives, checksums, strict=True))


def _digest(
    checksums: Mapping[str, str],
    attributes: StoreAttributes,
    split: NDArray[np.uint8],
    left_out: tuple[str, ...],
) -> str:
    """SHA-256 of everything that decides the store's bytes."""
    described = {k: v for k, v in attributes.to_dict().items() if k != "software_version"}
    content = json.dumps([RULES_VERSION, checksums, described, left_out], sort_keys=True)
    return hashlib.sha256(content.encode() + split.tobytes()).hexdigest()
