"""What a variant's regions hold and what building it will take, before any catalog is asked.

Tiles are counted on the grid itself, after the guard between splits. How many of them a catalog can
serve is assumed: the constants here and in :mod:`salibi_data.plans.sampling` say what and why.
`salibi-data plan` then asks the catalog, and `salibi-data status` measures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import check_fit
from salibi_data.forecasts.costs import Work
from salibi_data.plans import sampling as lots
from salibi_data.plans import splits
from salibi_data.plans.estimate import Tally
from salibi_data.plans.picks import CellSelection
from salibi_data.store.tiles import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variant_rows import Region
    from salibi_data.catalog.variants import Variant

FOUND_SHARE: Final = 0.95
"""Of tiles on land, those for which all sensors are expected to have a scene; assumed.

NAIP covers the continental U.S. whole, Sentinel-2 passes every five days, and Sentinel-1 every
twelve, which 15 days around Sentinel-2's date hold. What is missing is NAIP where quads of one year
do not meet, and Sentinel-1 where it skipped a pass.
"""


@dataclass(frozen=True, kw_only=True)
class RegionForecast:
    """What one region holds."""

    region: Region
    num_candidates: int
    """All its tiles at the base zoom."""
    num_guarded: int
    """Those that the guard between splits leaves."""
    num_available: int
    """Those of them expected to be on land and to have all scenes."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a variant's regions hold, and what there is to do to build it."""

    regions: tuple[RegionForecast, ...]
    target_samples: int
    work: Work
    """Until the target has passed the filters: of the tiles, at most those available are read."""

    @property
    def num_candidates(self) -> int:
        """Tiles of all regions."""
        return sum(region.num_candidates for region in self.regions)

    @property
    def num_guarded(self) -> int:
        """Those that the guard leaves."""
        return sum(region.num_guarded for region in self.regions)

    @property
    def num_available(self) -> int:
        """Those expected to have all scenes."""
        return sum(region.num_available for region in self.regions)

    @property
    def margin(self) -> float:
        """The margin over its own target."""
        return self.margin_of(self.target_samples)

    def margin_of(self, target: int) -> float:
        """Samples expected if all were built, over a target: below 1 it is not reached."""
        return self.num_available * lots.SURVIVING_SHARE / target


def forecast(variant: Variant, catalog: Catalog) -> Forecast | None:
    """What to expect of a variant; None where it has no regions or no target.

    Bytes are those of :class:`~salibi_data.plans.estimate.Tally` on tiles drawn as a plan draws them, as
    if one scene of each sensor's usual pixel covered every tile: quads of NAIP that meet within a
    block are read once each, and come on top.

    Args:
        variant: what is to be built.
        catalog: what from; it is not asked.

    Raises:
        UsageError: the catalog cannot give what the variant needs.
    """
    check_fit(variant, catalog)
    if variant.target_samples is None or not variant.regions:
        return None
    zoom, target = variant.base_zoom, variant.target_samples
    # What a variant is called and aims at does not count: `small` shares what is counted of `full`.
    regions, (x, y) = _counted(replace(variant, name="any", summary="", target_samples=None))
    drawn = np.argsort(lots.lot(zoom, x, y))[: lots.num_read(target)]
    tiles = Tiles(zoom=zoom, x=x[drawn], y=y[drawn])
    return Forecast(
        regions=regions,
        target_samples=target,
        work=work_of(variant, catalog, tiles, num_kept=target),
    )


@lru_cache(maxsize=8)
def _counted(variant: Variant) -> tuple[tuple[RegionForecast, ...], NDArray[np.int64]]:
    """What each region holds, and columns and rows of all available tiles, (2, N)."""
    regions, columns = [], []
    for region in variant.regions:
        span = region.span(variant.base_zoom)
        xy = np.stack(span.tiles(), axis=1)
        if variant.split_by == "blocks":
            xy = xy[splits.guarded(variant, *xy.T)]
        # Land is taken to be in one piece, so that neighbours share what is read for them.
        available = xy[: round(len(xy) * region.land_share * FOUND_SHARE)]
        columns.append(available)
        regions.append(
            RegionForecast(
                region=region,
                num_candidates=span.num_tiles,
                num_guarded=len(xy),
                num_available=len(available),
            )
        )
    return tuple(regions), np.concatenate(columns).T


def work_of(variant: Variant, catalog: Catalog, tiles: Tiles, *, num_kept: int) -> Work:
    """What reading some tiles takes where one scene of each sensor covers them all."""
    scenes = {
        name: Scene(
            id=name,
            sensor=name,
            acquired_utc=datetime(2000, 1, 1, tzinfo=UTC),
            footprint={},
            hrefs={},
            properties={},
        )
        for name in variant.sensors
    }
    tally = Tally(variant, catalog)
    tally.add(
        CellSelection(
            tiles=tiles,
            sets={name: [(scene,)] for name, scene in scenes.items()},
            code={name: np.zeros(len(tiles), dtype=np.int64) for name in scenes},
            cloud_fraction=np.full(len(tiles), np.nan, dtype=np.float32),
            lost={},
        )
    )
    return Work(
        num_read=len(tiles),
        num_kept=num_kept,
        num_files=tally.num_files.total(),
        num_warped_px=tally.num_warped_px.total(),
        source_bytes=tally.num_bytes.total(),
        source_requests=tally.num_requests.total(),
        store_bytes=num_kept * variant.bytes_per_sample,
        read_usd=tally.summary()["usd"],
    )
