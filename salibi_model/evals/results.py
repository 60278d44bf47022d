"""Keeps rows of results on disk, so that each is computed once and models can be compared.

A results folder holds ``results.json`` (list of rows), ``results.md`` (the same as a table) and
``outcomes/KEY.npy`` (the outcome of each test sample). Files are written atomically.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from salibi_data.store.errors import SalibiError, UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.redaction import first_line
from salibi_data.store.validation import read_record
from salibi_model.evals.metrics import Outcomes, Score, paired_difference

_SAME_TEST = ("dataset", "data_digest", "metric", "num_test")
"""Fields that are equal in two rows of the same metric on the same test samples."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Content of ``results.json``, named for the paths in error messages."""

    rows: tuple[Score, ...]


class ResultsError(SalibiError):
    """A results folder is damaged."""


class Results:
    """The rows of a results folder, which is made with the first row."""

    def __init__(self, folder: str | Path) -> None:
        """Read the rows of ``folder``, if there are any.

        Raises:
            ResultsError: the rows cannot be read.
        """
        self.folder = Path(folder)
        self._file = self.folder / "results.json"
        self._outcomes = self.folder / "outcomes"
        self._rows = self._read()

    @property
    def scores(self) -> tuple[Score, ...]:
        """All rows, sorted by data set, metric, method and model."""
        return tuple(sorted(self._rows.values(), key=_order))

    def find(self, key: str) -> Score | None:
        """Return the row of a :func:`~salibi_model.evals.metrics.score_key`, if it was computed."""
        is_computed = key in self._rows and self._outcomes_file(key).is_file()
        return self._rows[key] if is_computed else None

    def add(self, score: Score, outcomes: Outcomes) -> None:
        """Write a row, and the outcome of each test sample."""
        self._outcomes.mkdir(parents=True, exist_ok=True)
        with (
            write_atomically(self._outcomes_file(score.key)) as partial,
            partial.open("wb") as file,
        ):
            np.save(file, outcomes, allow_pickle=False)
        # Read again: another process may have added rows since.
        self._rows = self._read() | {score.key: score}
        rows = [row.to_dict() for row in self.scores]
        with write_atomically(self._file) as partial:
            partial.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        with write_atomically(self.folder / "results.md") as partial:
            partial.write_text(markdown(self.scores), encoding="utf-8")

    def merge(self, other: "Results") -> None:
        """Add the rows of another folder that this one lacks."""
        for score in other.scores:
            if self.find(score.key) is None and other.find(score.key) is not None:
                self.add(score, other.outcomes(score))

    def outcomes(self, score: Score) -> Outcomes:
        """Read the outcome of each test sample of a row.

        Raises:
            ResultsError: the outcomes are missing or damaged.
        """
        path = self._outcomes_file(score.key)
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ResultsError(
                f"{path} cannot be read ({error}); remove it and evaluate again."
            ) from error

    def paired_difference(self, a: Score, b: Score, *, seed: int = 0) -> tuple[float, float, float]:
        """Return the value of row ``a`` minus that of ``b``, and its bootstrap 95 % interval.

        Returns:
            (difference, low, high).

        Raises:
            UsageError: the rows are not of the same metric on the same test samples.
            ResultsError: outcomes are missing or damaged.
        """
        differing = [name for name in _SAME_TEST if getattr(a, name) != getattr(b, name)]
        if differing:
            raise UsageError(
                f"rows of {a.model} and {b.model} differ in {', '.join(differing)}; only figures of "
                "the same test samples can be compared pairwise."
            )
        return paired_difference(a.metric, self.outcomes(a), self.outcomes(b), seed=seed)

    def _outcomes_file(self, key: str) -> Path:
        return self._outcomes / f"{key}.npy"

    def _read(self) -> dict[str, Score]:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            rows = read_record(_Rows, {"rows": content}).rows
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise ResultsError(
                f"{self._file} is damaged ({first_line(error)}). Move it away, or take "
                "another --out."
            ) from error
        return {score.key: score for score in rows}


def markdown(rows: Sequence[Score]) -> str:
    """Format rows as a Markdown table, in percent, with intervals."""
    lines = [
        "| data | metric % | method | model | encoder | value (95 %) | GSD (m) | train | test | settings |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(row.dataset, row.metric, row.method, row.model, row.encoder, percent(row)),
            *(f"{row.gsd_m:.3g}", row.num_train, row.num_test, _settings(row)),
        )
        # A vertical bar in a name would end its cell.
        texts = (str(cell).replace("|", "/") for cell in cells)
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def percent(score: Score) -> str:
    """Format a row's value in percent with its interval: ``58.7 (55.6-61.8)``."""
    value, low, high = (100 * share for share in (score.value, score.low, score.high))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _settings(row: Score) -> str:
    settings = {**row.settings, **row.chosen}
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _order(row: Score) -> tuple[Any, ...]:
    return row.dataset, row.metric, row.method, row.model, row.encoder, row.gsd_m, row.key
