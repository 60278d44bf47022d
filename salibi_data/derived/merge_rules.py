"""Check that the values of several stores mean the same, and merge the stores' attributes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from salibi_data.derived.source_store import SourceStore
    from salibi_data.store.schema import Modality, StoreAttributes

MEANING_FIELDS: Final = (
    *("sensor", "zoom", "gsd_ratio", "size_px", "bands", "units", "scale", "offset", "nodata"),
)
"""Fields of a modality that define the meaning of its values; they must be equal in all stores."""

MERGED_VARIANT: Final = "merged"
"""Name of the variant where the stores have different ones."""


def merge_attributes(sources: Sequence[SourceStore]) -> StoreAttributes:
    """Return the attributes of a store with the samples of all sources, without statistics.

    Args:
        sources: stores to merge; the first one defines the order of modalities and sensors.

    Raises:
        UsageError: the sources differ; the message names the stores and the field.
    """
    first = sources[0]
    _check_modalities(sources)
    for other in sources[1:]:
        zooms = (first.attributes.base_zoom, other.attributes.base_zoom)
        if zooms[0] != zooms[1]:
            raise UsageError(_difference(first, other, "base zoom", *zooms))
        for name in first.attributes.modalities:
            _check_meaning(first, other, name)
    merged = {
        name: _merge_modality([s.attributes.modalities[name] for s in sources])
        for name in first.attributes.modalities
    }
    used = {modality.sensor for modality in merged.values()}
    all_attributes = [stored.attributes for stored in sources]
    variants = _unique(attributes.variant for attributes in all_attributes)
    return replace(
        first.attributes,
        variant=variants[0] if len(variants) == 1 else MERGED_VARIANT,
        catalog=", ".join(_unique(attributes.catalog for attributes in all_attributes)),
        modalities=merged,
        sensors=tuple(sensor for sensor in first.attributes.sensors if sensor in used),
        notes=_unique(note for attributes in all_attributes for note in attributes.notes),
    )


def _check_modalities(sources: Sequence[SourceStore]) -> None:
    """Check that all stores have the same modalities."""
    first = sources[0].attributes.modalities
    if all(set(stored.attributes.modalities) == set(first) for stored in sources):
        return
    shared = [name for name in first if all(name in s.attributes.modalities for s in sources)]
    modalities = "; ".join(f"{s.where} has {', '.join(s.attributes.modalities)}" for s in sources)
    remedy = (
        f"First take what all have, with `salibi-data subset --modalities {','.join(shared)}`."
        if shared
        else "They have none in common."
    )
    raise UsageError(
        f"the stores cannot be merged, as their modalities differ: {modalities}. {remedy}"
    )


def _check_meaning(first: SourceStore, other: SourceStore, name: str) -> None:
    ours, theirs = (stored.attributes.modalities[name] for stored in (first, other))
    for field in MEANING_FIELDS:
        values = getattr(ours, field), getattr(theirs, field)
        if values[0] != values[1]:
            raise UsageError(_difference(first, other, f"{field} of {name}", *values))


def _difference(
    first: SourceStore, other: SourceStore, what: str, ours: object, theirs: object
) -> str:
    return (
        f"the stores cannot be merged: {what} is {ours} in {first.where} and {theirs} in "
        f"{other.where}. Build both with the same variant."
    )


def _merge_modality(modalities: Sequence[Modality]) -> Modality:
    """Merge one modality of all stores, with all collections, licences and attributions."""
    return replace(
        modalities[0],
        collection=_join_unique(modality.collection for modality in modalities),
        licence=_join_unique(modality.licence for modality in modalities),
        attribution=_join_unique(modality.attribution for modality in modalities),
    )


def _join_unique(values: Iterable[str]) -> str:
    return "; ".join(filter(None, _unique(values)))


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    """Return each value once, in the order of first occurrence."""
    return tuple(dict.fromkeys(values))
