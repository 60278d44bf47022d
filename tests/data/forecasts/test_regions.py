"""The variants' regions: where they are, that they are enough, and that the page says the same."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from types import ModuleType
from typing import get_args

import mercantile
import numpy as np
import pytest

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.variant_rows import LandCover, Region
from salibi_data.catalog.variants import load_variant
from salibi_data.forecasts.regions import Forecast, forecast
from salibi_data.plans import splits
from tests.support.data.samples import run
from tests.support.data.tiles import tiles_within
from tests.support.paths import ROOT

NAMES = ("small", "full", "micro")
CATALOG = load_catalog("planetary-computer")

PLACES_LONLAT = {
    "olympic-peninsula": ("Hoh Rain Forest", -123.93, 47.86),
    "olympic-rain-forest": ("Hoh Rain Forest", -123.93, 47.86),
    "north-cascades": ("Glacier Peak", -121.11, 48.11),
    "mount-baker": ("Mount Baker", -121.81, 48.78),
    "palouse": ("Pullman", -117.18, 46.73),
    "central-valley": ("Madera", -120.06, 36.96),
    "death-valley": ("Badwater", -116.77, 36.23),
    "inland-empire": ("Riverside", -117.38, 33.98),
    "snake-river-plain": ("Twin Falls", -114.46, 42.56),
    "salt-lake": ("Salt Lake City", -111.89, 40.76),
    "sonoran-desert": ("Phoenix", -112.07, 33.45),
    "phoenix": ("Phoenix", -112.07, 33.45),
    "canyonlands": ("Hanksville", -110.71, 38.37),
    "yellowstone": ("Old Faithful", -110.83, 44.46),
    "high-rockies": ("Mount Elbert", -106.45, 39.12),
    "leadville": ("Mount Elbert", -106.45, 39.12),
    "front-range": ("Denver", -104.99, 39.74),
    "golden": ("Golden", -105.22, 39.76),
    "white-sands": ("White Sands", -106.17, 32.78),
    "permian-basin": ("Big Spring", -101.48, 32.25),
    "midland": ("Midland", -102.08, 32.00),
    "badlands": ("Wall", -102.24, 43.99),
    "sandhills": ("Halsey", -100.27, 41.90),
    "kansas-pivots": ("Garden City", -100.87, 37.97),
    "prairie-potholes": ("Streeter", -99.36, 46.66),
    "houston": ("Houston", -95.37, 29.76),
    "iowa-corn-belt": ("Colfax", -93.25, 41.68),
    "arkansas-delta": ("Stuttgart", -91.55, 34.50),
    "arkansas-rice": ("Stuttgart", -91.55, 34.50),
    "mesabi-range": ("Eveleth", -92.54, 47.46),
    "louisiana-swamps": ("Baton Rouge", -91.19, 30.45),
    "bayou-lafourche": ("Thibodaux", -90.82, 29.80),
    "chicago": ("Chicago", -87.63, 41.88),
    "georgia-pinelands": ("Waycross", -82.35, 31.21),
    "waycross": ("Waycross", -82.35, 31.21),
    "appalachian-coalfields": ("Beckley", -81.19, 37.78),
    "new-river-gorge": ("New River Gorge Bridge", -81.08, 38.07),
    "everglades": ("Belle Glade", -80.67, 26.68),
    "belle-glade": ("Belle Glade", -80.67, 26.68),
    "chesapeake-bay": ("Cambridge", -76.08, 38.56),
    "blackwater": ("Blackwater Refuge", -76.11, 38.44),
    "new-york-city": ("Central Park", -73.97, 40.78),
    "maine-woods": ("Katahdin", -68.92, 45.90),
    "katahdin": ("Katahdin", -68.92, 45.90),
    "puerto-rico-centre": ("Utuado", -66.70, 18.27),
    "ponce": ("Ponce", -66.61, 18.01),
    "puerto-rico-east": ("El Yunque", -65.79, 18.31),
    "el-yunque": ("El Yunque", -65.79, 18.31),
}
"""A place that each region is named for or known by."""


def regions() -> Iterator[tuple[str, Region]]:
    for name in NAMES:
        for region in load_variant(name).regions:
            yield name, region


@pytest.fixture(scope="module")
def expected() -> dict[str, Forecast]:
    forecasts = {name: forecast(load_variant(name), CATALOG) for name in NAMES}
    return {name: each for name, each in forecasts.items() if each is not None}


def test_each_region_is_where_its_name_says() -> None:
    named = set()
    for _, region in regions():
        _, lon, lat = PLACES_LONLAT[region.name]
        tile = mercantile.tile(lon, lat, region.zoom)
        assert region.tile == f"{tile.z}/{tile.x}/{tile.y}", region.name
        assert region.bounds_lonlat == pytest.approx(tuple(mercantile.bounds(tile)))
        named.add(region.name)
    assert named == set(PLACES_LONLAT)


def test_regions_lie_between_the_borders() -> None:
    """Mexico begins at 32.53 N in the west and the 49th parallel is Canada's border."""
    for _, region in regions():
        west, south, east, north = region.bounds_lonlat
        if north < 20:
            assert -67.6 < west < east < -65.2, region.name
            assert south > 17.8, region.name
        else:
            assert -125.3 < west < east < -66.9, region.name
            assert north < 49, region.name
            assert south > (31.7 if west < -101 else 25), region.name


def test_regions_of_a_variant_do_not_overlap() -> None:
    for name in NAMES:
        variant = load_variant(name)
        spans = [region.span(variant.base_zoom) for region in variant.regions]
        assert all(span.cut(other).num_tiles == 0 for span, other in combinations(spans, 2))
        assert len({region.name for region in variant.regions}) == len(variant.regions)


def test_every_land_cover_is_there_and_every_region_has_a_reason() -> None:
    for name in NAMES:
        regions_of_variant = load_variant(name).regions
        assert {kind for region in regions_of_variant for kind in region.kinds} == set(
            get_args(LandCover)
        )
        assert all(region.kinds and len(region.reason) > 10 for region in regions_of_variant)


def test_small_is_full_but_for_its_target() -> None:
    small, full = load_variant("small"), load_variant("full")
    own = {name: getattr(full, name) for name in ("name", "summary", "target_samples")}
    assert replace(small, **own) == full


def test_regions_are_enough_with_half_as_much_again(expected: dict[str, Forecast]) -> None:
    for name, prediction in expected.items():
        assert prediction.margin >= 1.5, name
        # The reserve can be filled: it is what stands between clouds and the target.
        assert prediction.num_available >= prediction.workload.num_read


def test_counts_are_those_of_a_plain_loop(expected: dict[str, Forecast]) -> None:
    variant = load_variant("full")
    row = next(r for r in expected["full"].regions if r.region.name == "puerto-rico-east")
    tiles = tiles_within(row.region.bounds_lonlat, 15)
    split = {}

    def of(x: int, y: int) -> int:
        block = x >> 2, y >> 2
        if block not in split:
            split[block] = int(splits.assign(variant, np.array([x]), np.array([y]))[0])
        return split[block]

    around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    num_guarded = sum(all(of(x + dx, y + dy) <= of(x, y) for dx, dy in around) for x, y, _ in tiles)
    assert (row.num_candidates, row.num_guarded) == (len(tiles), num_guarded)


def test_bytes_follow_the_tiles(expected: dict[str, Forecast]) -> None:
    work = expected["micro"].workload
    assert work.store_bytes == 146_502 * load_variant("micro").bytes_per_sample
    # NAIP of a tile, four bands at its own pixel, is the least that can be read of it.
    tile_m = 256 * 156_543.034 / 2**17 * 0.8
    assert work.source_bytes > work.num_read * (tile_m / 0.6) ** 2 * 4 * 0.8


def page_script() -> ModuleType:
    path = ROOT / "docs" / "examples" / "variants_page.py"
    spec = importlib.util.spec_from_file_location("variants_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_code_says() -> None:
    script = page_script()
    page = script.PAGE.read_text()
    tables = script.tables()
    assert script.written(page, tables) == page
    assert all(table in page for table in tables.values())
    assert "188,060" in page
    assert "940,300" in page


def test_the_command_gives_the_same_figures(expected: dict[str, Forecast]) -> None:
    done = run("variants", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    for name, prediction in expected.items():
        assert rows[name]["candidates"] == prediction.num_candidates
        assert rows[name]["after_guard"] == prediction.num_guarded
        assert rows[name]["source_bytes"] == prediction.workload.source_bytes
        assert [r["tile"] for r in rows[name]["regions"]] == [
            r.region.tile for r in prediction.regions
        ]


def test_the_command_lists_regions_and_says_what_is_assumed() -> None:
    done = run("variants", "micro", "--workers", "3")
    text = " ".join(done.stdout.split())
    assert "katahdin" in text
    assert "Assumed: 95% of the tiles on land" in text
    assert "each of 3 workers" in text
    assert "940,300 = 5 x 188,060" in text
