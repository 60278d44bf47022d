"""``salibi-data variants``: targets, regions and build estimates of the variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from salibi_cli import common
from salibi_data.forecasts.costs import BuildConditions
from salibi_data.plans.options import PlanOptions

if TYPE_CHECKING:
    from salibi_data.catalog.variants import Variant
    from salibi_data.forecasts.regions import Forecast

CATALOG: Final = PlanOptions.catalog
"""Catalog whose file and block sizes the estimates use."""

DISCREPANCY: Final = (
    "Targets are those of the authors' slides: full 188,060 and micro 146,502. Their web page swaps "
    "full and micro, and its raw tile counts agree with the page: 188,060 low-resolution tiles "
    "and 940,300 = 5 x 188,060 high-resolution ones for micro."
)


def variants(
    name: Annotated[
        str | None,
        typer.Argument(help="Variant whose regions are listed: a name, or a TOML file."),
    ] = None,
    *,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes that the estimate of hours assumes.")
    ] = BuildConditions.workers,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what each variant holds and what building it takes; no catalog is queried.

    Example: `salibi-data variants`

    Its regions, each with its reason: `salibi-data variants full`
    """
    from salibi_data.catalog.providers import load_catalog
    from salibi_data.catalog.variants import load_variant, variant_names
    from salibi_data.forecasts.regions import forecast

    names = variant_names() if name is None else [name]
    catalog, conditions = load_catalog(CATALOG), BuildConditions(workers=workers)
    forecasts = []
    with common.progress("counting tiles", unit="variants") as advance:
        for number, variant in enumerate(map(load_variant, names), start=1):
            forecasts.append((variant, forecast(variant, catalog)))
            advance(number, len(names))
    if as_json:
        common.print_json([_figures(*pair, conditions) for pair in forecasts])
        return
    if name is not None:
        _print_regions(*forecasts[0])
    _print_variants([_figures(*pair, conditions) for pair in forecasts])
    typer.echo(f"{_assumptions(conditions)}\n\n{DISCREPANCY}")


def _figures(
    variant: Variant, expected: Forecast | None, conditions: BuildConditions
) -> dict[str, Any]:
    """Give a variant's figures, and those of its regions."""
    from salibi_data.forecasts.costs import build_cost

    figures: dict[str, Any] = {
        "name": variant.name,
        "summary": variant.summary,
        "base_zoom": variant.base_zoom,
        "modalities": {
            m.name: {"zoom": variant.base_zoom + m.zoom_offset, "gsd_ratio": 2.0**-m.zoom_offset}
            for m in variant.modalities
        },
        "target_samples": variant.target_samples,
        "regions": [],
    }
    if expected is None:
        return figures
    regions = [
        {
            "name": region_forecast.region.name,
            "tile": region_forecast.region.tile,
            "bounds_lonlat": region_forecast.region.bounds_lonlat,
            "kinds": region_forecast.region.kinds,
            "reason": region_forecast.region.reason,
            "candidates": region_forecast.num_candidates,
            "after_guard": region_forecast.num_guarded,
            "available": region_forecast.num_available,
        }
        for region_forecast in expected.regions
    ]
    return {
        **figures,
        "regions": regions,
        "candidates": expected.num_candidates,
        "after_guard": expected.num_guarded,
        "available": expected.num_available,
        "margin": round(expected.margin, 2),
        "read_samples": expected.workload.num_read,
        "source_bytes": expected.workload.source_bytes,
        "source_requests": expected.workload.source_requests,
        "store_bytes": expected.workload.store_bytes,
        "hours": round(build_cost(expected.workload, conditions).hours, 1),
    }


def _print_regions(variant: Variant, expected: Forecast | None) -> None:
    """Print a table of a variant's regions."""
    if expected is None:
        typer.echo(f"{variant.name} has no regions, or no target; give `plan` a --bbox or --aoi.")
        return
    common.print_table(
        [
            {
                "region": region_forecast.region.name,
                "tile": region_forecast.region.tile,
                "west, south, east, north": ", ".join(
                    f"{edge:.2f}" for edge in region_forecast.region.bounds_lonlat
                ),
                "tiles": region_forecast.num_candidates,
                "expected": region_forecast.num_available,
                "chosen for": region_forecast.region.reason,
            }
            for region_forecast in expected.regions
        ]
    )


def _print_variants(rows: list[dict[str, Any]]) -> None:
    """Print a table with a column per variant."""
    figures: dict[str, Callable[[dict[str, Any]], Any]] = {
        "base zoom": lambda row: row["base_zoom"],
        "modalities": _modalities,
        "samples aimed at": lambda row: _count(row["target_samples"]),
        "regions": lambda row: len(row["regions"]) or None,
        "candidate tiles": lambda row: _count(row.get("candidates")),
        "left by the guard": lambda row: _count(row.get("after_guard")),
        "with all scenes": lambda row: _count(row.get("available")),
        "margin": lambda row: row.get("margin"),
        "read from sources": lambda row: _bytes(row.get("source_bytes")),
        "store, at most": lambda row: _bytes(row.get("store_bytes")),
        "hours": lambda row: row.get("hours"),
    }
    common.print_table(
        [
            {"": word, **{row["name"]: common.plain(figure(row)) for row in rows}}
            for word, figure in figures.items()
        ]
    )


def _modalities(row: dict[str, Any]) -> str:
    """Names of the modalities, a line each, with the zoom where it is not the base zoom."""
    return "\n".join(
        name if m["gsd_ratio"] == 1 else f"{name} (zoom {m['zoom']})"
        for name, m in row["modalities"].items()
    )


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _bytes(number: int | None) -> str | None:
    return None if number is None else common.human_bytes(number)


def _assumptions(conditions: BuildConditions) -> str:
    """Sentence that names the assumptions behind the figures."""
    from salibi_data.forecasts import regions
    from salibi_data.plans import sampling

    return (
        f"Candidates and the guard are counted; the rest is expected of {CATALOG}, which was not "
        f"asked. Assumed: {regions.AVAILABLE_SHARE:.0%} of the tiles on land have all scenes, and "
        f"{sampling.SURVIVING_SHARE:.0%} of those pass the filters for clouds and missing pixels; one "
        f"scene of a sensor covers each tile; each of {conditions.workers} workers reads "
        f"{common.human_bytes(round(conditions.read_bytes_per_s))} a second. The margin is the "
        "samples that could then be made over those aimed at. `salibi-data forecast` tells money "
        "and limits, and takes other speeds; `salibi-data plan` asks a catalog."
    )
