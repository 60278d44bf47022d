"""Several stores as one: each tile once, no split leaking into another.

To append to a store, merge it with what is new into another path, and rename that into its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.assembly.shards import make_store
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
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
    """What a merged store holds, and what was left out for it."""

    store: Path
    num_samples: int
    num_in_sources: tuple[int, ...]
    """Samples of each store it is made of."""
    num_duplicates: int
    """Samples left out, as another one of their tile is kept."""
    num_same_dates: int
    """Those of them that were seen at the same times as the one that is kept."""
    num_differing: int
    """Those of the same times whose pixels differ all the same, as if other rules made them."""
    splits: Mapping[str, int]
    was_complete: bool
    """Whether it was there already."""


def merge(
    stores: Sequence[str | Path],
    output: str | Path,
    *,
    keep: Keep = "first",
    resplit: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> MergeReport:
    """Make a store of the samples of all stores, each tile once, or go on where it was stopped.

    Args:
        stores: paths or URLs of finished stores whose values mean the same; their order decides ties.
        output: path of the store to make.
        keep: which sample of a tile that several stores have: that of the first store; the
            ``newest``, which a sensor saw last; the ``clearest``, with the least clouds.
        resplit: split all samples anew, by blocks; those between blocks become ``guard``.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: called with (shards done, shards in all).

    Raises:
        UsageError: fewer than two stores, they mean different things, or the output lies in one.
        SelectionError: a split would leak into another.
        StoreError: a store is not there, is damaged or replaced meanwhile, or something else is
            at the output's path.

    Example:
        >>> for name, split in (("a.zarr", "train"), ("b.zarr", "test")):
        ...     _ = salibi_data.subset(store_path, folder / name, salibi_data.Selection(splits=(split,)))
        >>> report = salibi_data.merge([folder / "a.zarr", folder / "b.zarr"], folder / "both.zarr")
        >>> report.num_samples == salibi_data.info(folder / "both.zarr")["samples"]
        True
    """
    if keep not in KEEP:
        raise UsageError(f"keep is {keep!r}; choose from {', '.join(KEEP)}.")
    if len(stores) < 2:  # noqa: PLR2004 - two are the fewest there are
        raise UsageError("a merge takes two stores or more; a part of one is made by `subset`.")
    output, sources = Path(output), tuple(SourceStore.open(store) for store in stores)
    check_output_path(output, sources)
    attributes = merge_attributes(sources)
    found = _union(sources, attributes, keep)
    rules = _rules(sources, resplit=resplit)
    split = _split(sources, attributes, found, rules, resplit=resplit)
    made = DerivedStore(
        sources=sources,
        source=found.kept.source,
        row=found.kept.row,
        split=split,
        attributes=attributes,
        asked={"how": "merge", "keep": keep, "resplit": resplit},
        variant=rules,
    )
    new = make_store(output, made.contents(), workers=workers, progress=progress)
    same = same_dates(
        _gathered(sources, "acquired", found.kept.take(found.kept_index), attributes),
        _gathered(sources, "acquired", found.dropped, attributes),
    )
    return MergeReport(
        store=output,
        num_samples=len(split),
        num_in_sources=tuple(len(stored) for stored in sources),
        num_duplicates=len(same),
        num_same_dates=int(same.sum()),
        num_differing=_num_differing(sources, attributes, found, same),
        splits={name: int((split == code).sum()) for name, code in SPLITS.items()},
        was_complete=not new,
    )


def _union(sources: Sequence[SourceStore], attributes: StoreAttributes, keep: Keep) -> TileUnion:
    ranks = [
        rank_samples(
            keep,
            stored.index["acquired"][:, stored.columns_of(attributes.sensors)],
            stored.index["cloud_fraction"],
        )
        for stored in sources
    ]
    return unite_tiles([stored.tile_ids for stored in sources], ranks)


def _rules(sources: Sequence[SourceStore], *, resplit: bool) -> dict[str, Any]:
    """How the merged store is split, as a field of its variant."""
    told = {stored.about.get("variant", {}).get("split_by", "blocks") for stored in sources}
    return {"split_by": "scenes" if told == {"scenes"} and not resplit else "blocks"}


def _split(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    found: TileUnion,
    rules: Mapping[str, Any],
    *,
    resplit: bool,
) -> NDArray[np.uint8]:
    """Split code of each sample that is kept, (N,).

    Raises:
        SelectionError: stores put a tile, two that touch, or two of one scene in different splits.
    """
    tile = _gathered(sources, "tile", found.kept).astype(np.int64)
    x, y = tile[:, 1], tile[:, 2]
    if resplit:
        told = (stored.about["variant"] for stored in sources if "variant" in stored.about)
        first = next(told, None)
        variant = (
            variant_from_dict(first, where=sources[0].where)
            if first
            else example_variant(attributes.base_zoom)
        )
        return assign_or_guard(variant, x, y)
    split: NDArray[np.uint8] = _gathered(sources, "split", found.kept)
    torn = int((_gathered(sources, "split", found.dropped) != split[found.kept_index]).sum())
    if torn:
        raise SelectionError(f"the stores put {torn} tiles in different splits. {_REMEDY}")
    leaks = num_leaking_neighbours(x, y, split)
    if leaks:
        raise SelectionError(
            f"{leaks} pairs of neighbouring tiles of the stores are in different splits. {_REMEDY}"
        )
    if rules["split_by"] == "scenes":
        _check_scenes(sources, attributes, found.kept, split)
    return split


def _check_scenes(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    kept: SampleRows,
    split: NDArray[np.uint8],
) -> None:
    """Whether every scene is in one split, as its store promises."""
    items: dict[str, list[list[str]]] = {sensor: [] for sensor in attributes.sensors}
    codes = []
    for number, stored in enumerate(sources):
        own = kept.source == number
        codes.append(split[own])
        table = stored.table([f"{sensor}_items" for sensor in items]).take(kept.row[own])
        for sensor, lists in items.items():
            lists.extend(table[f"{sensor}_items"].to_pylist())
    for sensor, shared in leakage(np.concatenate(codes), items).items():
        if shared["scenes_in_several_splits"]:
            raise SelectionError(
                f"{shared['scenes_in_several_splits']} {sensor} scenes would be in several splits. "
                f"{_REMEDY}"
            )


def _gathered(
    sources: Sequence[SourceStore],
    name: str,
    picked: SampleRows,
    attributes: StoreAttributes | None = None,
) -> NDArray[Any]:
    """An index array of some samples, in their order.

    Args:
        sources: the stores.
        name: of the array.
        picked: the samples, (N,).
        attributes: whose sensors are the columns to take; default all columns.
    """
    shape = sources[0].index[name].shape[1:]
    if attributes is not None:
        shape = (len(attributes.sensors),)
    gathered = np.empty((len(picked), *shape), sources[0].index[name].dtype)
    for number, stored in enumerate(sources):
        own = picked.source == number
        array = stored.index[name]
        if attributes is not None:
            array = array[:, stored.columns_of(attributes.sensors)]
        gathered[own] = array[picked.row[own]]
    return gathered


def _num_differing(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    found: TileUnion,
    same: NDArray[np.bool_],
) -> int:
    """Of the samples left out that are ``same``, those whose pixels are not those that are kept."""
    checksums = np.array([stored.manifest_sha256 for stored in sources])
    kept = found.kept.take(found.kept_index)
    other_store = checksums[kept.source] != checksums[found.dropped.source]
    names = tuple(attributes.modalities)
    differing = 0
    asked = np.flatnonzero(same & other_store)
    for start in range(0, len(asked), SAMPLES_PER_SHARD):
        run = asked[start : start + SAMPLES_PER_SHARD]
        ours, theirs = (
            select_images(sources, picked.source, picked.row, names).read()
            for picked in (kept.take(run), found.dropped.take(run))
        )
        unequal = [(ours[name] != theirs[name]).any(axis=(1, 2, 3)) for name in names]
        differing += int(np.any(unequal, axis=0).sum())
    return differing
