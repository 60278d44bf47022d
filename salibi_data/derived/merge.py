"""Merge several stores into one, with each tile once and no leakage between splits.

To append to a store, merge it with the new samples at another path, and rename the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.assembly.shards import make_store
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.builds.options import BuildOptions
from salibi_data.catalog.variants import example_variant, variant_from_dict
from salibi_data.derived.derived_store import DerivedStore, check_output_path, select_images
from salibi_data.derived.merge_rules import merge_attributes
from salibi_data.derived.overlaps import (
    KEEP,
    Keep,
    TileUnion,
    rank_samples,
    same_dates,
    unite_tiles,
)
from salibi_data.derived.source_store import SourceStore
from salibi_data.plans.splits import assign_or_guard, leakage, num_leaking_neighbours
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.schema import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.derived.overlaps import SampleRows
    from salibi_data.store.progress import Progress
    from salibi_data.store.schema import StoreAttributes

_REMEDY = "Split all anew with --resplit, or make the stores with the same rule for splits."


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """Content of a merged store, and the duplicates in its sources."""

    store: Path
    """Path of the merged store."""
    num_samples: int
    """Samples of the merged store."""
    num_in_sources: tuple[int, ...]
    """Samples of each source."""
    num_duplicates: int
    """Samples left out because another one of their tile was taken."""
    num_same_dates: int
    """Duplicates with the same acquisition times as the sample that was taken."""
    num_differing: int
    """Duplicates with the same acquisition times but other pixels, as from other processing rules."""
    splits: Mapping[str, int]
    """Samples of each split."""
    was_complete: bool
    """Whether the merged store existed already."""


def merge(
    stores: Sequence[str | Path],
    output: str | Path,
    *,
    keep: Keep = "first",
    resplit: bool = False,
    workers: int = BuildOptions.workers,
    progress: Progress | None = None,
) -> MergeReport:
    """Make a store of the samples of all stores, each tile once, or continue an interrupted run.

    Args:
        stores: paths or URLs of finished stores whose values mean the same; their order decides ties.
        output: path of the store to make.
        keep: rule that chooses one of several samples of a tile: ``first``, that of the first store;
            ``newest``, the one acquired last by any sensor; ``clearest``, with the least clouds.
        resplit: assign all samples to splits again, by blocks; those between blocks become ``guard``.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: called with (shards done, shards in all).

    Raises:
        UsageError: fewer than two stores, their values have different meanings, or the output lies
            in one of them.
        SelectionError: a split would leak into another.
        StoreError: a store does not exist, is damaged or replaced during the run, or something else
            is at the output's path.

    Example:
        >>> for name, split in (("a.zarr", "train"), ("b.zarr", "test")):
        ...     _ = salibi_data.subset(store_path, folder / name, salibi_data.Selection(splits=(split,)))
        >>> report = salibi_data.merge([folder / "a.zarr", folder / "b.zarr"], folder / "both.zarr")
        >>> report.num_samples == salibi_data.info(folder / "both.zarr")["samples"]
        True
    """
    if keep not in KEEP:
        raise UsageError(f"keep is {keep!r}; choose from {', '.join(KEEP)}.")
    if len(stores) < 2:  # noqa: PLR2004
        raise UsageError("a merge takes two stores or more; a part of one is made by `subset`.")
    output, sources = Path(output), tuple(SourceStore.open(store) for store in stores)
    check_output_path(output, sources)
    attributes = merge_attributes(sources)
    tiles = _unite_tiles(sources, attributes, keep)
    variant = _split_rule(sources, resplit=resplit)
    split = _merge_splits(sources, attributes, tiles, variant, resplit=resplit)
    derived = DerivedStore(
        sources=sources,
        source=tiles.kept.source,
        row=tiles.kept.row,
        split=split,
        attributes=attributes,
        operation={"how": "merge", "keep": keep, "resplit": resplit},
        variant=variant,
    )
    is_new = make_store(output, derived.contents(), workers=workers, progress=progress)
    same = same_dates(
        _gather(sources, "acquired", tiles.kept.take(tiles.kept_index), attributes),
        _gather(sources, "acquired", tiles.dropped, attributes),
    )
    return MergeReport(
        store=output,
        num_samples=len(split),
        num_in_sources=tuple(len(stored) for stored in sources),
        num_duplicates=len(same),
        num_same_dates=int(same.sum()),
        num_differing=_num_differing(sources, attributes, tiles, same),
        splits={name: int((split == code).sum()) for name, code in SPLITS.items()},
        was_complete=not is_new,
    )


def _unite_tiles(
    sources: Sequence[SourceStore], attributes: StoreAttributes, keep: Keep
) -> TileUnion:
    ranks = [
        rank_samples(
            keep,
            stored.index["acquired"][:, stored.columns_of(attributes.sensors)],
            stored.index["cloud_fraction"],
        )
        for stored in sources
    ]
    return unite_tiles([stored.tile_ids for stored in sources], ranks)


def _split_rule(sources: Sequence[SourceStore], *, resplit: bool) -> dict[str, Any]:
    """Return the rule by which the merged store is split, as a field of its variant."""
    rules = {stored.metadata.get("variant", {}).get("split_by", "blocks") for stored in sources}
    return {"split_by": "scenes" if rules == {"scenes"} and not resplit else "blocks"}


def _merge_splits(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    tiles: TileUnion,
    rule: Mapping[str, Any],
    *,
    resplit: bool,
) -> NDArray[np.uint8]:
    """Return the split code of each sample of the merged store, shape (N,).

    Raises:
        SelectionError: the stores have a tile, two neighbouring ones, or two of one scene in
            different splits.
    """
    tile = _gather(sources, "tile", tiles.kept).astype(np.int64)
    x, y = tile[:, 1], tile[:, 2]
    if resplit:
        variants = (
            stored.metadata["variant"] for stored in sources if "variant" in stored.metadata
        )
        first = next(variants, None)  # stores imported from archives may state none
        variant = (
            variant_from_dict(first, where=sources[0].where)
            if first
            else example_variant(attributes.base_zoom)
        )
        return assign_or_guard(variant, x, y)
    split: NDArray[np.uint8] = _gather(sources, "split", tiles.kept)
    num_split = int((_gather(sources, "split", tiles.dropped) != split[tiles.kept_index]).sum())
    if num_split:
        raise SelectionError(f"the stores put {num_split} tiles in different splits. {_REMEDY}")
    leaks = num_leaking_neighbours(x, y, split)
    if leaks:
        raise SelectionError(
            f"{leaks} pairs of neighbouring tiles of the stores are in different splits. {_REMEDY}"
        )
    if rule["split_by"] == "scenes":
        _check_scenes(sources, attributes, tiles.kept, split)
    return split


def _check_scenes(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    samples: SampleRows,
    split: NDArray[np.uint8],
) -> None:
    """Check that every scene is in one split only.

    Raises:
        SelectionError: one would be in several.
    """
    items: dict[str, list[list[str]]] = {sensor: [] for sensor in attributes.sensors}
    codes = []
    for number, stored in enumerate(sources):
        own = samples.source == number
        codes.append(split[own])
        table = stored.table([f"{sensor}_items" for sensor in items]).take(samples.row[own])
        for sensor, lists in items.items():
            lists.extend(table[f"{sensor}_items"].to_pylist())
    for sensor, shared in leakage(np.concatenate(codes), items).items():
        if shared["scenes_in_several_splits"]:
            raise SelectionError(
                f"{shared['scenes_in_several_splits']} {sensor} scenes would be in several splits. "
                f"{_REMEDY}"
            )


def _gather(
    sources: Sequence[SourceStore],
    name: str,
    samples: SampleRows,
    attributes: StoreAttributes | None = None,
) -> NDArray[Any]:
    """Read an index array at some samples, in their order.

    Args:
        sources: stores of the samples.
        name: name of the array.
        samples: N samples.
        attributes: attributes with the sensors whose columns to take; default all columns.
    """
    shape = sources[0].index[name].shape[1:]
    if attributes is not None:
        shape = (len(attributes.sensors),)
    gathered = np.empty((len(samples), *shape), sources[0].index[name].dtype)
    for number, stored in enumerate(sources):
        own = samples.source == number
        array = stored.index[name]
        if attributes is not None:
            array = array[:, stored.columns_of(attributes.sensors)]
        gathered[own] = array[samples.row[own]]
    return gathered


def _num_differing(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    tiles: TileUnion,
    same: NDArray[np.bool_],
) -> int:
    """Count the dropped samples with the same dates whose pixels differ from the kept ones.

    Args:
        sources: stores of the samples.
        attributes: attributes with the modalities to compare.
        tiles: kept and dropped samples.
        same: which of the dropped samples have the same dates.
    """
    checksums = np.array([stored.manifest_sha256 for stored in sources])
    kept_rows = tiles.kept.take(tiles.kept_index)
    is_other_store = checksums[kept_rows.source] != checksums[tiles.dropped.source]
    names = tuple(attributes.modalities)
    differing = 0
    duplicates = np.flatnonzero(same & is_other_store)
    for start in range(0, len(duplicates), SAMPLES_PER_SHARD):
        run = duplicates[start : start + SAMPLES_PER_SHARD]
        ours, theirs = (
            select_images(sources, samples.source, samples.row, names).read()
            for samples in (kept_rows.take(run), tiles.dropped.take(run))
        )
        unequal = [(ours[name] != theirs[name]).any(axis=(1, 2, 3)) for name in names]
        differing += int(np.any(unequal, axis=0).sum())
    return differing
