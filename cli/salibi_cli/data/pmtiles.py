"""``salibi-data import-pmtiles`` and ``export-pmtiles``: the authors' released archives."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from salibi_cli import common
from salibi_data.builds.options import BuildOptions

Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_SHOWN: Final = 5


class Splits(StrEnum):
    """Ways to split the imported samples."""

    BLOCKS = "blocks"
    NONE = "none"


def import_pmtiles(
    *,
    sar: Annotated[
        str | None, typer.Option(metavar="FILE", help="Archive of Sentinel-1 tiles.")
    ] = None,
    lores: Annotated[
        str | None, typer.Option(metavar="FILE", help="Archive of Sentinel-2 tiles.")
    ] = None,
    hires: Annotated[
        str | None, typer.Option(metavar="FILE", help="Archive of NAIP tiles and their children.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Store to make.")] = Path(
        "data/released.zarr"
    ),
    variant: Annotated[
        str | None,
        typer.Option(help="Variant that the archives are a release of; default a name of its own."),
    ] = None,
    zoom: Annotated[
        int | None, typer.Option(min=0, help="Base zoom, where the archives do not tell it.")
    ] = None,
    splits: Annotated[
        Splits,
        typer.Option(help="By blocks, with a guard between them; or none: all samples train."),
    ] = Splits.BLOCKS,
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leave out samples with a tile that is damaged."),
    ] = False,
    workers: Workers = BuildOptions.workers,
    as_json: Json = False,
) -> None:
    """Make a store from the authors' released archives, with every tile that all of them have.

    Example: `salibi-data import-pmtiles --sar sar_tiles.pmtile --lores visual_tiles.pmtile --hires
    hires_visual_tiles.pmtile -o data/small.zarr`
    """
    from salibi_data.imports.pmtiles.importer import import_pmtiles as import_archives

    with common.progress("importing", unit="shards") as advance:
        report = import_archives(
            output,
            sar=sar,
            lores=lores,
            hires=hires,
            variant=variant,
            zoom=zoom,
            splits=splits.value,
            skip_damaged=skip_damaged,
            workers=workers,
            progress=advance,
        )
    if as_json:
        common.print_json(
            {
                "store": str(report.store),
                "base_zoom": report.base_zoom,
                "samples": report.num_samples,
                "tiles": dict(report.num_tiles),
                "splits": dict(report.splits),
                "damaged": list(report.damaged),
                "was_complete": report.was_complete,
            }
        )
        return
    tiles = ", ".join(f"{number} of {name}" for name, number in report.num_tiles.items())
    verb = "are already" if report.was_complete else "are"
    typer.echo(
        f"{report.num_samples} samples {verb} in {report.store}, of the tiles at zoom "
        f"{report.base_zoom} that have all parts ({tiles}); splits: {common.plain(report.splits)}"
    )
    if report.damaged:
        named = ", ".join(report.damaged[:_SHOWN])
        more = ", ..." if len(report.damaged) > _SHOWN else ""
        typer.echo(f"{len(report.damaged)} samples left out, damaged: {named}{more}", err=True)


def export_pmtiles(
    store: Annotated[Path, typer.Argument(help="Path of the store.")],
    directory: Annotated[Path, typer.Argument(help="Folder to write the archives to.")],
    *,
    workers: Workers = BuildOptions.workers,
    as_json: Json = False,
) -> None:
    """Write a store's images as PMTiles archives in the layout of the authors' release.

    Example: `salibi-data export-pmtiles data/micro.zarr archives`
    """
    from salibi_data.imports.pmtiles.exporter import export_pmtiles as export_archives

    with common.progress("exporting", unit="images") as advance:
        report = export_archives(store, directory, workers=workers, progress=advance)
    sizes = {name: path.stat().st_size for name, path in report.archives.items()}
    if as_json:
        common.print_json(
            {
                "samples": report.num_samples,
                "archives": {name: str(path) for name, path in report.archives.items()},
                "bytes": sizes,
                "left_out": list(report.left_out),
            }
        )
        return
    for name, path in report.archives.items():
        typer.echo(
            f"{name}: {report.num_samples} samples in {path}, {common.human_bytes(sizes[name])}"
        )
    if report.left_out:
        names = ", ".join(report.left_out)
        typer.echo(f"left out, as the layout has no place for them: {names}", err=True)
