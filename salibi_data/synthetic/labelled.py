"""Writes labelled images of invented ground: one folder per class, as EuroSAT and its like have it.

The landscapes are others than the sample catalog's, and others for training, validation and test:
what a model was trained or tuned on is never what it is tested on. Each image is a NAIP photograph
of ground that one land cover dominates. A run writes into a hidden sibling folder and renames it;
equal seeds give equal bytes, whatever the number of processes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.synthetic.catalog_writer import _staging
from salibi_data.synthetic.frame import Frame, make_frame
from salibi_data.synthetic.ground.survey import CELL_M, CLASSES, SMALLEST_SHARE, Spot, choose_spots
from salibi_data.synthetic.sensors.acquisitions import FLIGHTS, NAIP_PIXEL_M
from salibi_data.synthetic.stac_catalog import LICENCE

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Landscape

GENERATOR_VERSION: Final = 1
"""Raised whenever the same seed would give other bytes."""

IMAGE_PX: Final = 128
_LANDSCAPES: Final[Mapping[str, int]] = MappingProxyType({"train": 2, "validation": 1, "test": 2})
_EXTENT_M: Final = 2400
_SEED_STRIDE: Final = 1_000_000
_APART_M: Final = 20_000
"""From one landscape to the next, and to the catalog's: no two lie in one place."""

_README: Final = """Labelled images of invented ground
==================================

Land cover: one folder per class, in train, validation and test. Every image is synthetic, drawn by
salibi; no real place is shown, and the landscapes of the three splits differ from each other and
from the sample catalog's.

Images      {px} x {px} pixels, red, green, blue, 8 bit, GeoTIFF; {gsd_m} m per pixel
Look        NAIP photographs, as in the sample catalog
Label       the land cover of at least {percent:.0f} % of the image's ground
Classes     {classes}
Seed        {seed}
Licence     {licence}
"""

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class LabelledSummary:
    """What the labelled sample holds."""

    directory: Path
    num_images: Mapping[str, Mapping[str, int]]
    """By split and class."""
    is_new: bool
    """False if it was there already."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The images of one landscape."""

    folder: Path
    split: str
    number: int
    """Of the landscape, counted over all splits from 0."""
    seed: int
    """Of the landscape."""
    num_per_class: int


def write_labelled_sample(
    directory: Path,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    num_train: int = 26,
    num_validation: int = 8,
    num_test: int = 26,
    processes: int = 2,
) -> LabelledSummary:
    """Write the labelled sample into ``directory``, or find it there.

    Args:
        directory: a folder that does not exist, is empty, or holds this very sample.
        seed: equal seeds give equal bytes; that of the catalog it goes with may be the same.
        progress: called with (landscapes done, landscapes in all).
        num_train: images per class; fewer where a landscape has not so much ground of a class.
        num_validation: the same of the validation split.
        num_test: the same of the test split.
        processes: 1 works in this process, more start as many helpers.

    Raises:
        UsageError: ``directory`` holds something else, or another run is writing it.
    """
    directory = Path(directory)
    wanted = {"train": num_train, "validation": num_validation, "test": num_test}
    identity = {"generator_version": GENERATOR_VERSION, "seed": seed, "num_per_class": wanted}
    found = _found(directory, identity)
    if found is not None:
        return LabelledSummary(directory=directory, num_images=found, is_new=False)
    with _staging(directory) as staging:
        tasks = list(_tasks(staging, seed, wanted))
        counts: Counts = {split: dict.fromkeys(CLASSES, 0) for split in wanted}
        for task, written in zip(tasks, _run(tasks, processes, progress), strict=True):
            for label, num in written.items():
                counts[task.split][label] += num
        _write_description(staging, identity, counts)
        staging.replace(directory)
    return LabelledSummary(directory=directory, num_images=counts, is_new=True)


def _found(directory: Path, identity: Mapping[str, Any]) -> Counts | None:
    """What the folder holds, if it is this sample; None if it is empty or not there.

    Raises:
        UsageError: something else is there.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    content = None
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((directory / "labelled.json").read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.get("salibi:labelled") == identity:
        counts: Counts = content["num_images"]
        return counts
    raise UsageError(
        f"{directory} holds something else than the labelled sample of {dict(identity)}; give a "
        "new folder, or remove this one first."
    )


def _tasks(folder: Path, seed: int, wanted: Mapping[str, int]) -> Iterator[_Task]:
    number = 0
    for split, num_landscapes in _LANDSCAPES.items():
        for _ in range(num_landscapes):
            yield _Task(
                folder=folder,
                split=split,
                number=number,
                seed=_SEED_STRIDE * (seed + 1) + number,
                num_per_class=-(-wanted[split] // num_landscapes),
            )
            number += 1


def _run(
    tasks: list[_Task], processes: int, progress: Callable[[int, int], None] | None
) -> list[dict[str, int]]:
    """Do the tasks, in helper processes if so asked; results in their order."""
    report = progress or (lambda _done, _total: None)
    if processes <= 1:
        written = []
        for task in tasks:
            written.append(_write_landscape(task))
            report(len(written), len(tasks))
        return written

    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from salibi_data.synthetic.parallel import _end_with_parent

    with ProcessPoolExecutor(
        max_workers=min(processes, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
    ) as pool:
        futures = [pool.submit(_write_landscape, task) for task in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            if future.exception():
                pool.shutdown(cancel_futures=True)
            report(done, len(tasks))
        return [future.result() for future in futures]


def _write_landscape(task: _Task) -> dict[str, int]:
    """Draw a landscape and photograph its images. Returns how many of each class."""
    from salibi_data.synthetic.ground.landscape import draw_landscape

    frame = make_frame()
    frame = replace(frame, origin_n=frame.origin_n + _APART_M * (task.number + 1))
    landscape = draw_landscape(seed=task.seed, width_m=_EXTENT_M, height_m=_EXTENT_M)
    spots = choose_spots(
        landscape, edge_m=IMAGE_PX * NAIP_PIXEL_M, num_per_class=task.num_per_class
    )
    _photograph(landscape, frame, task, spots)
    return {label: sum(spot.label == label for spot in spots) for label in CLASSES}


def _photograph(landscape: Landscape, frame: Frame, task: _Task, spots: list[Spot]) -> None:
    """Write the image of every spot; flights take turns by landscape."""
    from rasterio.enums import ColorInterp

    from salibi_data.synthetic import render
    from salibi_data.synthetic.ground.landscape import Window
    from salibi_data.synthetic.sensors import naip as photograph
    from salibi_data.synthetic.sensors import optics as imaging

    pixel_m, edge_m = NAIP_PIXEL_M, IMAGE_PX * NAIP_PIXEL_M
    flight = FLIGHTS[task.number % len(FLIGHTS)]
    day_of_year = flight.flown_utc.timetuple().tm_yday
    cover = imaging.grow(landscape, year=flight.flown_utc.year, day_of_year=day_of_year)
    day = imaging.Day(sun=flight.sun, cover=cover)
    palette, camera = imaging.mix_palette(landscape), photograph.NaipCamera.of_seed(landscape.seed)
    for spot in spots:
        # On the lattice of the camera's pixels.
        column, row = (round(k * CELL_M / pixel_m) for k in (spot.column, spot.row))
        west, north = column * pixel_m, _EXTENT_M - row * pixel_m
        window = Window(
            west_m=west, north_m=north, pixel_m=pixel_m, rows=IMAGE_PX, columns=IMAGE_PX
        )
        ground = landscape.sample(window.grown(photograph.NAIP_HALO_PX))
        image = photograph.photograph(landscape, ground, camera, palette, [day], (row, column))
        name = f"{spot.label}_{task.number}_{row:04d}_{column:04d}.tif"
        render.write_cog(
            task.folder / task.split / spot.label / name,
            frame,
            render.Grid(bounds=(west, north - edge_m, west + edge_m, north), pixel_m=pixel_m),
            image[0, :3],
            colorinterp=(ColorInterp.red, ColorInterp.green, ColorInterp.blue),
        )


def _write_description(folder: Path, identity: Mapping[str, Any], counts: Counts) -> None:
    """Write the text for people, and what a later run knows its own work by."""
    text = _README.format(
        px=IMAGE_PX,
        gsd_m=NAIP_PIXEL_M,
        percent=100 * SMALLEST_SHARE,
        classes=", ".join(CLASSES),
        seed=identity["seed"],
        licence=LICENCE,
    )
    (folder / "README.txt").write_text(text, encoding="utf-8")
    content = {
        "salibi:labelled": identity,
        "classes": list(CLASSES),
        "gsd_m": NAIP_PIXEL_M,
        "bands": ["red", "green", "blue"],
        "licence": LICENCE,
        "num_images": counts,
    }
    (folder / "labelled.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
