"""Predicts how many samples a variant's regions give, and the workload, without asking a catalog.

Tiles are counted exactly, on the grid, after the guard between splits. The share of them that a
catalog can serve is assumed; the constants here and in :mod:`salibi_data.plans.sampling` give the
reasons. `salibi-data plan` asks the catalog, and `salibi-data status` measures a running build.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import check_fit
from salibi_data.forecasts.costs import Workload
from salibi_data.plans import sampling, splits
from salibi_data.plans.estimate import Tally
from salibi_data.plans.picks import CellSelection
from salibi_data.store.tiles import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variant_rows import Region
    from salibi_data.catalog.variants import Variant

AVAILABLE_SHARE: Final = 0.95
"""Share of the tiles on land for which every sensor has a scene; assumed.

NAIP covers the whole continental U.S. Sentinel-2 passes every five days. Sentinel-1 passes every
twelve days, which is within 15 days of Sentinel-2's date. Some tiles lack NAIP, where the quads of
one year leave a gap, or Sentinel-1, where it skipped a pass.
"""


@dataclass(frozen=True, kw_only=True)
class RegionForecast:
    """Number of tiles in one region."""

    region: Region
    num_candidates: int
    """Number of all tiles at the base zoom."""
    num_guarded: int
    """Number of candidates outside the guard between splits."""
    num_available: int
    """Expected number of those that lie on land and have scenes of all sensors."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Number of tiles in a variant's regions, and the workload of building the variant."""

    regions: tuple[RegionForecast, ...]
    target_samples: int
    """Number of samples that the variant asks for."""
    workload: Workload
    """Work until the target has passed the filters, or until no available tile is left."""

    @property
    def num_candidates(self) -> int:
        """Number of tiles in all regions."""
        return sum(region.num_candidates for region in self.regions)

    @property
    def num_guarded(self) -> int:
        """Number of tiles outside the guard, in all regions."""
        return sum(region.num_guarded for region in self.regions)

    @property
    def num_available(self) -> int:
        """Expected number of tiles with scenes of all sensors, in all regions."""
        return sum(region.num_available for region in self.regions)

    @property
    def margin(self) -> float:
        """Margin over the variant's own target; see :meth:`margin_over`."""
        return self.margin_over(self.target_samples)

    def margin_over(self, target: int) -> float:
        """Return the samples expected of all tiles, divided by a target; below 1 is too few."""
        return self.num_available * sampling.SURVIVING_SHARE / target


def forecast(variant: Variant, catalog: Catalog) -> Forecast | None:
    """Predict the samples and the workload of a variant; None if it has no regions or no target.

    :class:`~salibi_data.plans.estimate.Tally` counts the bytes of tiles drawn as a plan draws them, as
    if one scene of each sensor covered all of them at the sensor's usual pixel size. Where several
    NAIP quads meet in a block, a build reads all of them, which is not counted.

    Args:
        variant: variant to build.
        catalog: sources to build from; no request is sent to it.

    Raises:
        UsageError: the catalog cannot give what the variant needs.

    Example:
        >>> variant = salibi_data.load_variant("small")
        >>> provider = salibi_data.load_catalog("planetary-computer")
        >>> salibi_data.forecast(variant, provider).target_samples > 0
        True
    """
    check_fit(variant, catalog)
    if variant.target_samples is None or not variant.regions:
        return None
    zoom, target = variant.base_zoom, variant.target_samples
    # The cache key leaves out name and target, so that `small` shares the count of `full`.
    regions, (x, y) = _count_regions(replace(variant, name="any", summary="", target_samples=None))
    drawn = np.argsort(sampling.sampling_hash(zoom, x, y))[: sampling.expected_reads(target)]
    tiles = Tiles(zoom=zoom, x=x[drawn], y=y[drawn])
    return Forecast(
        regions=regions,
        target_samples=target,
        workload=estimate_workload(variant, catalog, tiles, num_samples=target),
    )


@lru_cache(maxsize=8)
def _count_regions(variant: Variant) -> tuple[tuple[RegionForecast, ...], NDArray[np.int64]]:
    """Return the counts of each region, and x and y of all available tiles, shape (2, num)."""
    regions, available_xy = [], []
    for region in variant.regions:
        span = region.span(variant.base_zoom)
        xy = np.stack(span.tiles(), axis=1)
        if variant.split_by == "blocks":
            xy = xy[splits.outside_guard(variant, *xy.T)]
        # The first tiles stand for the land: available tiles should be neighbours, as on a coast,
        # because neighbours share what is read for them.
        available = xy[: round(len(xy) * region.land_share * AVAILABLE_SHARE)]
        available_xy.append(available)
        regions.append(
            RegionForecast(
                region=region,
                num_candidates=span.num_tiles,
                num_guarded=len(xy),
                num_available=len(available),
            )
        )
    return tuple(regions), np.concatenate(available_xy).T


def estimate_workload(
    variant: Variant, catalog: Catalog, tiles: Tiles, *, num_samples: int
) -> Workload:
    """Estimate the work of reading tiles, as if one scene of each sensor covered all of them.

    Args:
        variant: variant to build.
        catalog: sources to build from; no request is sent to it.
        tiles: tiles to read.
        num_samples: number of samples that the store will have.
    """
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
    return Workload(
        num_read=len(tiles),
        num_samples=num_samples,
        num_files=tally.num_files.total(),
        num_warped_px=tally.num_warped_px.total(),
        source_bytes=tally.num_bytes.total(),
        source_requests=tally.num_requests.total(),
        store_bytes=num_samples * variant.bytes_per_sample,
        read_usd=tally.summary()["usd"],
    )
