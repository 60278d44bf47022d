"""Opens labelled images: recognises the layout of a folder and chooses its reader."""

from collections.abc import Sequence
from pathlib import Path

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redact
from salibi_data.store.validation import check_applicable
from salibi_model.data.input_names import distinct_names
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.evals.options import DEFAULT_PARTITION, FOLDERS, TASKS, EvalOptions


def open_labelled(
    path: str | Path,
    *,
    gsd_m: float | None = None,
    partition: str | None = None,
    seed: int = 0,
    bands: tuple[str, ...] | None = None,
    units: str | None = None,
) -> LabelledImages:
    """Open one labelled data set: a GEO-Bench v1 task, or a folder of images per class.

    Args:
        path: folder of a GEO-Bench v1 task (Lacoste et al. 2023, arXiv 2306.03831), or one with a
            folder of images per class.
        gsd_m: metres per pixel, for images without a georeference; overrides the georeference of
            images that have one.
        partition: GEO-Bench's partition: ``default``, which ``None`` stands for, ``0.01x_train`` to
            ``1.00x_train``.
        seed: random seed of the split of images that come without one.
        bands: names of the images' bands, where the files have none.
        units: units of plain images that are neither of 8 bits nor in those of the model's training:
            ``stored``, ``uint8``, ``reflectance``, ``dn`` (Sentinel-2's numbers), ``db`` or
            ``power``. Power is converted to dB; the nodata value 0 of ``stored`` and ``dn`` is NaN.

    Raises:
        UsageError: there is no labelled data set, there are several, or an option does not apply
            to it.
        StoreError: the data set is incomplete or damaged.

    Example:
        >>> from PIL import Image
        >>> for name in ("forest", "water"):
        ...     (folder / "photographs" / name).mkdir(parents=True)
        ...     for number in range(5):
        ...         image = Image.new("RGB", (64, 64), (40, 20 * number, 90))
        ...         image.save(folder / "photographs" / name / f"{number}.png")
        >>> data = open_labelled(folder / "photographs", gsd_m=10.0)
        >>> data.task, data.classes, len(data.split_indices("train"))
        ('classification', ('forest', 'water'), 6)
        >>> data.read([0, 1], ["red"]).shape, data.labels([0, 1]).tolist()
        ((2, 1, 64, 64), [0, 0])
    """
    # Here, so that training without a probe needs neither h5py nor rasterio.
    from salibi_model.evals.datasets.class_folders import ClassFolders
    from salibi_model.evals.datasets.geobench import GeoBenchTask, is_task, task_folders

    if "://" in str(path):
        raise UsageError(
            f"{redact(str(path))} is an address; labelled images are read from folders: copy them "
            "first."
        )
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder; give that of a GEO-Bench v1 task, or one with a folder of "
            "images per class."
        )
    given = {
        name: value
        for name, value in (("gsd_m", gsd_m), ("partition", partition), ("units", units))
        if value is not None
    }
    if is_task(folder):
        reason = f"{folder} is a GEO-Bench task, whose GSD and bands are known, as its units are"
        check_applicable(EvalOptions, given, {FOLDERS: reason})
        if bands is not None:
            raise UsageError(f"bands applies to {FOLDERS}, but {reason}. Leave it out.")
        return GeoBenchTask(folder, partition=partition or DEFAULT_PARTITION)
    if tasks := task_folders(folder):
        raise UsageError(
            f"{folder} holds {len(tasks)} GEO-Bench tasks; give one of them, such as {tasks[0]}."
        )
    check_applicable(
        EvalOptions,
        given,
        {TASKS: f"{folder} is no GEO-Bench task, and only those have partitions"},
    )
    return ClassFolders(folder, gsd_m=gsd_m, seed=seed, bands=bands, units=units)


def open_all(
    path: str | Path,
    *,
    gsd_m: float | None = None,
    partition: str | None = None,
    seed: int = 0,
    bands: tuple[str, ...] | None = None,
    units: str | None = None,
) -> list[LabelledImages]:
    """Open every labelled data set of a folder: the tasks of a GEO-Bench root, or the only one.

    Args:
        path: as for :func:`open_labelled`; or ``$GEO_BENCH_DIR``, or one of its benchmarks.
        gsd_m: as for :func:`open_labelled`.
        partition: as for :func:`open_labelled`.
        seed: as for :func:`open_labelled`.
        bands: as for :func:`open_labelled`.
        units: as for :func:`open_labelled`.

    Raises:
        UsageError, StoreError: as :func:`open_labelled`.
    """
    from salibi_model.evals.datasets.geobench import is_task, task_folders

    folder = Path(path)
    tasks = [] if is_task(folder) else task_folders(folder)
    return [
        open_labelled(each, gsd_m=gsd_m, partition=partition, seed=seed, bands=bands, units=units)
        for each in tasks or [folder]
    ]


def open_data(
    paths: Sequence[str],
    *,
    gsd_m: float | None = None,
    partition: str | None = None,
    units: str | None = None,
) -> list[LabelledImages]:
    """Open the labelled data sets of several folders, and refuse Salibi stores.

    Raises:
        UsageError: a path is that of a Salibi store, which has no labels, or of no labelled data.
        StoreError: a data set is damaged.
    """
    for path in paths:
        if "://" in path or (Path(path) / "zarr.json").is_file():
            raise UsageError(
                f"{redact(path)} is a store: its samples have no labels. Give a GEO-Bench folder or "
                "one with a folder of images per class, or take `salibi-model eval retrieval`."
            )
    names = distinct_names(paths)
    data: list[LabelledImages] = []
    for path, name in zip(paths, names, strict=True):
        opened = open_all(path, gsd_m=gsd_m, partition=partition, units=units)
        # Folders of one name, which the rows of results are told apart by.
        if "/" in name and len(opened) == 1:
            opened[0].name = name
        data += opened
    return data
