"""Rows of a variant's TOML file: modalities, rules for choosing scenes, alignment, regions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from salibi_data.catalog.providers import Units  # noqa: TC001 - read at run time
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import Bounds, Span, tile_bounds
from salibi_data.store.validation import check_record, option

LandCover = Literal[
    "city",
    "coast",
    "crops",
    "desert",
    "forest",
    "grassland",
    "mountains",
    "snow",
    "wetland",
]
"""Land covers for which a region may be chosen."""

Rank = Literal["newest", "cloud", "time"]
"""A criterion by which scenes are ranked."""

MAX_ZOOM_OFFSET: Final = 4
"""Largest zoom offset of a modality: 4096 px per sample; larger blocks would not fit in memory."""

MAX_WITHIN_DAYS: Final = 36_525
"""Longest time between two scenes of a sample, a century, so that dates stay in Python's range."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def check_name(what: str, name: str) -> None:
    """Check that a name is a valid file name on every system, and part of a URL.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError(
            f"a {what} is named {name!r}; expected a letter, then letters, digits, _ and - (64 at "
            "most)"
        )


@dataclass(frozen=True, kw_only=True)
class SelectionRule:
    """Rule by which scenes of one sensor are chosen for a tile."""

    sensor: str
    """Name of the sensor."""
    rank: tuple[Rank, ...]
    """Criteria that order candidates, the most important first; ``time`` is closeness to ``near``."""
    near: str | None = None
    """Sensor to whose date this one should be close."""
    within_days: float | None = option(None, minimum=0, maximum=MAX_WITHIN_DAYS)
    """Maximum difference of the dates, in days; None for any."""

    def __post_init__(self) -> None:
        check_record(self)
        if not self.rank:
            ranks = ", ".join(get_args(Rank))
            raise ValueError(f"rank of {self.sensor} is empty; expected some of {ranks}")
        if self.near == self.sensor:
            raise ValueError(f"near of {self.sensor} is itself; name a sensor chosen before it")


@dataclass(frozen=True, kw_only=True)
class ModalityRecipe:
    """One image array of a variant, and its source."""

    name: str
    """Name of the array."""
    sensor: str
    """Sensor in the catalog."""
    product: str
    """Product of the sensor."""
    bands: tuple[str, ...]
    """Bands of the product, in the order of the array."""
    units: Units
    """Physical units of the values before storage."""
    zoom_offset: int = option(0, minimum=0, maximum=MAX_ZOOM_OFFSET)
    """Zoom of the pixels minus the variant's base zoom."""
    range: tuple[tuple[float, float], ...] = ()
    """Physical (low, high) per band, stored as 1 and 255; empty for ``display``."""

    def __post_init__(self) -> None:
        check_record(self)
        check_name("modality", self.name)
        if not self.bands:
            raise ValueError(f"bands of {self.name} is empty; expected a list of names")
        if len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands of {self.name} is {list(self.bands)}; name each band once")
        if self.units != "display" and len(self.range) != len(self.bands):
            raise ValueError(
                f"modality {self.name!r} in {self.units} needs a range per band: "
                f"{len(self.bands)} bands, {len(self.range)} ranges"
            )
        if not all(-math.inf < low < high < math.inf for low, high in self.range):
            raise ValueError(f"a range of {self.name} is not (low, high): {self.range}")

    @property
    def tile_px(self) -> int:
        """Pixels per edge of the image."""
        return int(TILE_PX * 2**self.zoom_offset)

    @property
    def scale(self) -> tuple[float, ...]:
        """Physical units per stored step, per band."""
        if self.units == "display":
            return (1.0,) * len(self.bands)
        return tuple((high - low) / 254 for low, high in self.range)

    @property
    def offset(self) -> tuple[float, ...]:
        """Physical value of a stored 0, per band (0 itself means nodata)."""
        if self.units == "display":
            return (0.0,) * len(self.bands)
        return tuple(low - (high - low) / 254 for low, high in self.range)


@dataclass(frozen=True, kw_only=True)
class AlignmentPair:
    """Two modalities on the same pixels, whose misalignment is measured."""

    modality: str
    """Modality whose shift is measured."""
    reference: str
    """Modality that counts as unshifted."""

    def __post_init__(self) -> None:
        check_record(self)
        if self.modality == self.reference:
            raise ValueError(f"alignment is of {self.modality} with itself; name two modalities")


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named parent tile whose children are candidates for samples."""

    name: str
    """Name of the region."""
    tile: str
    """Parent tile, ``zoom/column/row``."""
    reason: str
    """Reason for choosing it, for people."""
    kinds: tuple[LandCover, ...] = ()
    """Land covers for which it was chosen."""
    land_share: float = option(1.0, above=0, maximum=1)
    """Share of the tile that the sensor of least coverage is expected to cover: NAIP ends at the border
    and at the open sea. An estimate from maps, used in forecasts only."""

    def __post_init__(self) -> None:
        check_record(self)
        tile = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,9})/([0-9]{1,9})", self.tile)
        zoom, x, y = (int(part) for part in tile.groups()) if tile else (0, 1, 1)
        if max(x, y) >= 2**zoom:
            raise ValueError(
                f"tile of region {self.name!r} is {self.tile!r}; expected zoom/column/row of a "
                "tile of the grid, such as 10/245/380"
            )

    @property
    def zoom(self) -> int:
        """Zoom of the parent tile."""
        return int(self.tile.split("/")[0])

    def span(self, zoom: int) -> Span:
        """Return the child tiles at a zoom."""
        own, x, y = (int(part) for part in self.tile.split("/"))
        return Span(x, y, x + 1, y + 1).children(zoom - own)

    @property
    def bounds_lonlat(self) -> Bounds:
        """(west, south, east, north) in degrees."""
        zoom, x, y = (int(part) for part in self.tile.split("/"))
        west, south, east, north = tile_bounds(zoom, [x], [y])[0].tolist()
        return west, south, east, north
