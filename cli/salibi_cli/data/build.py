"""``salibi-data plan``, ``build`` and ``status``: choose scenes, build a store, report progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common
from salibi_cli.options import Fields, arguments_of, with_options
from salibi_data.builds.options import BuildOptions
from salibi_data.plans.options import PlanOptions
from salibi_data.store.errors import SalibiError, UsageError

if TYPE_CHECKING:
    from salibi_data.builds.status import Step
    from salibi_data.plans.plan import Plan

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Store = Annotated[Path, typer.Argument(help="Path of the store.")]


@with_options
def plan(
    *,
    variant: Annotated[str, typer.Option(help="Variant: a name from `variants`, or a TOML file.")],
    options: Annotated[PlanOptions, Fields(first=("catalog",))],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="GeoParquet file to write.")
    ] = Path("plan.parquet"),
    as_json: Json = False,
) -> None:
    """Search and choose scenes. Example: `salibi-data plan --variant micro --catalog sample`"""
    from salibi_data.plans.planner import plan as make_plan

    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"--output {output} cannot be a file; name one in a folder that exists.")
    with common.progress("planning", unit="cells") as advance:
        new_plan = make_plan(variant, output=output, progress=advance, **arguments_of(options))
    figures = _plan_figures(new_plan)
    if as_json:
        common.print_json({**figures, "plan": str(output)})
        return
    scenes = ", ".join(f"{count} {sensor}" for sensor, count in figures["scenes"].items())
    reserve = f" and {figures['reserve']} in reserve" if figures["reserve"] else ""
    typer.echo(f"{figures['samples']} samples{reserve} from {scenes} scenes, in {output}")
    for warning in new_plan.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if new_plan.num_samples < (new_plan.target_samples or 0):
        typer.echo(
            f"warning: {new_plan.target_samples:,} samples are aimed at and only {new_plan.num_samples:,} "
            "tiles have all scenes; widen --dates, or add regions to the variant",
            err=True,
        )
    typer.echo(
        f"expected: {common.human_bytes(figures['source_bytes'])} in "
        f"{figures['source_requests']:,} requests from the sources, at most "
        f"{common.human_bytes(figures['store_bytes'])} in the store"
    )
    if figures["requester_pays"]:
        typer.echo(
            f"requester pays for {', '.join(figures['requester_pays'])}: "
            f"about {figures['usd']:,.2f} USD"
        )


def _plan_figures(plan: Plan) -> dict[str, Any]:
    return {
        "samples": plan.num_wanted,
        "reserve": plan.num_samples - plan.num_wanted,
        "scenes": {sensor: len(used) for sensor, used in plan.scenes.items()},
        "tiles_left_out": dict(plan.lost),
        "store_bytes": plan.num_wanted * plan.variant.bytes_per_sample,
        **plan.expected,
        "requester_pays": [
            s for s in plan.variant.sensors if plan.catalog.sensors[s].requester_pays
        ],
        "warnings": list(plan.warnings),
        "digest": plan.digest,
    }


@with_options
def build(
    *,
    variant: Annotated[str | None, typer.Option(help="Variant: a name, or a TOML file.")] = None,
    options: Annotated[BuildOptions, Fields(first=("catalog",))],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="A plan instead of variant and catalog.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Store to make; default data/VARIANT.zarr."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Plan and build a store; run it again to go on.

    Example: `salibi-data build --variant micro --catalog sample`
    """
    if (variant is None) == (plan_file is None):
        raise UsageError("give either --variant or --plan.")
    if plan_file and (options.is_narrowed or options.catalog != BuildOptions.catalog):
        raise UsageError(
            "--plan says all; give no --catalog, --bbox, --aoi, --dates, --limit, --max-cloud or "
            "--allow-grd beside it."
        )
    from salibi_data.builds.build import build as build_store

    store = output or _default_store(variant, plan_file)
    # The default, data/VARIANT.zarr, is in a folder that a new project lacks.
    store.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as bars:
        report = build_store(
            store,
            variant=variant,
            plan=plan_file,
            progress=_stages(bars),
            **arguments_of(options),
        )
    if as_json:
        common.print_json(
            {
                "store": str(store),
                "samples": report.num_samples,
                "dropped": dict(report.dropped),
                "failures": [vars(failure) for failure in report.failures],
                "warnings": list(report.warnings),
                "replaced": dict(report.replaced),
                "was_complete": report.was_complete,
            }
        )
    else:
        dropped = ", ".join(f"{count} for {reason}" for reason, count in report.dropped.items())
        what = "were there already" if report.was_complete else "built"
        typer.echo(
            f"{report.num_samples} samples {what} in {store}"
            + (f"; dropped {dropped}" if dropped else "")
        )
        _print_replaced(report.replaced)
        for warning in report.warnings:
            typer.echo(f"warning: {warning}", err=True)
    if report.failures:
        first = report.failures[0]
        raise SalibiError(
            f"{len(report.failures)} blocks could not be made, all others are in the store. "
            f"The one at tile {first.tile} ({first.kind}): {first.reason} "
            "Run the same command again to try them again."
        )


def status(store: Store, *, as_json: Json = False) -> None:
    """Report how far a build is, what failed and why. Example: `salibi-data status data/micro.zarr`"""
    from salibi_data.builds.status import status as read_status

    progress = read_status(store)
    if as_json:
        common.print_json(progress)
        return
    if "blocks" in progress:
        kinds = ", ".join(f"{kind} {count}" for kind, count in progress["failures_by_kind"].items())
        typer.echo(
            f"{progress['blocks_done']} of {progress['blocks']} blocks done, "
            f"{len(progress['failures'])} failed{f' ({kinds})' if kinds else ''}, "
            f"{progress['planned_samples']} samples planned"
        )
        if progress["last_run"]:
            run = progress["last_run"]
            typer.echo(
                f"last run: {run['samples']} samples and {common.human_bytes(run['bytes'])} in "
                f"{common.human_time(run['seconds'])}, {run['samples_per_s']:.2f} samples/s; "
                f"{progress['samples_left']} samples left, about "
                f"{common.human_time(run['seconds_left'])} at that rate"
            )
        for failure in progress["failures"]:
            typer.echo(f"  {failure['tile']} {failure['kind']}: {failure['reason']}")
    _print_replaced(progress["replaced_by_sensor"])
    typer.echo("the store is finished" if progress["finished"] else "the store is not finished")


def _print_replaced(counts: Mapping[str, int]) -> None:
    if counts:
        sensors = ", ".join(f"{count} {sensor}" for sensor, count in sorted(counts.items()))
        typer.echo(
            f"samples made of other scenes than planned: {sensors}; `status --json` lists them"
        )


def _default_store(variant: str | None, plan_file: Path | None) -> Path:
    if variant is None:
        from salibi_data.plans.plan import Plan

        variant = Plan.read(plan_file or Path()).variant.name
    return Path("data") / f"{Path(variant).stem}.zarr"


def _stages(bars: ExitStack) -> Callable[[Step], None]:
    """A progress bar per stage, opened when the stage begins."""
    words = {"plan": "planning", "samples": "reading and aligning", "shards": "writing the store"}
    units = {"plan": "cells", "samples": "samples", "shards": "shards"}
    open_bars: dict[str, common.Advance] = {}

    def advance(step: Step) -> None:
        if step.stage not in open_bars:
            # rich allows one live display at a time: the previous stage's bar ends first.
            bars.close()
            bar = common.progress(words[step.stage], unit=units[step.stage])
            open_bars[step.stage] = bars.enter_context(bar)
        notes = [common.human_bytes(step.num_bytes)] if step.num_bytes else []
        notes += [f"{count} failed: {kind}" for kind, count in sorted(step.failures.items())]
        open_bars[step.stage](step.done, step.total, "".join(f", {note}" for note in notes))

    return advance
