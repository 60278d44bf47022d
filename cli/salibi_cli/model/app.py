"""The command ``salibi-model``: train on stores, evaluate and use the models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salibi_cli import common
from salibi_cli.model.attention import attention_figure
from salibi_cli.model.compare import compare
from salibi_cli.model.embed import embed, export
from salibi_cli.model.evaluate import evaluation
from salibi_cli.model.train import train
from salibi_cli.options import arguments_of, with_options
from salibi_model.evals.options import ReconstructionOptions

if TYPE_CHECKING:
    from salibi_model.evals.reconstruction import ReconstructionReport

application = common.app(help="Train the Scale-ALiBi tri-encoder on Salibi stores, and use it.")
application.add_typer(evaluation, name="eval")
application.command()(train)
application.command()(compare)
application.command("attention")(attention_figure)
application.command()(embed)
application.command()(export)

Checkpoint = Annotated[
    Path, typer.Argument(help="A run's folder, or its model/ folder.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@application.command()
@with_options
def reconstruct(
    checkpoint: Checkpoint,
    store: Annotated[str, typer.Argument(help="A store: folder or URL.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the figure.")] = Path(
        "grid.png"
    ),
    options: ReconstructionOptions,
    as_json: Json = False,
    device: common.Device = "auto",
) -> None:
    """Draw the model's predictions of hidden patches, and measure their errors in dB or reflectance.

    Example: `salibi-model reconstruct runs/tiny data/micro.zarr -o grid.png -n 4`

    SAR to optical: `salibi-model reconstruct runs/tiny data/micro.zarr --hide lores,hires_4x`
    """
    from salibi_data.inspection.panels import check_path
    from salibi_model.distributed import choose_device
    from salibi_model.evals.reconstruction import reconstruct as predict_hidden

    check_path(out)
    with common.progress("predicting", unit="samples") as advance:
        report = predict_hidden(
            checkpoint,
            store,
            **arguments_of(options),
            device=str(choose_device(device)),
            on_sample=advance,
        )
    _draw_reconstruction(report, out)
    if as_json:
        common.print_json(report.to_dict())
        return
    _print_errors(report)
    typer.echo(f"wrote {out}")


@application.command()
def convert(
    file: Annotated[
        Path, typer.Argument(help="The authors' .pth, or CROMA's .pt.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new checkpoint.")],
    num_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads; the file does not state them.  [default: 16]"),
    ] = None,
) -> None:
    """Convert a published checkpoint into one of Salibi, without unpickling objects.

    Example: `salibi-model convert CROMA_base.pt -o runs/croma-base`
    """
    from salibi_model.checkpoints.convert import convert as convert_checkpoint

    folder = convert_checkpoint(file, out, num_heads=num_heads)
    typer.echo(f"wrote {folder}")
    typer.echo(f"next: salibi-model info {out}")


@application.command()
def info(checkpoint: Checkpoint, *, as_json: Json = False) -> None:
    """Describe a checkpoint: size, modalities, and how it was trained.

    Example: `salibi-model info runs/tiny`
    """
    from salibi_model.checkpoints.files import describe

    content = describe(checkpoint)
    if as_json:
        common.print_json(content)
        return
    size, training = content["size"], content["training"]
    mistakes = ", ".join(map(str, content["mistakes"]))
    chosen = f" with mistakes {mistakes}" if mistakes else ""
    typer.echo(
        f"{content['architecture']}{chosen}, size {common.plain(training.get('size', '-'))}: width "
        f"{size['dim']}, depth {size['depth']}, {size['num_heads']} heads, "
        f"patch {content['patch_px']} px"
    )
    common.print_table(
        [
            {
                "modality": modality["name"],
                "bands": " ".join(modality["bands"]),
                "units": modality["units"],
                "GSD ratio": f"{modality['gsd_ratio']:g}",
                "mean": " ".join(f"{value:.1f}" for value in modality["mean"]),
                "std": " ".join(f"{value:.1f}" for value in modality["std"]),
            }
            for modality in content["modalities"]
        ]
    )
    _print_origin(training)


def _print_origin(training: dict[str, Any]) -> None:
    """Print the known facts of the training; an edited or foreign model may lack some."""
    facts = {name: common.plain(value) for name, value in training.items()}
    if "converted_from" in facts:
        typer.echo(f"converted from {facts['converted_from']}")
        return
    names = ("step", "steps", "batch_size", "mask_ratio", "seed")
    step, steps, batch_size, mask_ratio, seed = (facts.get(name, "?") for name in names)
    typer.echo(
        f"trained for {step} of {steps} steps, batch {batch_size}, mask ratio {mask_ratio}, "
        f"seed {seed}"
    )
    stores, digests = (training.get(name) for name in ("stores", "store_digests"))
    if isinstance(stores, list) and isinstance(digests, list):
        for store, digest in zip(stores, digests, strict=False):
            typer.echo(f"on {common.plain(store)} (plan {common.plain(digest)[:12]})")


def main() -> None:
    """Entry point of ``salibi-model``."""
    common.run(application)


def _draw_reconstruction(report: ReconstructionReport, out: Path) -> None:
    from salibi_data.inspection.panels import Panel, save_panels
    from salibi_data.store.render_rgb import as_rgb

    titles = {
        "original": "original",
        "masked": "seen",
        "predicted": "predicted",
        "composite": "seen + predicted",
    }
    rows = [
        [
            Panel(title=title, image=as_rgb(getattr(row, layer), row.modality))
            for layer, title in titles.items()
        ]
        for row in report.shown
    ]
    given = (
        "Each patch's mean and contrast are the original's (as in MAE); its content is the model's."
    )
    save_panels(
        rows,
        out,
        row_labels=[f"{row.sample}: {row.modality.name}" for row in report.shown],
        heading=f"What is hidden, predicted. {given if report.given_statistics else ''}",
    )


def _print_errors(report: ReconstructionReport) -> None:
    common.print_table(
        [
            {
                "modality": error.modality,
                "units": error.units,
                "RMSE": f"{error.rmse:.3g}",
                "without content": f"{error.flat_rmse:.3g}",
                "mean error": f"{error.mae:.3g}",
                "RMSE by band": " ".join(f"{b} {v:.3g}" for b, v in error.rmse_by_band.items()),
            }
            for error in report.errors
        ]
    )
    flat = (
        "each patch's own mean, which the predictions are given as well"
        if report.given_statistics
        else "the modality's mean"
    )
    typer.echo(f"{report.num_samples} samples; without content: predicting {flat}")
