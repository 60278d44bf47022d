"""``salibi-data publish`` and ``pull``: upload stores as releases, and download them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from salibi_cli import common
from salibi_cli.data.derive import HELP_ORDER, show_subset
from salibi_cli.options import arguments_of, with_options
from salibi_data.derived.options import SelectionOptions
from salibi_data.releases.options import TransferOptions

if TYPE_CHECKING:
    from salibi_data.derived.selection import Selection
    from salibi_data.releases.publish import Published

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_NUM_SHOWN: Final = 4
_EDGE_PX: Final = 256
"""Edge of a panel in the dataset card's figure, in pixels."""


@with_options
def publish(
    store: Annotated[Path, typer.Argument(help="Path of the store.")],
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Address of the dataset: s3://, gs://, az://, file://."),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset; default the store's variant.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be sent; write nothing.")
    ] = False,
    transfer: TransferOptions,
    as_json: Json = False,
) -> None:
    """Make a store the newest release of the dataset at a URL.

    Example: `salibi-data publish data/micro.zarr s3://bucket/micro`

    Readers see the previous release until the last file is there. Run it again after a stop to
    continue.
    """
    from salibi_data.inspection.plot import as_jpeg, plot
    from salibi_data.releases.publish import publish as publish_store

    figure = as_jpeg(plot(store, num_samples=_NUM_SHOWN, edge_px=_EDGE_PX))
    with common.progress("publishing", unit="files") as advance:
        result = publish_store(
            store,
            url,
            name=name,
            figure=figure,
            dry_run=dry_run,
            workers=transfer.workers,
            progress=advance,
        )
    if as_json:
        common.print_json({**_figures(result), "dry_run": dry_run})
        return
    sent = f"{result.files_sent} of {result.files} files ({common.human_bytes(result.bytes_sent)})"
    if dry_run:
        typer.echo(f"{sent} would be sent to {url}; nothing was written")
    elif result.before == result.release and not result.files_sent:
        typer.echo(f"{url} has this release already; nothing was sent")
    else:
        typer.echo(f"{sent} sent; {result.release.samples} samples are the newest release at {url}")


@with_options
def pull(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of a published dataset, or of a store.")
    ],
    directory: Annotated[Path, typer.Argument(help="Path of the new store.")],
    *,
    options: Annotated[SelectionOptions, HELP_ORDER],
    transfer: TransferOptions,
    as_json: Json = False,
) -> None:
    """Fetch the newest release of a dataset, or a part of it.

    Example: `salibi-data pull s3://bucket/micro data/micro.zarr`

    A part: `salibi-data pull s3://bucket/micro data/part.zarr --split train --modalities sar,lores`

    Run it again after a stop to continue.
    """
    from salibi_data.derived.selection import Selection

    wanted = Selection(**arguments_of(options))
    if wanted == Selection():
        _pull_whole(url, directory, transfer.workers, as_json=as_json)
    else:
        _pull_part(url, directory, wanted, transfer.workers, as_json=as_json)


def _pull_whole(url: str, directory: Path, workers: int, *, as_json: bool) -> None:
    from salibi_data.releases.pull import pull as pull_release

    with common.progress("pulling", unit="files") as advance:
        result = pull_release(url, directory, workers=workers, progress=advance)
    if as_json:
        common.print_json({**asdict(result), "store": str(result.store)})
        return
    typer.echo(
        f"{result.num_samples} samples in {result.store}; {result.files_fetched} of {result.files} files "
        f"({common.human_bytes(result.bytes_fetched)}) fetched"
    )


def _pull_part(
    url: str, directory: Path, selection: Selection, workers: int, *, as_json: bool
) -> None:
    from salibi_data.derived.subset import subset

    with common.progress("pulling", unit="shards") as advance:
        report = subset(url, directory, selection, connections=workers, progress=advance)
    show_subset(report, as_json=as_json)


def _figures(result: Published) -> dict[str, Any]:
    return {
        "url": result.url,
        "release": result.release.to_dict(),
        "before": None if result.before is None else result.before.to_dict(),
        "files": result.files,
        "files_sent": result.files_sent,
        "bytes_sent": result.bytes_sent,
    }
