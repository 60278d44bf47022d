"""Run log beside a store: one JSON object per line and event, over all runs of its build."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class RunLog:
    """Appends lines to ``X.zarr.log.jsonl``; every line has ``time`` (UTC) and ``event``."""

    file: IO[str]

    @staticmethod
    def path_of(store: Path) -> Path:
        """Path of the log of a store's builds."""
        return store.with_name(f"{store.name}.log.jsonl")

    def write(self, event: str, **fields: Any) -> None:
        """Append one line and flush it."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.file.write(json.dumps({"time": time, "event": event, **fields}) + "\n")
        self.file.flush()


def speed(path: Path) -> dict[str, float]:
    """Speed of the last run in a log: samples, bytes, seconds, and samples per second.

    Empty where there is no log, or its last run has no block yet.
    """
    if not path.is_file():
        return {}
    run: list[dict[str, Any]] = []
    start = None
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = _entry(line)
        if entry.get("event") == "begun":
            start, run = entry, []
        elif entry.get("event") == "block":
            run.append(entry)
    if start is None or not run:
        return {}
    first, last = (datetime.fromisoformat(entry["time"]) for entry in (start, run[-1]))
    seconds = max((last - first).total_seconds(), 1e-3)
    samples = sum(entry["samples"] for entry in run)
    return {
        "samples": samples,
        "bytes": sum(entry["num_bytes"] for entry in run),
        "seconds": seconds,
        "samples_per_s": samples / seconds,
    }


def replaced_samples(path: Path, plan_digest: str) -> list[dict[str, Any]]:
    """Samples that the runs of a plan made of other scenes than planned, as blocks report them."""
    if not path.is_file():
        return []
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    is_of_plan = False
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = _entry(line)
        if entry.get("event") == "begun":
            is_of_plan = entry.get("plan") == plan_digest
        elif is_of_plan:
            # A block that was lost is made again: its samples are reported twice.
            rows.update({(row["tile"], row["sensor"]): row for row in entry.get("replaced", ())})
    return list(rows.values())


def _entry(line: str) -> dict[str, Any]:
    """Parse a line of a log; empty where a power cut left half of the last line."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return entry


@contextmanager
def logging_to(path: Path) -> Iterator[RunLog]:
    """Open the run log at ``path`` for appending; it is made where there is none."""
    with path.open("a", encoding="utf-8") as file:
        yield RunLog(file)
