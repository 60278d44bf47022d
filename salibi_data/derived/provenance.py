"""What a store made of others says of its origin, and whether its samples can be read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from salibi_data.derived.source_store import SourceStore
    from salibi_data.store.schema import StoreAttributes

NO_SOURCES_KEY: Final = "no_sources"
"""Key of the table's metadata under which a sentence says why no sample can be read again."""

_OF_SOURCES: Final = "Of its sources: "


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What was done with which stores."""

    asked: Mapping[str, Any]
    sources: tuple[Mapping[str, Any], ...]
    """Of each store what it was, its checksum, and what it was made from in turn."""

    @classmethod
    def of(cls, asked: Mapping[str, Any], sources: Sequence[SourceStore]) -> Provenance:
        """The origin of a store that is made of these."""
        return cls(asked=asked, sources=tuple(_told(stored) for stored in sources))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as it is kept in ``samples.parquet``."""
        return {**self.asked, "sources": [dict(source) for source in self.sources]}


def notes_of_sources(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes of stores as notes of one made of them: what they count is there no longer."""
    return tuple(_OF_SOURCES + note.removeprefix(_OF_SOURCES) for note in notes)


def _told(stored: SourceStore) -> dict[str, Any]:
    attributes = stored.attributes
    earlier = {
        key: stored.about[key]
        for key in ("request", "archives", "made_from")
        if key in stored.about
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
    """The variant, the catalog's rules and the scenes of a store made of others.

    Args:
        sources: the others.
        attributes: of the new store.
        used: per sensor ids of the scenes that its samples are from.
        variant: fields in which its variant differs from the first source's.

    Returns:
        What :func:`~salibi_data.inspection.source_check.compare_with_sources` needs to read samples again; or a
        sentence under :data:`NO_SOURCES_KEY` where that cannot be done.
    """
    variants = [stored.about["variant"] for stored in sources if "variant" in stored.about]
    about: dict[str, Any] = {}
    if variants:
        about["variant"] = {**_narrowed(variants[0], attributes), **variant}
    reason = _why_not_again(sources, attributes)
    if reason is not None:
        return {**about, NO_SOURCES_KEY: reason}
    scenes: dict[str, dict[str, Any]] = {sensor: {} for sensor in used}
    for stored in reversed(sources):  # of one scene, what the first store says is kept
        for sensor, ids in used.items():
            found = stored.about["scenes"][sensor]
            scenes[sensor].update({scene["id"]: scene for scene in found if scene["id"] in ids})
    about["catalog"] = sources[0].about["catalog"]
    about["scenes"] = {
        sensor: [scene for _, scene in sorted(of_sensor.items())]
        for sensor, of_sensor in scenes.items()
    }
    return about


def _why_not_again(sources: Sequence[SourceStore], attributes: StoreAttributes) -> str | None:
    """Why no sample can be read again from its sources; None where each can."""
    for stored in sources:
        if not {"variant", "catalog", "scenes"} <= set(stored.about):
            told: str = stored.about.get(
                NO_SOURCES_KEY, "a store it was made from does not say what its images are from"
            )
            return told
    first, *others = (_reading(stored, attributes) for stored in sources)
    if any(other != first for other in others):
        return "the stores it was made from were read from different catalogs, or by other rules"
    return None


def _reading(stored: SourceStore, attributes: StoreAttributes) -> list[Any]:
    """What decides the pixels that a scene gives."""
    catalog, variant = stored.about["catalog"], _narrowed(stored.about["variant"], attributes)
    rules = {sensor: catalog["sensors"].get(sensor) for sensor in attributes.sensors}
    return [catalog["name"], rules, variant["modality"]]


def _narrowed(variant: Mapping[str, Any], attributes: StoreAttributes) -> dict[str, Any]:
    """A variant as JSON with the modalities of a store alone."""
    kept = [row for row in variant["modality"] if row["name"] in attributes.modalities]
    return {**variant, "name": attributes.variant, "modality": kept}
