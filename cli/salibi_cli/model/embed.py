"""The commands ``salibi-model embed`` and ``salibi-model export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salibi_cli import common
from salibi_cli.options import arguments_of, with_options
from salibi_model.embeddings.options import EmbedOptions

_Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
]


@with_options
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
        Path, typer.Option("--out", "-o", help="New folder for a Zarr group and a table.")
    ],
    options: EmbedOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: common.Device = "auto",
) -> None:
    """Embed stores, rasters of any size and images; run it again after a stop to continue.

    Example: `salibi-model embed runs/tiny data/micro.zarr -o embeddings`

    A scene: `salibi-model embed runs/tiny scene.tif -o scene --modality lores --stride 128`
    """
    from salibi_model.distributed import choose_device
    from salibi_model.embeddings.embed import embed as embed_inputs

    with common.progress("embedding", unit="images") as advance:
        result = embed_inputs(
            checkpoint,
            inputs,
            out=out,
            device=choose_device(device),
            on_image=advance,
            **arguments_of(options),
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
        typer.Option(
            "--license", help="Licence of the weights, such as cc-by-4.0.  [default: not stated]"
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results of `eval`, for the card's table.")
    ] = None,
) -> None:
    """Write weights, description and model card for publication, without local paths.

    Example: `salibi-model export runs/tiny -o tiny-export --license cc-by-4.0`
    """
    from salibi_model.exports.export import export as export_model

    folder = export_model(checkpoint, out, licence=licence, results=results)
    typer.echo(f"wrote {folder}")
    typer.echo(f"next: read {folder / 'README.md'}, and add what only you know")
