"""Options of a plan: each is one field, with its default, range and help text.

``plan``, ``build`` and their commands take defaults and help from here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from salibi_data.store.validation import check_options, option


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Limits of a plan's area, time, number and quality.

    Raises:
        UsageError: a value has another type, or is out of its range.
    """

    bounds_lonlat: tuple[float, float, float, float] | None = option(
        None,
        flag="--bbox",
        metavar="W,S,E,N",
        unit="degrees",
        help="Only tiles wholly within, in degrees; W > E crosses 180.",
    )
    """(west, south, east, north); longitudes may be of any turn, see :func:`boxes_on_globe`."""
    aoi: Path | str | None = option(
        None,
        metavar="FILE",
        help="Only tiles wholly within a GeoJSON or GeoParquet outline.",
    )
    dates: str | None = option(
        None, metavar="A/B", help="Only scenes within, such as 2021-05-01/2022-09-30."
    )
    """Limits every sensor."""
    limit: int | None = option(None, minimum=1, help="At most so many samples.")
    """Drawn evenly and reproducibly from all that can be made."""
    max_cloud: float | None = option(
        None,
        minimum=0.0,
        maximum=1.0,
        metavar="SHARE",
        help="Score clouds over each tile while planning; at most this share (0..1).",
    )
    allow_grd: bool = option(False, help="Take Sentinel-1 GRD where a catalog has no RTC.")

    def __post_init__(self) -> None:
        check_options(self)
        if self.bounds_lonlat is not None:
            from salibi_data.store.tiles import boxes_on_globe

            boxes_on_globe(self.bounds_lonlat)

    @property
    def is_narrowed(self) -> bool:
        """Whether anything of it is given."""
        return any(getattr(self, each.name) != each.default for each in fields(Scope))

    def scope_arguments(self) -> dict[str, Any]:
        """The limits by name, as keywords of ``plan`` and ``build``."""
        return {each.name: getattr(self, each.name) for each in fields(Scope)}


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Scope):
    """Options of the command ``salibi-data plan``."""

    catalog: str = option(
        "planetary-computer", help="Catalog: a name from `catalogs`, or a TOML file."
    )
    max_bytes: int | None = option(
        None,
        minimum=0,
        unit="bytes",
        metavar="SIZE",
        help="Refuse to read more from the sources, such as 500GB.",
    )
