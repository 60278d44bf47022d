"""``salibi-data subset`` and ``merge``: make stores from other stores."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salibi_cli import common
from salibi_cli.options import Fields, arguments_of, with_options
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
    """Make a store from the samples of another that match, and from some of its modalities.

    Example: `salibi-data subset data/small.zarr -o data/clear.zarr --max-cloud 0.01`
    """
    from salibi_data.derived.selection import Selection
    from salibi_data.derived.subset import subset as make_subset

    wanted = Selection(**arguments_of(options))
    with common.progress("writing", unit="shards") as advance:
        report = make_subset(store, output, wanted, workers=workers, progress=advance)
    show_subset(report, as_json=as_json)


def show_subset(report: SubsetReport, *, as_json: bool) -> None:
    """Print the report of a subset."""
    if as_json:
        common.print_json(
            {
                "store": str(report.store),
                "samples": report.num_samples,
                "samples_in_source": report.num_in_source,
                "splits": dict(report.splits),
                "was_complete": report.was_complete,
            }
        )
        return
    verb = "are already" if report.was_complete else "are"
    typer.echo(
        f"{report.num_samples} of {report.num_in_source} samples {verb} in {report.store}; splits: "
        f"{common.plain(report.splits)}"
    )


class Keep(StrEnum):
    """Rule for a tile that several stores have: the sample that is kept."""

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
            help="Sample that is kept of a tile in several stores: the first store's, the newest, the "
            "clearest."
        ),
    ] = Keep.FIRST,
    resplit: Annotated[
        bool, typer.Option("--resplit", help="Split all samples anew, by blocks.")
    ] = False,
    workers: Workers = BuildOptions.workers,
    as_json: Json = False,
) -> None:
    """Make a store from the samples of several stores, each tile once.

    Example: `salibi-data merge data/iowa.zarr data/ohio.zarr -o data/both.zarr`
    """
    from salibi_data.derived.merge import merge as merge_stores

    with common.progress("writing", unit="shards") as advance:
        report = merge_stores(
            stores, output, keep=keep.value, resplit=resplit, workers=workers, progress=advance
        )
    if as_json:
        common.print_json(
            {
                "store": str(report.store),
                "samples": report.num_samples,
                "samples_in_sources": list(report.num_in_sources),
                "duplicates": report.num_duplicates,
                "duplicates_of_same_dates": report.num_same_dates,
                "duplicates_of_same_dates_that_differ": report.num_differing,
                "splits": dict(report.splits),
                "was_complete": report.was_complete,
            }
        )
        return
    verb = "are already" if report.was_complete else "are"
    counts = " + ".join(str(count) for count in report.num_in_sources)
    typer.echo(
        f"{report.num_samples} samples {verb} in {report.store}, of {counts}; splits: "
        f"{common.plain(report.splits)}"
    )
    if report.num_duplicates:
        typer.echo(
            f"{report.num_duplicates} samples left out, as another store has their tile "
            f"({keep.value} kept): {report.num_same_dates} of the same dates, of which "
            f"{report.num_differing} differ in their pixels",
            err=True,
        )
