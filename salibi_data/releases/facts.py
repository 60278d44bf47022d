"""Facts about a published store that its cards state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.inspection.info import info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from salibi_data.store.manifest import ManifestEntry
    from salibi_data.store.open import StoreFiles
    from salibi_data.store.schema import Release, StoreAttributes


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """Facts about a store for its cards."""

    release: Release
    attributes: StoreAttributes
    info: Mapping[str, Any]
    """Result of :func:`salibi_data.inspection.info.info`."""
    bounds_lonlat: tuple[float, float, float, float]
    """Bounds (west, south, east, north) in degrees around all samples."""
    manifest: Mapping[str, ManifestEntry]
    columns: Any
    """Schema of the table of the samples (pyarrow)."""
    has_figure: bool

    @property
    def licences(self) -> list[str]:
        """Licences of the modalities, each once, in their order."""
        return list(dict.fromkeys(m.licence or "unknown" for m in self._modalities))

    @property
    def attributions(self) -> list[str]:
        """Attributions of the modalities, each once."""
        return list(dict.fromkeys(m.attribution for m in self._modalities if m.attribution))

    @property
    def dates(self) -> tuple[str, str] | None:
        """First and last day of any sensor; None where none is known."""
        days = sorted(day for span in self.info["acquired"].values() for day in span if day)
        return (days[0], days[-1]) if days else None

    @property
    def summary(self) -> str:
        """Summary of the dataset in one sentence."""
        names = ", ".join(self.attributes.modalities)
        return (
            f"{self.release.samples} samples of aligned satellite images ({names}) at base zoom "
            f"{self.attributes.base_zoom}, one Zarr group."
        )

    @property
    def _modalities(self) -> list[Any]:
        return list(self.attributes.modalities.values())


def release_facts(files: StoreFiles, release: Release, *, has_figure: bool) -> ReleaseFacts:
    """Read what the cards state from a store's files."""
    import shapely

    _, attributes = files.open()
    table, _ = files.samples()
    outlines = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    west, south, east, north = np.round(shapely.total_bounds(outlines), 6).tolist()
    return ReleaseFacts(
        release=release,
        attributes=attributes,
        info=info(files.where),
        bounds_lonlat=(west, south, east, north),
        manifest=files.manifest(),
        columns=table.schema,
        has_figure=has_figure,
    )
