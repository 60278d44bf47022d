"""``salibi-data``: from catalogs to stores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common
from salibi_data.errors import SalibiError, UsageError

if TYPE_CHECKING:
    from salibi_data.grid import Bounds
    from salibi_data.plans import Plan

app = common.app(help="Make aligned, multi-modal, multi-scale satellite datasets.")

Variant = Annotated[str, typer.Option(help="Variant: a name from `variants`, or a TOML file.")]
Catalog = Annotated[str, typer.Option(help="Catalog: a name from `catalogs`, or a TOML file.")]
Bbox = Annotated[
    str | None, typer.Option(metavar="W,S,E,N", help="Only tiles wholly within, in degrees.")
]
Dates = Annotated[
    str | None,
    typer.Option(metavar="A/B", help="Only scenes within, such as 2021-05-01/2022-09-30."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many samples.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Store = Annotated[Path, typer.Argument(help="Path of the store.")]

DEFAULT_CATALOG = "planetary-computer"


@app.command()
def catalogs(
    *,
    check: Annotated[bool, typer.Option(help="Ask each one for an item.")] = False,
    as_json: Json = False,
) -> None:
    """The catalogs known. Example: `salibi-data catalogs --check`"""
    from salibi_data.catalog import catalog_names, load_catalog

    rows = []
    for name in catalog_names():
        catalog = load_catalog(name)
        row: dict[str, Any] = {
            "name": name,
            "title": catalog.title,
            "url": catalog.url or "drawn on first use",
            "sensors": list(catalog.sensors),
        }
        if check:
            row["reached"], row["found"] = _check(name)
        rows.append(row)
    if as_json:
        common.print_json(rows)
    else:
        common.print_table(rows)
    if not all(row.get("reached", True) for row in rows):
        raise typer.Exit(1)


def _check(name: str) -> tuple[bool, str]:
    """Whether a catalog answers, and what: one item per sensor is asked for."""
    from salibi_data.catalog import load_catalog
    from salibi_data.search import resolve, search

    iowa = (-92.47, 41.98, -92.40, 42.02)
    try:
        catalog = resolve(load_catalog(name))
        found = {
            sensor: search(catalog, sensor, iowa, None, max_items=1) for sensor in catalog.sensors
        }
    except SalibiError as error:
        return False, str(error)
    answers = {sensor: scenes[-1].id if scenes else "nothing" for sensor, scenes in found.items()}
    return all(found.values()), ", ".join(f"{sensor}: {name}" for sensor, name in answers.items())


@app.command()
def variants(*, as_json: Json = False) -> None:
    """The variants known. Example: `salibi-data variants`"""
    from salibi_data.variant import load_variant, variant_names

    rows = []
    for name in variant_names():
        variant = load_variant(name)
        rows.append(
            {
                "name": name,
                "summary": variant.summary,
                "base zoom": variant.base_zoom,
                "modalities": ", ".join(
                    f"{m.name} (zoom {variant.base_zoom + m.zoom_offset}, "
                    f"GSD ratio {2.0**-m.zoom_offset:g})"
                    for m in variant.modalities
                ),
                "target samples": variant.target_samples,
                "regions": ", ".join(region.name for region in variant.regions),
            }
        )
    if as_json:
        common.print_json(rows)
        return
    common.print_table(rows)
    typer.echo(
        "Targets are those of the authors' slides; their web page swaps full and micro, and its "
        "raw tile counts agree with the page."
    )


@app.command()
def sample(
    directory: Annotated[
        Path, typer.Argument(help="Folder to write; it must not hold anything else.")
    ],
    *,
    seed: Annotated[int, typer.Option(help="Another seed, another landscape.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the offline sample catalog. Example: `salibi-data sample ~/salibi-sample`"""
    from salibi_data.sample import write_sample_catalog

    with common.progress("drawing the landscape", unit="files") as advance:
        summary = write_sample_catalog(directory, seed=seed, progress=advance)
    if as_json:
        common.print_json({"directory": str(directory), "items": summary.num_items})
    else:
        typer.echo(f"{sum(summary.num_items.values())} items in {directory / 'catalog.json'}")


@app.command()
def plan(
    *,
    variant: Variant,
    catalog: Catalog = DEFAULT_CATALOG,
    bbox: Bbox = None,
    dates: Dates = None,
    limit: Limit = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="GeoParquet file to write.")
    ] = Path("plan.parquet"),
    as_json: Json = False,
) -> None:
    """Search and choose scenes. Example: `salibi-data plan --variant micro --catalog sample`"""
    from salibi_data.planning import plan as make_plan

    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"--output {output} cannot be a file; name one in a folder that exists.")
    with common.progress("searching", unit="searches") as advance:
        made = make_plan(
            variant,
            catalog=catalog,
            bounds_lonlat=_bounds(bbox),
            dates=dates,
            limit=limit,
            progress=advance,
        )
    made.write(output)
    figures = _plan_figures(made)
    if as_json:
        common.print_json({**figures, "plan": str(output)})
        return
    scenes = ", ".join(f"{count} {sensor}" for sensor, count in figures["scenes"].items())
    typer.echo(f"{figures['samples']} samples from {scenes} scenes, in {output}")
    typer.echo(f"at most {common.human_bytes(figures['store_bytes'])} before compression")
    if figures["requester_pays"]:
        typer.echo(f"requester pays for {', '.join(figures['requester_pays'])}")


def _plan_figures(plan: Plan) -> dict[str, Any]:
    return {
        "samples": len(plan.choices),
        "scenes": {sensor: len(used) for sensor, used in plan.scenes().items()},
        "tiles_left_out": dict(plan.lost),
        "store_bytes": len(plan.choices) * plan.variant.bytes_per_sample,
        "requester_pays": [
            s for s in plan.variant.sensors if plan.catalog.sensors[s].requester_pays
        ],
        "digest": plan.digest,
    }


@app.command()
def build(
    *,
    variant: Annotated[str | None, typer.Option(help="Variant: a name, or a TOML file.")] = None,
    catalog: Catalog = DEFAULT_CATALOG,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="A plan instead of variant and catalog.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Store to make; default data/VARIANT.zarr."),
    ] = None,
    bbox: Bbox = None,
    dates: Dates = None,
    limit: Limit = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Plan and build a store; run it again to go on.

    Example: `salibi-data build --variant micro --catalog sample`
    """
    if (variant is None) == (plan_file is None):
        raise UsageError("give either --variant or --plan.")
    if plan_file is not None and (bbox or dates or limit or catalog != DEFAULT_CATALOG):
        raise UsageError(
            "--plan says all; give no --catalog, --bbox, --dates or --limit beside it."
        )
    from salibi_data.building import build as make

    store = output or _default_store(variant, plan_file)
    store.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as bars:
        report = make(
            store,
            variant=variant,
            catalog=catalog,
            plan=plan_file,
            bounds_lonlat=_bounds(bbox),
            dates=dates,
            limit=limit,
            workers=workers,
            progress=_stages(bars),
        )
    if as_json:
        common.print_json(
            {
                "store": str(store),
                "samples": report.num_samples,
                "dropped": dict(report.dropped),
                "failures": dict(report.failures),
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
    if report.failures:
        tile, reason = next(iter(report.failures.items()))
        raise SalibiError(
            f"{len(report.failures)} blocks could not be made, all others are in the store. "
            f"The one at tile {tile}: {reason} Run the same command again to try them again."
        )


def _default_store(variant: str | None, plan_file: Path | None) -> Path:
    if variant is None:
        from salibi_data.plans import Plan

        variant = Plan.read(plan_file or Path()).variant.name
    return Path("data") / f"{Path(variant).stem}.zarr"


def _stages(bars: ExitStack) -> Callable[[str, int, int], None]:
    """A progress bar per stage, opened when the stage begins."""
    words = {"plan": "planning", "samples": "reading and aligning", "shards": "writing the store"}
    open_bars: dict[str, common.Advance] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in open_bars:
            bars.close()
            open_bars[stage] = bars.enter_context(common.progress(words[stage], unit=stage))
        open_bars[stage](done, total)

    return advance


@app.command()
def status(store: Store, *, as_json: Json = False) -> None:
    """How far a build is, what failed and why. Example: `salibi-data status data/micro.zarr`"""
    from salibi_data.building import status as look

    found = look(store)
    if as_json:
        common.print_json(found)
        return
    if "blocks" in found:
        typer.echo(
            f"{found['blocks_done']} of {found['blocks']} blocks done, "
            f"{len(found['failures'])} failed, {found['planned_samples']} samples planned"
        )
        for tile, reason in found["failures"].items():
            typer.echo(f"  {tile}: {reason}")
    typer.echo("the store is finished" if found["finished"] else "the store is not finished")


@app.command()
def info(store: Store, *, as_json: Json = False) -> None:
    """What is in a store. Example: `salibi-data info data/micro.zarr`"""
    from salibi_data.describe import info as describe

    found = describe(store)
    if as_json:
        common.print_json(found)
        return
    modalities = found.pop("modalities")
    common.print_table([{"": key, "value": common.plain(value)} for key, value in found.items()])
    common.print_table(
        [
            {
                "modality": name,
                "sensor": m["sensor"],
                "zoom": m["zoom"],
                "GSD ratio": m["gsd_ratio"],
                "px": m["size_px"],
                "bands": ", ".join(m["bands"]),
                "units": m["units"],
                "mean": ", ".join(f"{value:.1f}" for value in m["mean"]),
                "std": ", ".join(f"{value:.1f}" for value in m["std"]),
                "licence": m["licence"],
            }
            for name, m in modalities.items()
        ]
    )


@app.command()
def verify(store: Store, *, as_json: Json = False) -> None:
    """Check checksums, schema, grid, splits and every sample.

    Example: `salibi-data verify data/micro.zarr`
    """
    from salibi_data.verifying import verify as check

    with common.progress("verifying", unit="samples") as advance:
        found = check(store, progress=advance)
    if as_json:
        common.print_json(
            {"samples": found.num_samples, "files": found.num_files, "checks": list(found.checks)}
        )
    else:
        typer.echo(
            f"{found.num_samples} samples in {found.num_files} files are as promised: "
            f"{', '.join(found.checks)}"
        )


@app.command()
def figure(
    store: Store,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")] = Path(
        "grid.png"
    ),
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Samples, a row each.")] = 8,
    edge: Annotated[
        int | None, typer.Option(min=64, help="Edge of a panel in pixels; default the finest's.")
    ] = None,
) -> None:
    """Draw all modalities side by side.

    Example: `salibi-data figure data/micro.zarr -o grid.png -n 8`
    """
    from salibi_cli.panels import Panel, as_rgb, check_path, save_panels
    from salibi_data.describe import figure_rows

    check_path(output)
    attributes, samples = figure_rows(store, num_samples=num_samples)
    modalities = attributes.modalities
    rows = [
        [
            Panel(
                title=f"{name} ({modalities[name].sensor})", image=as_rgb(image, modalities[name])
            )
            for name, image in images.items()
        ]
        for images in samples.values()
    ]
    edge_px = edge or max(modality.size_px for modality in modalities.values())
    if any(edge_px % m.size_px and m.size_px % edge_px for m in modalities.values()):
        sizes = ", ".join(f"{m.size_px}" for m in modalities.values())
        raise UsageError(
            f"--edge {edge_px} and images of {sizes} px do not divide; try 256 or 512."
        )
    save_panels(rows, output, row_labels=list(samples), edge_px=edge_px)
    typer.echo(f"{len(rows)} samples in {output}")


def _bounds(text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--bbox {text!r} is not W,S,E,N: four numbers in degrees.") from error
    return west, south, east, north


def main() -> None:
    """Entry point of ``salibi-data``."""
    common.run(app)
