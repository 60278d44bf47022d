"""Record a run: ``metrics.csv``, images, and copies at TensorBoard and other trackers."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from salibi_data.store.filesystem import write_atomically
from salibi_model.checkpoints.files import RunFolder
from salibi_model.errors import CheckpointError
from salibi_model.training.tracking.run import TrackedRun, public
from salibi_model.training.tracking.trackers import open_trackers

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class MetricsLog:
    """Appends one row per step. On resuming, rows of steps that are repeated are dropped.

    TensorBoard, where it is installed, and the chosen trackers receive the same values.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        first_step: int,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] = _NOTHING,
        run_name: str = "",
    ) -> None:
        """Open the log of a run.

        Args:
            folder: folder of the run.
            first_step: number of the next step; steps count from 1.
            trackers: names from :data:`~salibi_model.training.config.TRACKERS`.
            config: configuration that trackers receive; queries of URLs are removed.
            run_name: name of the run at trackers; by default that of its folder.

        Raises:
            UsageError: a tracker cannot be used; nothing was changed.
        """
        name = run_name or folder.path.resolve().name
        tracked = TrackedRun(folder=folder, name=name, config=public(config))
        self._trackers = open_trackers(trackers, tracked)
        _drop_rows_from(folder.metrics, first_step)
        self._path = folder.metrics
        self._samples = folder.path / "samples"
        self._columns = _columns(folder.metrics)
        self._file = folder.metrics.open("a", newline="", encoding="utf-8")
        self._events = _summary_writer(folder.events, first_step)

    def write(self, row: Mapping[str, float]) -> None:
        """Write a step's values by column; columns that a step lacks stay empty.

        A step of which a modality is hidden, for example, lacks that modality's losses.
        """
        if new := [name for name in row if name not in self._columns]:
            self._widen(new)
        values = {name: f"{value:.9g}" for name, value in row.items()}
        csv.DictWriter(self._file, self._columns, restval="").writerow(values)
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                self._events.add_scalar(name, value, int(row["step"]))
        for tracker in self._trackers:
            tracker.log(row)

    def write_image(self, name: str, step: int, image: UInt8[np.ndarray, "rows cols 3"]) -> None:
        """Write an RGB image of the state after a step, as ``samples/NAME-STEP.png``."""
        from PIL import Image

        self._samples.mkdir(exist_ok=True)
        path = self._samples / f"{name}-{step:08d}.png"
        with write_atomically(path) as partial:
            # Fast compression: images are rarely opened, and level 9 takes longer than validating.
            Image.fromarray(image).save(partial, format="PNG", compress_level=1)
        if self._events is not None:
            self._events.file_writer.add_summary(_picture(name, image.shape, path), step)
        for tracker in self._trackers:
            tracker.log_image(name, step, path)

    def _widen(self, new: Sequence[str]) -> None:
        """Add columns to the file, empty in the rows before."""
        self._file.close()
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._columns = [*self._columns, *new]
        with write_atomically(self._path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        self._file = self._path.open("a", newline="", encoding="utf-8")

    def close(self) -> None:
        """Close the files, and wait up to a minute for each tracker to receive the remaining values."""
        self._file.close()
        if self._events is not None:
            self._events.close()
        for tracker in self._trackers:
            tracker.close()


def _picture(name: str, shape: tuple[int, ...], path: Path) -> Any:
    """Make a TensorBoard summary with the bytes of an image file, without encoding it again."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    rows, columns, colours = shape
    image = Summary.Image(
        height=rows, width=columns, colorspace=colours, encoded_image_string=path.read_bytes()
    )
    return Summary(value=[Summary.Value(tag=name, image=image)])


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read a ``metrics.csv``: one row per step, with the values that the step has."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _columns(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _drop_rows_from(path: Path, step: int) -> None:
    if not path.exists():
        path.touch()
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is damaged: it is no text. Move it away to go on without its rows."
        ) from error
    # A row that a killed run cut short has no line end: its step is repeated as well.
    whole = [row for row in rows if row.endswith("\n") and float(row.split(",", 1)[0]) < step]
    with write_atomically(path) as partial:
        partial.write_text("".join([header, *whole]), encoding="utf-8")


def _summary_writer(path: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=first_step)
