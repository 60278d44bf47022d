"""``salibi-data subset``: a part of a dataset as a dataset of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salibi_cli import common
from salibi_cli.building import Aoi, Bbox, bounds_of

Output = Annotated[Path, typer.Option("-o", "--output", help="Store to make.")]
Modalities = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Only these, such as sar,lores; default all."),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def subset(
    store: Annotated[Path, typer.Argument(help="Path of the store to take from.")],
    *,
    output: Output,
    split: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these, such as train,validation.")
    ] = None,
    bbox: Bbox = None,
    aoi: Aoi = None,
    max_cloud: Annotated[
        float | None, typer.Option(metavar="SHARE", help="At most so cloudy, 0..1.")
    ] = None,
    dates: Annotated[
        str | None,
        typer.Option(
            metavar="A/B", help="Only seen within by every sensor, as 2021-05-01/2022-09-30."
        ),
    ] = None,
    modalities: Modalities = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many samples, drawn evenly.")
    ] = None,
    max_shift: Annotated[
        float | None,
        typer.Option(metavar="METRES", help="At most so far between the images of two sensors."),
    ] = None,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Make a store of a part of another: of samples that match, of some modalities.

    Example: `salibi-data subset data/small.zarr -o data/clear.zarr --max-cloud 0.01`
    """
    from salibi_data.selection import Selection
    from salibi_data.subsetting import subset as make

    wanted = Selection(
        splits=common.listed(split),
        bounds_lonlat=bounds_of(bbox),
        aoi=aoi,
        max_cloud=max_cloud,
        dates=dates,
        modalities=common.listed(modalities),
        limit=limit,
        max_shift_m=max_shift,
    )
    with common.progress("writing", unit="shards") as advance:
        found = make(store, output, wanted, workers=workers, progress=advance)
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
