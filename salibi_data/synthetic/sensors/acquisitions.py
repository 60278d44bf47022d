"""Lists the acquisitions of the sample catalog: granules, passes, flights and quads, with names.

Names, orbits and times follow the conventions of the real products, so that code which parses them
works on the sample as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from salibi_data.synthetic.frame import MGRS_TILE, Bounds, Frame
from salibi_data.synthetic.sensors.optics import Sun

NAIP_PIXEL_M: Final = 0.6
NAIP_MARGIN_M: Final = 150.0
"""Margin of the NAIP images around the sample area."""
QUAD_OVERLAP_M: Final = 200.0
SENTINEL2_MARGIN_M: Final = 440.0
"""Margin of the Sentinel-2 scenes around the sample area."""
SENTINEL1_MARGIN_M: Final = 600.0
"""Margin of the Sentinel-1 scenes around the sample area."""
OFFSET_BASELINE: Final = "04.00"
"""First processing baseline with an offset of +1000 in the digital numbers."""
_SUN_AT_OVERPASS: Final = Sun(azimuth_deg=143.0, elevation_deg=62.0)


@dataclass(frozen=True, kw_only=True)
class Granule:
    """One Sentinel-2 Level-2A product."""

    acquired_utc: datetime
    generated_utc: datetime
    """Time of processing."""
    platform: str
    """Satellite, ``S2A`` or ``S2B``."""
    baseline: str
    """Processing baseline, such as ``04.00``."""
    orbit_number: int
    """Absolute orbit."""
    cloud_cover: float
    """Share of the whole landscape under opaque cloud; the item states the image's own share."""
    cloud_kind: str
    """Pattern of the clouds, ``cumulus`` or ``deck``."""
    cirrus_cover: float = 0.0
    """Share of the whole landscape under cirrus."""
    gain: float = 1.0
    """Factor on the reflectance, by which a reprocessed product differs."""

    relative_orbit: int = 69
    sun: Sun = _SUN_AT_OVERPASS

    @property
    def has_offset(self) -> bool:
        """Whether the digital numbers have an offset of +1000."""
        # Text compares like numbers here: every baseline has two digits on each side of the dot.
        return self.baseline >= OFFSET_BASELINE

    @property
    def id(self) -> str:
        """Item id in the form of the Planetary Computer."""
        return (
            f"{self.platform}_MSIL2A_{_compact(self.acquired_utc)}_R{self.relative_orbit:03d}"
            f"_T{MGRS_TILE}_{_compact(self.generated_utc)}"
        )

    @property
    def product_uri(self) -> str:
        """Name of the SAFE folder."""
        return (
            self.id.replace(
                f"_R{self.relative_orbit:03d}",
                f"_N{self.baseline.replace('.', '')}_R{self.relative_orbit:03d}",
            )
            + ".SAFE"
        )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One Sentinel-1 overflight."""

    started_utc: datetime
    orbit_state: str
    """Direction of flight, ``ascending`` or ``descending``."""
    absolute_orbit: int
    relative_orbit: int
    has_edge: bool = False
    """Whether the swath ends inside the file; pixels outside the swath are nodata."""

    @property
    def stopped_utc(self) -> datetime:
        """End of the acquisition."""
        # A GRD slice takes 25 seconds.
        return self.started_utc + timedelta(seconds=25)

    @property
    def datatake(self) -> int:
        """Number of the mission data take."""
        # Real numbers grow a little less than eight times as fast as the orbits.
        return int(self.absolute_orbit * 7.8)

    @property
    def id(self) -> str:
        """Item id in the form of the Planetary Computer."""
        return (
            f"S1A_IW_GRDH_1SDV_{_compact(self.started_utc)}_{_compact(self.stopped_utc)}"
            f"_{self.absolute_orbit:06d}_{self.datatake:06X}_rtc"
        )


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One NAIP campaign."""

    flown_utc: datetime
    delivered: str
    """Date of delivery, YYYYMMDD."""
    sun: Sun
    covers_all_quads: bool
    """Whether all quads were flown; if not, only the western ones."""

    @property
    def year(self) -> int:
        """Year of the imagery in NAIP's naming."""
        return self.flown_utc.year


@dataclass(frozen=True, kw_only=True)
class Quad:
    """Quarter quadrangle of NAIP, cropped to the sample area."""

    name: str
    """USGS number of the 7.5-minute quadrangle, and its quarter, such as ``4209261_sw``."""
    bounds: Bounds
    """West, south, east, north in local metres."""
    is_western: bool

    def item_id(self, flight: Flight) -> str:
        """Return the item id in the form of the Planetary Computer."""
        day = f"{flight.flown_utc:%Y%m%d}"
        return f"ia_m_{self.name}_15_060_{day}_{flight.delivered}"


def _compact(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S}"


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_CLEAR_2022: Final = Granule(
    acquired_utc=_utc("2022-07-19T17:08:59.024"),
    generated_utc=_utc("2022-07-20T02:41:17"),
    platform="S2B",
    baseline="04.00",
    orbit_number=28046,
    cloud_cover=0.03,
    cloud_kind="cumulus",
)

GRANULES: Final = (
    Granule(
        acquired_utc=_utc("2021-07-09T17:09:01.024"),
        generated_utc=_utc("2021-07-10T03:12:45"),
        platform="S2A",
        baseline="03.01",
        orbit_number=31584,
        cloud_cover=0.24,
        cloud_kind="cumulus",
    ),
    Granule(
        acquired_utc=_utc("2021-08-18T17:09:01.024"),
        generated_utc=_utc("2023-01-27T11:05:32"),
        platform="S2A",
        baseline="05.00",
        orbit_number=32156,
        cloud_cover=0.03,
        cloud_kind="cumulus",
    ),
    Granule(
        acquired_utc=_utc("2022-06-29T17:08:59.024"),
        generated_utc=_utc("2022-06-30T05:30:09"),
        platform="S2B",
        baseline="04.00",
        orbit_number=27760,
        cloud_cover=0.45,
        cloud_kind="deck",
    ),
    _CLEAR_2022,
    replace(
        _CLEAR_2022,
        generated_utc=_utc("2024-06-11T20:14:51"),
        baseline="05.10",
        gain=1.012,
    ),
    Granule(
        acquired_utc=_utc("2022-08-13T17:09:01.024"),
        generated_utc=_utc("2022-08-14T00:55:38"),
        platform="S2A",
        baseline="04.00",
        orbit_number=37304,
        cloud_cover=0.05,
        cloud_kind="cumulus",
        cirrus_cover=0.06,
    ),
)
"""Sentinel-2 products of five dates; that of 2022-07-19 was processed twice."""

PASSES: Final = (
    Pass(
        started_utc=_utc("2021-07-10T00:03:11.204"),
        orbit_state="ascending",
        absolute_orbit=38708,
        relative_orbit=136,
    ),
    Pass(
        started_utc=_utc("2021-08-17T12:13:40.881"),
        orbit_state="descending",
        absolute_orbit=39269,
        relative_orbit=172,
    ),
    Pass(
        started_utc=_utc("2022-07-17T00:03:17.537"),
        orbit_state="ascending",
        absolute_orbit=44133,
        relative_orbit=136,
    ),
    Pass(
        started_utc=_utc("2022-07-19T12:13:46.112"),
        orbit_state="descending",
        absolute_orbit=44169,
        relative_orbit=172,
    ),
    Pass(
        started_utc=_utc("2022-08-10T00:03:18.920"),
        orbit_state="ascending",
        absolute_orbit=44483,
        relative_orbit=136,
        has_edge=True,
    ),
)

FLIGHTS: Final = (
    Flight(
        flown_utc=_utc("2022-07-24T16:00:00"),
        delivered="20221103",
        sun=Sun(azimuth_deg=131.0, elevation_deg=57.0),
        covers_all_quads=True,
    ),
    Flight(
        flown_utc=_utc("2021-08-07T16:00:00"),
        delivered="20211122",
        sun=Sun(azimuth_deg=148.0, elevation_deg=58.0),
        covers_all_quads=False,
    ),
)


def quads(frame: Frame) -> tuple[Quad, ...]:
    """Return the four overlapping quarter quads that meet in the sample area."""
    west, south, east, north = frame.expanded_area(NAIP_MARGIN_M, NAIP_PIXEL_M)
    x, y = (round(metres / NAIP_PIXEL_M) * NAIP_PIXEL_M for metres in frame.quad_corner)
    half_overlap_m = round(QUAD_OVERLAP_M / 2 / NAIP_PIXEL_M) * NAIP_PIXEL_M
    west_of_x, east_of_x = x - half_overlap_m, x + half_overlap_m
    south_of_y, north_of_y = y - half_overlap_m, y + half_overlap_m
    # The corner is at 42 degrees north, where one-degree blocks with numbers of their own meet.
    return (
        Quad(name="4209261_sw", bounds=(west, south_of_y, east_of_x, north), is_western=True),
        Quad(name="4109205_nw", bounds=(west, south, east_of_x, north_of_y), is_western=True),
        Quad(name="4209261_se", bounds=(west_of_x, south_of_y, east, north), is_western=False),
        Quad(name="4109205_ne", bounds=(west_of_x, south, east, north_of_y), is_western=False),
    )
