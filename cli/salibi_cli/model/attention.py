"""The command ``salibi-model attention``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salibi_cli import common
from salibi_cli.options import arguments_of, with_options
from salibi_model.evals.options import AttentionOptions


@with_options
def attention_figure(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
    ],
    store: Annotated[str, typer.Argument(help="A store: folder or URL.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure: .png, .svg, .pdf.")] = Path(
        "attention.png"
    ),
    options: AttentionOptions,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print JSON: reach in metres per head and block.")
    ] = False,
    device: common.Device = "auto",
) -> None:
    """Draw the reach of each head: bias and measured attention over ground metres.

    Example: `salibi-model attention runs/tiny data/micro.zarr -o attention.png`
    """
    from salibi_cli.figures.attention import check_figure_path, save_attention_figure
    from salibi_model.distributed import choose_device
    from salibi_model.evals.attention_distance import attention_distance

    check_figure_path(out)
    with common.progress("measuring", unit="samples") as advance:
        report = attention_distance(
            checkpoint,
            store,
            **arguments_of(options),
            device=str(choose_device(device)),
            on_sample=advance,
        )
    save_attention_figure(report, out, name="/".join(checkpoint.parts[-2:]))
    if as_json:
        common.print_json(report.to_dict())
    typer.echo(f"wrote {out}", err=as_json)
