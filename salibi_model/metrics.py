"""The record of a run: ``metrics.csv``, and TensorBoard events where that is installed."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salibi_model.checkpoints import RunFolder


class MetricsLog:
    """Appends one row per step. On resuming, rows of steps that are done again are dropped."""

    def __init__(self, folder: RunFolder, *, first_step: int) -> None:
        """Open the log of a run whose next step is ``first_step`` (steps count from 1)."""
        _drop_rows_from(folder.metrics, first_step)
        self._file = folder.metrics.open("a", newline="", encoding="utf-8")
        self._empty = self._file.tell() == 0
        self._events = _summary_writer(folder.events, first_step)

    def write(self, row: Mapping[str, float]) -> None:
        """Write a step's values; the first row's keys are the columns."""
        writer = csv.DictWriter(self._file, fieldnames=list(row))
        if self._empty:
            writer.writeheader()
            self._empty = False
        writer.writerow({name: f"{value:.9g}" for name, value in row.items()})
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                self._events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read a ``metrics.csv``: one row per step."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _drop_rows_from(path: Path, step: int) -> None:
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    # A row that a killed run cut short has no line end: its step is done again as well.
    whole = [row for row in rows if row.endswith("\n") and float(row.split(",", 1)[0]) < step]
    path.write_text("".join([header, *whole]), encoding="utf-8")


def _summary_writer(path: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=first_step)
