"""Options of a selection: which samples and which modalities of a store are taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from salibi_data.store.schema import SPLITS
from salibi_data.store.validation import check_options, option


@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """Options that ``subset`` and ``pull`` share; what is left out does not narrow the selection.

    Raises:
        UsageError: a value has another type, or is out of its range.
    """

    splits: tuple[str, ...] | None = option(
        None,
        choices=SPLITS,
        flag="--split",
        metavar="A,B",
        help="Only these, such as train,validation.",
    )
    bounds_lonlat: tuple[float, float, float, float] | None = option(
        None,
        flag="--bbox",
        metavar="W,S,E,N",
        unit="degrees",
        help="Only tiles wholly within, in degrees; W > E crosses 180.",
    )
    """(west, south, east, north); longitudes may be of any turn."""
    aoi: Path | str | None = option(
        None,
        metavar="FILE",
        help="Only tiles wholly within a GeoJSON or GeoParquet outline.",
    )
    dates: str | None = option(
        None,
        metavar="A/B",
        help="Only seen within by every sensor, as 2021-05-01/2022-09-30.",
    )
    max_cloud: float | None = option(
        None,
        minimum=0.0,
        maximum=1.0,
        metavar="SHARE",
        help="At most so cloudy, 0..1.",
    )
    max_shift_m: float | None = option(
        None,
        minimum=0.0,
        finite=False,
        flag="--max-shift",
        metavar="METRES",
        unit="m",
        help="Maximum misalignment of two sensors, in metres.",
    )
    limit: int | None = option(None, minimum=1, help="At most so many samples, drawn evenly.")
    """Drawn reproducibly from all that match."""
    modalities: tuple[str, ...] | None = option(
        None, metavar="A,B", help="Only these, such as sar,lores; default all."
    )
    """Names of arrays; they keep the store's order."""

    def __post_init__(self) -> None:
        check_options(self)
