"""``salibi-data view``: serve a store's page, or write it as files."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from salibi_data.viewer.site import Site

EXPORT_QUALITY = 85
"""Quality of exported pictures: they take a tenth of the size of lossless ones."""


def view(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of the store.")],
    *,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the page as static files instead.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of samples on the page, evenly spread."),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Quality of the pictures; 100 is lossless. Default 100, for an export 85.",
        ),
    ] = None,
    basemap: Annotated[
        str | None,
        typer.Option(
            metavar="MAP",
            help="Base map below the samples: a raster .pmtiles file, or https://.../{z}/{x}/{y}.png, "
            "from which the browser loads tiles.",
        ),
    ] = None,
    basemap_attribution: Annotated[
        str, typer.Option(help="Attribution of the base map; default that of its file.")
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what an export holds as JSON.")
    ] = False,
) -> None:
    """Show a store in the browser: a map of its samples, the images of each, filters.

    Example: `salibi-data view data/micro.zarr`

    As files for any web server: `salibi-data view data/micro.zarr --export page`
    """
    from salibi_data.store.render_rgb import as_rgb
    from salibi_data.viewer.basemap import open_basemap
    from salibi_data.viewer.samples import ViewedSamples
    from salibi_data.viewer.site import Site
    from salibi_data.viewer.tiles import LOSSLESS

    if as_json and export is None:
        raise UsageError("--json tells what an export holds; give --export DIR too.")
    site = Site(
        ViewedSamples(store, limit=limit),
        as_rgb,
        quality=quality or (LOSSLESS if export is None else EXPORT_QUALITY),
        basemap=open_basemap(basemap, attribution=basemap_attribution) if basemap else None,
    )
    if export is not None:
        _export(site, export, as_json=as_json)
    else:
        _serve(site, host, port, open_browser=open_browser)


def _serve(site: Site, host: str, port: int, *, open_browser: bool) -> None:
    from salibi_data.viewer.server import Server

    with Server(site, host=host, port=port) as server:
        try:
            typer.echo(f"{len(site.samples)} samples at {server.url} (Ctrl-C ends it)")
            if not server.is_local:
                typer.echo(f"warning: whoever can reach {host} sees this store", err=True)
            if open_browser:
                # The socket listens already, so the browser's first request waits.
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended")


def _export(site: Site, folder: Path, *, as_json: bool) -> None:
    from salibi_data.viewer.export import estimate_image_bytes
    from salibi_data.viewer.export import export as export_page

    size = common.human_bytes(estimate_image_bytes(site))
    typer.echo(f"{len(site.samples)} samples: about {size} of pictures in {folder}", err=True)
    with common.progress("writing", unit="files") as advance:
        result = export_page(site, folder, progress=advance)
    if as_json:
        common.print_json(
            {
                "directory": str(folder),
                "samples": len(site.samples),
                "files": result.num_files,
                "written": result.num_written,
                "bytes": result.num_bytes,
            }
        )
        return
    typer.echo(
        f"{result.num_files} files, {common.human_bytes(result.num_bytes)}; look at them with "
        f"`python -m http.server -d {folder}`"
    )
