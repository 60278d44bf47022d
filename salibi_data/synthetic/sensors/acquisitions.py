"""The acquisitions of the sample catalog: dates, passes and quads, and their names.

Names, orbits and times follow the real products' conventions, so that code which reads meaning
from them works here, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from salibi_data.synthetic.frame import MGRS_TILE, Bounds, Frame
from salibi_data.synthetic.sensors.optics import Sun

NAIP_PIXEL_M: Final = 0.6
NAIP_MARGIN_M: Final = 150.0
QUAD_OVERLAP_M: Final = 200.0
SENTINEL2_MARGIN_M: Final = 440.0
SENTINEL1_MARGIN_M: Final = 600.0
OFFSET_BASELINE: Final = "04.00"
"""First processing baseline whose digital numbers carry +1000."""
_SUN_AT_OVERPASS: Final = Sun(azimuth_deg=143.0, elevation_deg=62.0)


@dataclass(frozen=True, kw_only=True)
class Granule:
    """One Sentinel-2 product."""

    acquired_utc: datetime
    generated_utc: datetime
    platform: str
    baseline: str
    orbit_number: int
    cloud_cover: float
    """Share of the whole landscape under opaque cloud; the item's figure is measured."""
    cloud_kind: str
    cirrus_cover: float = 0.0
    gain: float = 1.0
    """What another processor version makes of the same light."""

    relative_orbit: int = 69
    sun: Sun = _SUN_AT_OVERPASS

    @property
    def has_offset(self) -> bool:
        """Whether +1000 is in the digital numbers. Baselines compare as text: two digits each."""
        return self.baseline >= OFFSET_BASELINE

    @property
    def id(self) -> str:
        """Item id, as the Planetary Computer forms it."""
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
    absolute_orbit: int
    relative_orbit: int
    has_edge: bool = False
    """The swath ends inside the file: what lies beyond is nodata."""

    @property
    def stopped_utc(self) -> datetime:
        """A slice of the swath takes 25 seconds."""
        return self.started_utc + timedelta(seconds=25)

    @property
    def datatake(self) -> int:
        """Mission data take, a number that grows a little under eight times as fast as orbits."""
        return int(self.absolute_orbit * 7.8)

    @property
    def id(self) -> str:
        """Item id, as the Planetary Computer forms it."""
        return (
            f"S1A_IW_GRDH_1SDV_{_compact(self.started_utc)}_{_compact(self.stopped_utc)}"
            f"_{self.absolute_orbit:06d}_{self.datatake:06X}_rtc"
        )


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One year of NAIP."""

    flown_utc: datetime
    delivered: str
    sun: Sun
    is_whole: bool
    """False: only the western quads."""

    @property
    def year(self) -> int:
        """The year that NAIP's naming calls the imagery by."""
        return self.flown_utc.year


@dataclass(frozen=True, kw_only=True)
class Quad:
    """A quarter quadrangle, cropped to the sample area; bounds in local metres."""

    name: str
    """USGS number of the 7.5-minute quadrangle and the quarter of it."""
    bounds: Bounds
    is_western: bool

    def item_id(self, flight: Flight) -> str:
        """Item id, as the Planetary Computer forms it."""
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
"""Five dates; the fourth was processed twice."""

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
        is_whole=True,
    ),
    Flight(
        flown_utc=_utc("2021-08-07T16:00:00"),
        delivered="20211122",
        sun=Sun(azimuth_deg=148.0, elevation_deg=58.0),
        is_whole=False,
    ),
)


def quads(frame: Frame) -> tuple[Quad, ...]:
    """The four quarter quads that meet in the sample area, with their overlaps."""
    west, south, east, north = frame.outward(NAIP_MARGIN_M, NAIP_PIXEL_M)
    half_m = QUAD_OVERLAP_M / 2
    x, y = (round(at / NAIP_PIXEL_M) * NAIP_PIXEL_M for at in frame.quad_corner)
    half_m = round(half_m / NAIP_PIXEL_M) * NAIP_PIXEL_M
    upper, lower = (y - half_m, north), (south, y + half_m)
    left, right = (west, x + half_m), (x - half_m, east)
    # 42 degrees north parts two one-degree blocks, hence the two numbers.
    return (
        Quad(name="4209261_sw", bounds=(left[0], upper[0], left[1], upper[1]), is_western=True),
        Quad(name="4109205_nw", bounds=(left[0], lower[0], left[1], lower[1]), is_western=True),
        Quad(name="4209261_se", bounds=(right[0], upper[0], right[1], upper[1]), is_western=False),
        Quad(name="4109205_ne", bounds=(right[0], lower[0], right[1], lower[1]), is_western=False),
    )
