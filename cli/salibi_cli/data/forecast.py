"""``salibi-data forecast``: hours, requests, bytes and money of builds, up to a continent."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from salibi_cli import common
from salibi_data.forecasts.costs import BuildConditions
from salibi_data.plans.options import PlanOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variants import Variant
    from salibi_data.forecasts.costs import Workload

CONTINENT: Final = {"full": "continental U.S., zoom 15", "micro": "continental U.S., zoom 17"}
"""Variants that are also forecast for all land of the 48 states."""


def forecast(
    name: Annotated[
        list[str] | None, typer.Argument(help="Variants, by name or TOML file.", metavar="VARIANT")
    ] = None,
    *,
    catalog: Annotated[
        str, typer.Option(help="Catalog whose file sizes and prices are used.")
    ] = PlanOptions.catalog,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes of one core each.")
    ] = BuildConditions.workers,
    latency_ms: Annotated[
        float, typer.Option(help="Time to the first byte of an answer, in ms.")
    ] = 1e3 * BuildConditions.latency_s,
    read_mb_per_s: Annotated[
        float, typer.Option(help="Reading speed of each worker, in MB/s.")
    ] = BuildConditions.read_bytes_per_s / 1e6,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Requests in flight by all workers; as SALIBI_HTTP_PARALLEL."),
    ] = None,
    usd_per_worker_hour: Annotated[
        float, typer.Option(help="Price of a core.")
    ] = BuildConditions.usd_per_worker_hour,
    usd_per_gb_month: Annotated[
        float, typer.Option(help="Price of keeping the store.")
    ] = BuildConditions.usd_per_gb_month,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast hours, requests, bytes and money for variants and the whole continental U.S.

    No catalog is queried. Prices and speeds are assumptions: give your own.

    Example: `salibi-data forecast --workers 64 --parallel 256`
    """
    from salibi_data.catalog.providers import load_catalog
    from salibi_data.catalog.variants import load_variant
    from salibi_data.sources.rate_limits import HttpSettings

    conditions = BuildConditions(
        workers=workers,
        latency_s=latency_ms / 1e3,
        read_bytes_per_s=read_mb_per_s * 1e6,
        parallel=parallel or HttpSettings.from_environment().parallel,
        usd_per_worker_hour=usd_per_worker_hour,
        usd_per_gb_month=usd_per_gb_month,
    )
    provider = load_catalog(catalog)
    jobs = _jobs(
        [load_variant(variant) for variant in name or ("small", *CONTINENT)], provider, name
    )
    rows = []
    with common.progress("counting", unit="datasets") as advance:
        for number, (what, count) in enumerate(jobs, start=1):
            rows.append(_figures(what, count(), conditions))
            advance(number, len(jobs))
    if as_json:
        common.print_json(rows)
        return
    _print(rows)
    typer.echo(_assumptions(conditions, catalog))


def _jobs(
    variants: list[Variant], catalog: Catalog, names: list[str] | None
) -> list[tuple[str, Callable[[], Workload]]]:
    """Forecasts to make, by name: the variants, and the continent unless variants were named."""
    from salibi_data.forecasts.conus import continental_workload

    jobs: list[tuple[str, Callable[[], Workload]]] = [
        (variant.name, partial(_regional, variant, catalog)) for variant in variants
    ]
    if not names:
        jobs += [
            (CONTINENT[variant.name], partial(continental_workload, variant, catalog))
            for variant in variants
            if variant.name in CONTINENT
        ]
    return jobs


def _regional(variant: Variant, catalog: Catalog) -> Workload:
    from salibi_data.forecasts.regions import forecast as forecast_variant
    from salibi_data.store.errors import UsageError

    expected = forecast_variant(variant, catalog)
    if expected is None:
        raise UsageError(
            f"variant {variant.name!r} has no regions or no target, so there is nothing to forecast; "
            "ask `salibi-data plan` with a --bbox or --aoi."
        )
    return expected.workload


def _figures(what: str, work: Workload, conditions: BuildConditions) -> dict[str, Any]:
    from salibi_data.forecasts.costs import build_cost

    cost = build_cost(work, conditions)
    return {
        "dataset": what,
        "samples": work.num_samples,
        "read_samples": work.num_read,
        "source_files": work.num_files,
        "source_requests": work.source_requests,
        "source_bytes": work.source_bytes,
        "store_bytes": work.store_bytes,
        "workers": conditions.workers,
        "hours": round(cost.hours, 2),
        "limited_by": cost.limited_by,
        "compute_usd": round(cost.compute_usd, 2),
        "read_usd": round(cost.read_usd, 2),
        "usd": round(cost.usd, 2),
        "store_usd_per_month": round(cost.store_usd_per_month, 2),
    }


def _print(rows: list[dict[str, Any]]) -> None:
    """Print a table with a column per dataset."""
    figures: dict[str, Callable[[dict[str, Any]], str]] = {
        "samples": lambda row: f"{row['samples']:,}",
        "requests": lambda row: f"{row['source_requests']:,}",
        "read from sources": lambda row: common.human_bytes(row["source_bytes"]),
        "store, at most": lambda row: common.human_bytes(row["store_bytes"]),
        "hours": lambda row: f"{row['hours']:,.1f}",
        "limited by": lambda row: row["limited_by"],
        "US dollars to build": lambda row: f"{row['usd']:,.0f}",
        "of these, for reading": lambda row: f"{row['read_usd']:,.0f}",
        "US dollars a month to keep": lambda row: f"{row['store_usd_per_month']:,.0f}",
    }
    common.print_table(
        [
            {"": word, **{row["dataset"]: figure(row) for row in rows}}
            for word, figure in figures.items()
        ]
    )


def _assumptions(conditions: BuildConditions, catalog: str) -> str:
    """Sentence that names the assumptions behind the figures."""
    return (
        f"Expected of {catalog}, which was not asked. Assumed: {conditions.workers} workers of a "
        f"core each, {conditions.latency_s * 1e3:g} ms to an answer, "
        f"{conditions.read_bytes_per_s / 1e6:g} MB/s for each, {conditions.parallel} requests in "
        f"flight together, {conditions.usd_per_worker_hour:g} US dollars per worker and hour and "
        f"{conditions.usd_per_gb_month:g} per GB and month, and that the store is not compressed. "
        "`salibi-data plan` asks a catalog."
    )
