"""Describes a published dataset as a STAC collection, for catalogs and maps.

Source: STAC 1.1 collection specification, https://github.com/radiantearth/stac-spec.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

from salibi_data.store.schema import SAMPLES_NAME

if TYPE_CHECKING:
    from salibi_data.releases.facts import ReleaseFacts

ZARR_TYPE = "application/vnd.zarr; version=3"
PARQUET_TYPE = "application/vnd.apache.parquet"


def stac_collection(facts: ReleaseFacts, *, card: str) -> dict[str, Any]:
    """Make the collection, with the store and the table of its samples as assets."""
    import pystac

    spatial = pystac.SpatialExtent([list(facts.bounds_lonlat)])
    temporal = pystac.TemporalExtent([_interval(facts)])
    licences = facts.licences
    collection = pystac.Collection(
        id=facts.release.dataset,
        title=facts.release.dataset,
        description=facts.summary,
        extent=pystac.Extent(spatial, temporal),
        license=licences[0] if len(licences) == 1 and licences[0] != "unknown" else "other",
        providers=[pystac.Provider(name=name) for name in facts.attributions] or None,
        keywords=["satellite", "multi-modal", *facts.attributes.sensors],
        summaries=pystac.Summaries(
            {
                "gsd": sorted({round(value, 3) for value in facts.info["gsd_m"]}),
                "salibi:splits": facts.info["splits"],
                "salibi:modalities": list(facts.attributes.modalities),
            }
        ),
        assets={
            "store": pystac.Asset("./store.zarr", "Samples", media_type=ZARR_TYPE, roles=["data"]),
            "samples": pystac.Asset(
                f"./store.zarr/{SAMPLES_NAME}",
                "Index of the samples (GeoParquet)",
                media_type=PARQUET_TYPE,
                roles=["metadata"],
            ),
            "card": pystac.Asset(
                f"./{card}", "Dataset card", media_type="text/markdown", roles=["metadata"]
            ),
        },
    )
    return dict(collection.to_dict(include_self_link=False, transform_hrefs=False))


def _interval(facts: ReleaseFacts) -> list[datetime | None]:
    """Interval from the start of the first day to the end of the last; open where no day is known."""
    if facts.dates is None:
        return [None, None]
    first, last = (datetime.fromisoformat(day) for day in facts.dates)
    return [
        datetime.combine(first, time.min, tzinfo=UTC),
        datetime.combine(last, time(23, 59, 59), tzinfo=UTC),
    ]
