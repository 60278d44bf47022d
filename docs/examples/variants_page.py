"""Write the tables and the map of docs/variants.md from the variants.

    python docs/examples/variants_page.py        # writes the tables into the page, and the map

A test compares the page with the output of this script.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.variants import load_variant
from salibi_data.forecasts.conus import continental_workload
from salibi_data.forecasts.costs import BuildConditions, build_cost
from salibi_data.forecasts.regions import forecast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from salibi_data.forecasts.regions import Forecast

PAGE = Path(__file__).parents[1] / "variants.md"
MAP = PAGE.with_suffix(".png")
NAMES = ("small", "full", "micro")
WORKERS = 8
CREWS = ((8, 16), (64, 16), (512, 2048))
"""Workers, and requests in flight by all of them together."""
MARGIN = 1.5
"""Least ratio of the samples in a variant's regions to its target."""
EXTENT_LONLAT = (-126.5, 16.5, -63.0, 50.5)
"""Extent of the map (west, south, east, north)."""

CITIES_LONLAT = {
    "Seattle": (-122.33, 47.61),
    "Los Angeles": (-118.24, 34.05),
    "Houston": (-95.37, 29.76),
    "Chicago": (-87.63, 41.88),
    "Miami": (-80.19, 25.76),
    "New York": (-74.01, 40.71),
    "Boston": (-71.06, 42.36),
}
"""Cities for orientation, as the map has no outline of land."""

ABOVE = {"north-cascades", "front-range", "chesapeake-bay", "puerto-rico-centre"}
"""Regions whose name stands above their tile, because another name stands below."""

COLOURS = {
    "city": "#c0392b",
    "coast": "#2e86c1",
    "crops": "#d4ac0d",
    "desert": "#ca6f1e",
    "forest": "#1e8449",
    "grassland": "#82a83a",
    "mountains": "#7d6608",
    "snow": "#5dade2",
    "wetland": "#148f77",
}
"""Colours by a region's first land cover."""


def tables() -> dict[str, str]:
    """Make the page's tables as Markdown, by the name of their marker."""
    catalog = load_catalog("planetary-computer")
    expected = {name: forecast(load_variant(name), catalog) for name in NAMES}
    forecasts = {
        name: variant_forecast
        for name, variant_forecast in expected.items()
        if variant_forecast is not None
    }
    return {
        "counts": _counts(forecasts),
        "swapped": _swapped(forecasts),
        "forecast": _outlays(forecasts),
        "full": _regions(forecasts["full"]),
        "micro": _regions(forecasts["micro"]),
    }


def _counts(forecasts: dict[str, Forecast]) -> str:
    rows = {
        "base zoom": lambda name, _: load_variant(name).base_zoom,
        "samples aimed at": lambda _, f: f"{f.target_samples:,}",
        "regions": lambda _, f: len(f.regions),
        "candidate tiles": lambda _, f: f"{f.num_candidates:,}",
        "left by the guard between splits": lambda _, f: f"{f.num_guarded:,}",
        "on land, with all scenes (expected)": lambda _, f: f"{f.num_available:,}",
        "margin": lambda _, f: f"{f.margin:.2f}",
        "tiles read (expected)": lambda _, f: f"{f.workload.num_read:,}",
        "read from the sources (expected)": lambda _, f: f"{f.workload.source_bytes / 1e9:,.0f} GB",
        "store before compression": lambda _, f: f"{f.workload.store_bytes / 1e9:,.0f} GB",
        f"hours with {WORKERS} workers (expected)": lambda _, f: _hours(f),
    }
    body = [
        [word, *(figure(*entry) for entry in forecasts.items())] for word, figure in rows.items()
    ]
    return _markdown(["", *forecasts], body)


def _hours(variant_forecast: Forecast) -> str:
    return f"{build_cost(variant_forecast.workload, BuildConditions(workers=WORKERS)).hours:.0f}"


def _swapped(forecasts: dict[str, Forecast]) -> str:
    full, micro = forecasts["full"], forecasts["micro"]
    return (
        f"`full` would then have a margin of {full.margin_over(micro.target_samples):.2f}, and `micro` "
        f"one of {micro.margin_over(full.target_samples):.2f}: less than the {MARGIN:g} that we ask "
        "for, so `micro` should be given more regions, too."
    )


def _outlays(forecasts: dict[str, Forecast]) -> str:
    catalog = load_catalog("planetary-computer")
    jobs = {name: variant_forecast.workload for name, variant_forecast in forecasts.items()}
    for name in ("full", "micro"):
        variant = load_variant(name)
        jobs[f"48 states, zoom {variant.base_zoom}"] = continental_workload(variant, catalog)
    body = []
    for name, work in jobs.items():
        for number, (workers, parallel) in enumerate(CREWS):
            cost = build_cost(work, BuildConditions(workers=workers, parallel=parallel))
            what = [name, f"{work.num_samples:,}", f"{work.source_requests:,}"]
            sizes = [f"{size / 1e12:,.2f}" for size in (work.source_bytes, work.store_bytes)]
            crew = [
                f"{workers}",
                f"{parallel}",
                f"{cost.hours:,.1f}",
                cost.limited_by,
            ]
            money = [f"{cost.usd:,.0f}", f"{cost.store_usd_per_month:,.0f}"]
            body.append([*([*what, *sizes] if number == 0 else [""] * 5), *crew, *money])
    head = [
        "dataset",
        "samples",
        "requests",
        "TB read",
        "TB stored",
        "workers",
        "in flight",
        "hours",
    ]
    return _markdown([*head, "limited by", "$ to build", "$ a month"], body)


def _regions(variant_forecast: Forecast) -> str:
    body = [
        [
            row.region.name,
            f"`{row.region.tile}`",
            " ".join(f"{edge:.2f}" for edge in row.region.bounds_lonlat),
            ", ".join(row.region.kinds),
            row.region.reason,
            f"{row.region.land_share:g}",
            f"{row.num_candidates:,}",
            f"{row.num_available:,}",
        ]
        for row in variant_forecast.regions
    ]
    head = ["region", "tile", "west south east north", "land cover", "chosen for"]
    return _markdown([*head, "land", "tiles", "expected"], body)


def _markdown(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def written(page: str, table_texts: dict[str, str]) -> str:
    """Replace each table between ``<!-- NAME -->`` and ``<!-- end -->`` of the page."""
    for name, table in table_texts.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page = between.sub(lambda match, table=table: match[1] + table + match[2], page)
    return page


def draw_map(path: Path) -> None:
    """Draw the regions on a graticule: full's as outlines, micro's filled."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    west, south, east, north = EXTENT_LONLAT
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    axes = figure.add_subplot()
    for variant, filled in (("full", False), ("micro", True)):
        for region in load_variant(variant).regions:
            left, bottom, right, top = region.bounds_lonlat
            axes.add_patch(
                Rectangle(
                    (left, bottom),
                    right - left,
                    top - bottom,
                    facecolor=COLOURS[region.kinds[0]] if filled else "none",
                    edgecolor="black" if filled else COLOURS[region.kinds[0]],
                    linewidth=0.4 if filled else 1.8,
                )
            )
            if not filled:
                above = region.name in ABOVE
                axes.text(
                    (left + right) / 2,
                    top + 0.1 if above else bottom - 0.1,
                    region.name,
                    fontsize=7,
                    ha="center",
                    va="bottom" if above else "top",
                )
    for name, (lon, lat) in CITIES_LONLAT.items():
        axes.plot(lon, lat, ".", color="grey", markersize=3, zorder=0)
        axes.text(lon + 0.15, lat + 0.1, name, fontsize=6, color="grey", zorder=0)
    for kind, colour in COLOURS.items():
        axes.plot([], [], "s", color=colour, label=kind)
    axes.legend(loc="lower left", fontsize=8, title="chosen first for", title_fontsize=8)
    axes.set(xlim=(west, east), ylim=(south, north))
    axes.set_xticks(range(-125, -64, 5))
    axes.set_yticks(range(20, 51, 5))
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.set_aspect(1 / math.cos(math.radians((south + north) / 2)))
    axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
    axes.set_title("Regions of full and small (outlines) and of micro (filled)")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write the page's tables and its map."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
    draw_map(MAP)


if __name__ == "__main__":
    main()
