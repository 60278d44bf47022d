"""The command ``salibi-data``: make, check, publish and view stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from salibi_cli import common
from salibi_cli.data.build import build, plan, status
from salibi_cli.data.derive import merge, subset
from salibi_cli.data.forecast import forecast
from salibi_cli.data.pmtiles import export_pmtiles, import_pmtiles
from salibi_cli.data.releases import publish, pull
from salibi_cli.data.variants import variants
from salibi_cli.data.view import view
from salibi_data.store.errors import SalibiError, UsageError

app = common.app(help="Make aligned, multi-modal, multi-scale satellite datasets.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreOrUrl = Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of the store.")]


@app.command()
def catalogs(
    *,
    check: Annotated[bool, typer.Option(help="Query each one for an item.")] = False,
    as_json: Json = False,
) -> None:
    """List the known catalogs. Example: `salibi-data catalogs --check`"""
    from salibi_data.catalog.providers import catalog_names, load_catalog

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
    """Query a catalog for one item per sensor; give whether all were found, and their names."""
    from salibi_data.catalog.providers import load_catalog
    from salibi_data.catalog.search import resolve_catalog, search

    # NAIP covers the U.S. alone: a box elsewhere would find nothing.
    iowa = (-92.47, 41.98, -92.40, 42.02)
    try:
        catalog = resolve_catalog(load_catalog(name))
        scenes_by_sensor = {
            sensor: search(catalog, sensor, iowa, None, max_items=1) for sensor in catalog.sensors
        }
    except SalibiError as error:
        return False, str(error)
    answers = {
        sensor: scenes[-1].id if scenes else "nothing"
        for sensor, scenes in scenes_by_sensor.items()
    }
    return all(scenes_by_sensor.values()), ", ".join(
        f"{sensor}: {name}" for sensor, name in answers.items()
    )


app.command()(variants)
app.command()(forecast)


@app.command()
def sample(
    directory: Annotated[
        Path, typer.Argument(help="Folder to write; it must not hold anything else.")
    ],
    *,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another landscape.")] = 0,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="Write labelled images of other landscapes, not the catalog."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the offline sample catalog, or labelled images to evaluate models on.

    Example: `salibi-data sample ~/salibi-sample`

    Labelled images: `salibi-data sample ~/salibi-labelled --labelled`
    """
    if labelled:
        _write_labelled(directory, seed, as_json=as_json)
        return
    from salibi_data.synthetic import write_sample_catalog

    with common.progress("drawing the landscape", unit="files") as advance:
        summary = write_sample_catalog(directory, seed=seed, progress=advance)
    if as_json:
        common.print_json({"directory": str(directory), "items": summary.num_items})
        return
    typer.echo(f"{sum(summary.num_items.values())} items in {directory / 'catalog.json'}")


def _write_labelled(directory: Path, seed: int, *, as_json: bool) -> None:
    from salibi_data.synthetic.labelled import write_labelled_sample

    with common.progress("photographing labelled ground", unit="landscapes") as advance:
        num_images = write_labelled_sample(directory, seed=seed, progress=advance).num_images
    if as_json:
        common.print_json({"directory": str(directory), "images": num_images})
        return
    total = sum(sum(split.values()) for split in num_images.values())
    typer.echo(f"{total} labelled images in {directory}")


app.command()(plan)
app.command()(build)
app.command()(status)
app.command()(subset)
app.command()(merge)
app.command("import-pmtiles")(import_pmtiles)
app.command("export-pmtiles")(export_pmtiles)
app.command()(publish)
app.command()(pull)


@app.command()
def info(store: StoreOrUrl, *, as_json: Json = False) -> None:
    """Print what a store holds. Example: `salibi-data info data/micro.zarr`"""
    from salibi_data.inspection.info import info as describe_store

    description = describe_store(store)
    if as_json:
        common.print_json(description)
        return
    modalities = description.pop("modalities")
    facts = {key: value for key, value in description.items() if value not in (None, [], {})}
    common.print_table([{"": key, "value": common.plain(value)} for key, value in facts.items()])
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
def verify(
    store: StoreOrUrl,
    *,
    against_source: Annotated[
        int,
        typer.Option(
            min=0, metavar="K", help="Read K samples again from their sources and compare."
        ),
    ] = 0,
    catalog: Annotated[
        str | None, typer.Option(help="Catalog of the sources; default the store's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check checksums, schema, grid, splits and every sample.

    Example: `salibi-data verify data/micro.zarr --against-source 8`

    A published dataset: `salibi-data verify s3://bucket/micro`
    """
    from salibi_data.inspection.verify import verify as verify_store

    if catalog is not None and not against_source:
        raise UsageError("--catalog says where --against-source reads; give both, or neither.")
    with common.progress("verifying", unit="samples") as advance:
        report = verify_store(
            store, against_source=against_source, catalog=catalog, progress=advance
        )
    if as_json:
        common.print_json(
            {
                "samples": report.num_samples,
                "files": report.num_files,
                "checks": list(report.checks),
                "listed": report.is_listed,
                "against_source": report.against_source,
            }
        )
    else:
        typer.echo(
            f"{report.num_samples} samples in {report.num_files} files are as promised: "
            f"{', '.join(report.checks)}"
        )
        if not report.is_listed:
            typer.echo("names may not be listed there: files beyond the manifest are not noticed")


@app.command()
def figure(
    store: StoreOrUrl,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")] = Path(
        "grid.png"
    ),
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Samples, a row each.")] = 8,
    edge: Annotated[
        int | None,
        typer.Option(
            min=64, help="Edge of a panel in pixels; default that of the finest modality."
        ),
    ] = None,
) -> None:
    """Draw all modalities side by side.

    Example: `salibi-data figure data/micro.zarr -o grid.png -n 8`
    """
    from salibi_data.inspection.plot import plot
    from salibi_data.store.open import open_store

    plot(store, output, num_samples=num_samples, edge_px=edge)
    num_drawn = min(num_samples, open_store(store)[0]["tile"].shape[0])
    typer.echo(f"{num_drawn} samples in {output}")


app.command()(view)


def main() -> None:
    """Entry point of ``salibi-data``."""
    common.run(app)
