"""The commands ``salibi-model embed`` and ``salibi-model export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salibi_cli import common

_Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
]


def embed(
    checkpoint: _Checkpoint,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Stores (folder, or URL ending in .zarr), GeoTIFFs, images.", show_default=False
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="New folder: a Zarr group, and a table.")
    ],
    modality: Annotated[
        str | None,
        typer.Option(help="Whose encoder sees them: lores, or sar,lores.  [default: what fits]"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of a store: train, validation, test.  [default: all]")
    ] = None,
    window_px: Annotated[
        int | None,
        typer.Option(min=1, help="Edge of a raster's windows.  [default: as in training]"),
    ] = None,
    stride_px: Annotated[
        int | None,
        typer.Option("--stride", min=1, help="Pixels from window to window.  [default: the edge]"),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="A raster's bands, in its order: red,green,blue.  [default: its names]"),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(help="Of its values: stored, display, reflectance, dB, linear (power)."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Physical = offset + scale * value.  [default: the file's]")
    ] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Value of what was not observed, besides the file's mask.")
    ] = None,
    gsd_m: Annotated[
        float | None, typer.Option(help="Metres per pixel.  [default: from the georeference]")
    ] = None,
    gsd_ratio: Annotated[
        float | None, typer.Option(help="In its place, for a model that knows no metres.")
    ] = None,
    any_gsd: Annotated[
        bool, typer.Option("--any-gsd", help="Take also a GSD far from those of the training.")
    ] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Keep the tokens of every patch, too.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at a time.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read ahead.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: common.Device = "auto",
) -> None:
    """Embed stores, rasters of any size and images; run again after a stop, it goes on.

    Example: `salibi-model embed runs/tiny data/micro.zarr -o embeddings`

    A scene: `salibi-model embed runs/tiny scene.tif -o scene --modality lores --stride 128`
    """
    from salibi_model.distributed import choose_device
    from salibi_model.embeddings.embed import embed as write

    with common.progress("embedding", unit="images") as advance:
        result = write(
            checkpoint,
            inputs,
            out=out,
            batch_size=batch_size,
            device=choose_device(device),
            workers=workers,
            on_image=advance,
            modalities=common.listed(modality) or (),
            split=split,
            window_px=window_px,
            stride_px=stride_px,
            bands=common.listed(bands) or (),
            units=units,
            scale=scale,
            offset=offset,
            nodata=nodata,
            gsd_m=gsd_m,
            gsd_ratio=gsd_ratio,
            any_gsd=any_gsd,
            tokens=tokens,
        )
    if as_json:
        common.print_json(result.to_dict())
        return
    common.print_table(
        [
            {
                "modality": name,
                "embeddings": rows,
                "width": result.dim,
                "left out (no data)": result.num_empty[name],
            }
            for name, rows in result.num_rows.items()
        ]
    )
    typer.echo(f"{out} is complete; nothing to do" if result.already_complete else f"wrote {out}")


def export(
    checkpoint: _Checkpoint,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder, or an earlier export.")],
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights: cc-by-4.0.  [default: not stated]"),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results of `eval`, for the card's table.")
    ] = None,
) -> None:
    """Write weights, description and model card, without local paths, to be passed on.

    Example: `salibi-model export runs/tiny -o tiny-export --license cc-by-4.0`
    """
    from salibi_model.exports.export import export as write

    folder = write(checkpoint, out, licence=licence, results=results)
    typer.echo(f"wrote {folder}")
    typer.echo(f"next: read {folder / 'README.md'}, and add what only you know")
