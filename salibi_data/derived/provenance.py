"""Provenance of a store made from others, and the metadata by which its samples can be read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from salibi_data.derived.source_store import SourceStore
    from salibi_data.store.schema import StoreAttributes

NO_SOURCES_KEY: Final = "no_sources"
"""Key of the table's metadata for the reason why no sample can be read from its scenes again."""

_OF_SOURCES: Final = "Of its sources: "
"""Prefix of notes that were counted on the sources, not on the new store."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Operation and sources of a store made from others."""

    operation: Mapping[str, Any]
    """Operation with its options, as JSON."""
    sources: tuple[Mapping[str, Any], ...]
    """Description of each source: its variant, checksum, and own provenance."""

    @classmethod
    def of(cls, operation: Mapping[str, Any], sources: Sequence[SourceStore]) -> Provenance:
        """Describe a store made from these sources."""
        return cls(operation=operation, sources=tuple(_describe(stored) for stored in sources))

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON, as in the metadata of ``samples.parquet``."""
        return {**self.operation, "sources": [dict(source) for source in self.sources]}


def notes_of_sources(notes: Sequence[str]) -> tuple[str, ...]:
    """Mark notes of the sources as such: their counts do not apply to the new store."""
    return tuple(_OF_SOURCES + note.removeprefix(_OF_SOURCES) for note in notes)


def _describe(stored: SourceStore) -> dict[str, Any]:
    attributes = stored.attributes
    earlier = {
        key: stored.metadata[key]
        for key in ("request", "archives", "made_from")
        if key in stored.metadata
    }
    return {
        "variant": attributes.variant,
        "catalog": attributes.catalog,
        "plan_digest": attributes.plan_digest,
        "manifest_sha256": stored.manifest_sha256,
        "samples": len(stored),
        "software_version": attributes.software_version,
        **earlier,
    }


def table_metadata(
    sources: Sequence[SourceStore],
    attributes: StoreAttributes,
    used: Mapping[str, set[str]],
    variant: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the variant, the catalog's rules and the scenes of a store made from others.

    Args:
        sources: stores that it is made from.
        attributes: attributes of the new store.
        used: ids of the scenes of its samples, by sensor.
        variant: fields in which its variant differs from the first source's.

    Returns:
        The metadata that :func:`~salibi_data.inspection.source_check.compare_with_sources` needs to
        read samples again, or the reason under :data:`NO_SOURCES_KEY` where that is impossible.
    """
    variants = [stored.metadata["variant"] for stored in sources if "variant" in stored.metadata]
    metadata: dict[str, Any] = {}
    if variants:
        metadata["variant"] = {**_restrict(variants[0], attributes), **variant}
    reason = _unreadable_reason(sources, attributes)
    if reason is not None:
        return {**metadata, NO_SOURCES_KEY: reason}
    scenes: dict[str, dict[str, Any]] = {sensor: {} for sensor in used}
    for stored in reversed(sources):  # the first store's description of a scene overrides
        for sensor, ids in used.items():
            own = stored.metadata["scenes"][sensor]
            scenes[sensor].update({scene["id"]: scene for scene in own if scene["id"] in ids})
    metadata["catalog"] = sources[0].metadata["catalog"]
    metadata["scenes"] = {
        sensor: [scene for _, scene in sorted(of_sensor.items())]
        for sensor, of_sensor in scenes.items()
    }
    return metadata


def _unreadable_reason(sources: Sequence[SourceStore], attributes: StoreAttributes) -> str | None:
    """Return why samples cannot be read from their scenes again; None where all can."""
    for stored in sources:
        if not {"variant", "catalog", "scenes"} <= set(stored.metadata):
            reason: str = stored.metadata.get(
                NO_SOURCES_KEY, "a store it was made from does not say what its images are from"
            )
            return reason
    first, *others = (_reading_rules(stored, attributes) for stored in sources)
    if any(other != first for other in others):
        return "the stores it was made from were read from different catalogs, or by other rules"
    return None


def _reading_rules(stored: SourceStore, attributes: StoreAttributes) -> list[Any]:
    """Return the rules by which pixels are made from a scene."""
    catalog = stored.metadata["catalog"]
    variant = _restrict(stored.metadata["variant"], attributes)
    rules = {sensor: catalog["sensors"].get(sensor) for sensor in attributes.sensors}
    return [catalog["name"], rules, variant["modality"]]


def _restrict(variant: Mapping[str, Any], attributes: StoreAttributes) -> dict[str, Any]:
    """Return a variant as JSON with only the modalities of a store."""
    rows = [row for row in variant["modality"] if row["name"] in attributes.modalities]
    return {**variant, "name": attributes.variant, "modality": rows}
