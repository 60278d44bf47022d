"""Writes labelled images of invented ground: one folder per class, the layout of EuroSAT.

Training, validation and test images show different landscapes, none of them the sample catalog's,
so no model is tested on ground it was trained or tuned on. Each image is a NAIP photograph of
ground that one land cover dominates. A run writes to a hidden sibling folder and renames it at the
end. The same seed gives the same bytes with any number of processes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.synthetic.frame import Frame, make_frame
from salibi_data.synthetic.ground.survey import (
    CELL_M,
    CLASSES,
    SMALLEST_SHARE,
    LabelledSquare,
    choose_squares,
)
from salibi_data.synthetic.sensors.acquisitions import FLIGHTS, NAIP_PIXEL_M
from salibi_data.synthetic.stac_catalog import LICENCE
from salibi_data.synthetic.staging import staging_folder

if TYPE_CHECKING:
    from salibi_data.store.progress import Progress
    from salibi_data.synthetic.ground.landscape import Landscape

GENERATOR_VERSION: Final = 1
"""Version of the bytes: increased with every change that gives a seed other bytes."""

IMAGE_PX: Final = 128
_NUM_LANDSCAPES: Final[Mapping[str, int]] = MappingProxyType(
    {"train": 2, "validation": 1, "test": 2}
)
_EXTENT_M: Final = 2400
_SEED_STRIDE: Final = 1_000_000
_LANDSCAPE_STEP_M: Final = 20_000
"""Distance northwards from one landscape to the next, starting from the sample catalog's."""

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
    """Content of a labelled sample."""

    directory: Path
    num_images: Mapping[str, Mapping[str, int]]
    """Number of images by split and class."""
    is_new: bool
    """Whether this call wrote the sample; False if it existed."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Order to write the images of one landscape."""

    folder: Path
    split: str
    number: int
    """Number of the landscape, counted over all splits from 0."""
    seed: int
    """Random seed of the landscape."""
    num_per_class: int
    """Largest number of images of each class."""


def write_labelled_sample(
    directory: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    num_train: int = 26,
    num_validation: int = 8,
    num_test: int = 26,
    processes: int = 2,
) -> LabelledSummary:
    """Write the labelled sample into ``directory``, unless it is there.

    Args:
        directory: folder that does not exist, is empty, or holds the sample of these arguments.
        seed: random seed; the same seed always gives the same bytes. The landscapes differ from
            the sample catalog's even where its seed is the same.
        progress: called with (landscapes done, landscapes in total).
        num_train: images per class in the training split; fewer for a class that a landscape has
            too little ground of.
        num_validation: images per class in the validation split, likewise.
        num_test: images per class in the test split, likewise.
        processes: number of processes that draw; 1 draws in this process.

    Raises:
        UsageError: ``directory`` holds something else, or another run is writing it.
    """
    directory = Path(directory)
    num_per_class = {"train": num_train, "validation": num_validation, "test": num_test}
    identity = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "num_per_class": num_per_class,
    }
    present_counts = _read_counts(directory, identity)
    if present_counts is not None:
        return LabelledSummary(directory=directory, num_images=present_counts, is_new=False)
    with staging_folder(directory) as staging:
        tasks = list(_tasks(staging, seed, num_per_class))
        counts: Counts = {split: dict.fromkeys(CLASSES, 0) for split in num_per_class}
        for task, task_counts in zip(tasks, _run(tasks, processes, progress), strict=True):
            for label, num in task_counts.items():
                counts[task.split][label] += num
        _write_description(staging, identity, counts)
        staging.replace(directory)
    return LabelledSummary(directory=directory, num_images=counts, is_new=True)


def _read_counts(directory: Path, identity: Mapping[str, Any]) -> Counts | None:
    """Return the number of images of a present sample; None if the folder is empty or missing.

    Raises:
        UsageError: the folder holds something else.
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
        f"{directory} holds something else, not the labelled sample of {dict(identity)}; give a "
        "new folder, or remove this one first."
    )


def _tasks(folder: Path, seed: int, num_per_class: Mapping[str, int]) -> Iterator[_Task]:
    number = 0
    for split, num_landscapes in _NUM_LANDSCAPES.items():
        for _ in range(num_landscapes):
            yield _Task(
                folder=folder,
                split=split,
                number=number,
                seed=_SEED_STRIDE * (seed + 1) + number,
                num_per_class=-(-num_per_class[split] // num_landscapes),
            )
            number += 1


def _run(tasks: list[_Task], processes: int, progress: Progress | None) -> list[dict[str, int]]:
    """Run the tasks, in worker processes if there are several; results in the order of tasks."""
    report = progress or (lambda _done, _total: None)
    if processes <= 1:
        counts = []
        for task in tasks:
            counts.append(_write_landscape(task))
            report(len(counts), len(tasks))
        return counts

    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from salibi_data.synthetic.parallel import exit_with_parent

    with ProcessPoolExecutor(
        max_workers=min(processes, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=exit_with_parent,
    ) as pool:
        futures = [pool.submit(_write_landscape, task) for task in tasks]
        for num_done, future in enumerate(as_completed(futures), start=1):
            if future.exception():
                pool.shutdown(cancel_futures=True)
            report(num_done, len(tasks))
        return [future.result() for future in futures]


def _write_landscape(task: _Task) -> dict[str, int]:
    """Draw a landscape and photograph its images. Return the number of images by class."""
    from salibi_data.synthetic.ground.landscape import draw_landscape

    frame = make_frame()
    frame = replace(frame, origin_n=frame.origin_n + _LANDSCAPE_STEP_M * (task.number + 1))
    landscape = draw_landscape(seed=task.seed, width_m=_EXTENT_M, height_m=_EXTENT_M)
    squares = choose_squares(
        landscape, edge_m=IMAGE_PX * NAIP_PIXEL_M, num_per_class=task.num_per_class
    )
    _photograph_squares(landscape, frame, task, squares)
    return {label: sum(square.label == label for square in squares) for label in CLASSES}


def _photograph_squares(
    landscape: Landscape, frame: Frame, task: _Task, squares: list[LabelledSquare]
) -> None:
    """Write the image of every square; the landscapes take the flights of NAIP in turn."""
    from rasterio.enums import ColorInterp

    from salibi_data.synthetic import rasters, render
    from salibi_data.synthetic.ground.landscape import GroundWindow
    from salibi_data.synthetic.sensors import naip, optics

    pixel_m, edge_m = NAIP_PIXEL_M, IMAGE_PX * NAIP_PIXEL_M
    flight = FLIGHTS[task.number % len(FLIGHTS)]
    conditions = render.conditions_at(landscape, flight.flown_utc, flight.sun)
    palette, camera = optics.surface_palette(landscape), naip.NaipCamera.from_seed(landscape.seed)
    for square in squares:
        # Survey cells are no multiple of the camera's pixels: take the nearest pixel.
        column, row = (round(k * CELL_M / pixel_m) for k in (square.column, square.row))
        west, north = column * pixel_m, _EXTENT_M - row * pixel_m
        window = GroundWindow(
            west_m=west, north_m=north, pixel_m=pixel_m, rows=IMAGE_PX, columns=IMAGE_PX
        )
        ground = landscape.sample(window.grown(naip.NAIP_HALO_PX))
        image = naip.photograph(landscape, ground, camera, palette, [conditions], (row, column))
        name = f"{square.label}_{task.number}_{row:04d}_{column:04d}.tif"
        rasters.write_cog(
            task.folder / task.split / square.label / name,
            frame,
            rasters.RasterGrid(
                bounds=(west, north - edge_m, west + edge_m, north), pixel_m=pixel_m
            ),
            image[0, :3],
            colorinterp=(ColorInterp.red, ColorInterp.green, ColorInterp.blue),
        )


def _write_description(folder: Path, identity: Mapping[str, Any], counts: Counts) -> None:
    """Write a text for people, and the arguments by which a later run recognises the sample."""
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
