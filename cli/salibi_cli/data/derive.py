"""``salibi-data subset`` and ``merge``: datasets made of others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_cli.options import Fields, with_options
from salibi_data.builds.options import BuildOptions
from salibi_data.derived.options import SelectionOptions

if TYPE_CHECKING:
    from salibi_data.derived.subset import SubsetReport

Output = Annotated[Path, typer.Option("-o", "--output", help="Store to make.")]
HELP_ORDER = Fields(
    first=("splits", "bounds_lonlat", "aoi", "max_cloud", "dates", "modalities", "limit")
)
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@with_options
def subset(
    store: Annotated[str, typer.Argument(help="Path or URL of the store to take from.")],
    *,
    output: Output,
    options: Annotated[SelectionOptions, HELP_ORDER],
    workers: Workers = BuildOptions.workers,
    as_json: Json = False,
) -> None:
    """Make a store of a part of another: of samples that match, of some modalities.

    Example: `salibi-data subset data/small.zarr -o data/clear.zarr --max-cloud 0.01`
    """
    from salibi_data.derived.selection import Selection
    from salibi_data.derived.subset import subset as make

    wanted = Selection(**vars(options))
    with common.progress("writing", unit="shards") as advance:
        found = make(store, output, wanted, workers=workers, progress=advance)
    show_subset(found, as_json=as_json)


def show_subset(found: SubsetReport, *, as_json: bool) -> None:
    """Print what a store made of a part of another holds."""
    if as_json:
        common.print_json(
            {
                "store": str(found.store),
                "samples": found.num_samples,
                "samples_in_source": found.num_in_source,
                "splits": dict(found.splits),
                "was_complete": found.was_complete,
            }
        )
        return
    verb = "are already" if found.was_complete else "are"
    typer.echo(
        f"{found.num_samples} of {found.num_in_source} samples {verb} in {found.store}; splits: "
        f"{common.plain(found.splits)}"
    )


class Keep(StrEnum):
    """Which sample of a tile that several stores have."""

    FIRST = "first"
    NEWEST = "newest"
    CLEAREST = "clearest"


def merge(
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE", help="Paths or URLs of the stores.")
    ],
    *,
    output: Output,
    keep: Annotated[
        Keep,
        typer.Option(
            help="Of a tile that several stores have: the first store's sample, the newest, the "
            "clearest."
        ),
    ] = Keep.FIRST,
    resplit: Annotated[
        bool, typer.Option("--resplit", help="Split all samples anew, by blocks.")
    ] = False,
    workers: Workers = BuildOptions.workers,
    as_json: Json = False,
) -> None:
    """Make a store of the samples of several, each tile once.

    Example: `salibi-data merge data/iowa.zarr data/ohio.zarr -o data/both.zarr`
    """
    from salibi_data.derived.merge import merge as make

    with common.progress("writing", unit="shards") as advance:
        found = make(
            stores, output, keep=keep.value, resplit=resplit, workers=workers, progress=advance
        )
    if as_json:
        common.print_json(
            {
                "store": str(found.store),
                "samples": found.num_samples,
                "samples_in_sources": list(found.num_in_sources),
                "duplicates": found.num_duplicates,
                "duplicates_of_same_dates": found.num_same_dates,
                "duplicates_of_same_dates_that_differ": found.num_differing,
                "splits": dict(found.splits),
                "was_complete": found.was_complete,
            }
        )
        return
    verb = "are already" if found.was_complete else "are"
    counts = " + ".join(str(count) for count in found.num_in_sources)
    typer.echo(
        f"{found.num_samples} samples {verb} in {found.store}, of {counts}; splits: "
        f"{common.plain(found.splits)}"
    )
    if found.num_duplicates:
        typer.echo(
            f"{found.num_duplicates} samples left out, as their tile is there already "
            f"({keep.value} kept): {found.num_same_dates} of the same dates, of which "
            f"{found.num_differing} differ in their pixels",
            err=True,
        )
