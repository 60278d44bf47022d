"""The run log beside a store: what happened, one JSON object a line, over all runs of its build."""

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
    """Appends to ``X.zarr.log.jsonl``; every line has ``time`` (UTC) and ``event``."""

    file: IO[str]

    @staticmethod
    def path_of(store: Path) -> Path:
        """Where the log of a store's builds is."""
        return store.with_name(f"{store.name}.log.jsonl")

    def write(self, event: str, **fields: Any) -> None:
        """Append one line; it is on disk when this returns."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.file.write(json.dumps({"time": time, "event": event, **fields}) + "\n")
        self.file.flush()


def speed(path: Path) -> dict[str, float]:
    """What the last run in a log has done: samples, bytes and seconds, and samples per second.

    Empty where there is no log, or no block in its last run yet.
    """
    if not path.is_file():
        return {}
    run: list[dict[str, Any]] = []
    begun = None
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = _entry(line)
        if entry.get("event") == "begun":
            begun, run = entry, []
        elif entry.get("event") == "block":
            run.append(entry)
    if begun is None or not run:
        return {}
    first, last = (datetime.fromisoformat(entry["time"]) for entry in (begun, run[-1]))
    seconds = max((last - first).total_seconds(), 1e-3)
    samples = sum(entry["samples"] for entry in run)
    return {
        "samples": samples,
        "bytes": sum(entry["num_bytes"] for entry in run),
        "seconds": seconds,
        "samples_per_s": samples / seconds,
    }


def _entry(line: str) -> dict[str, Any]:
    """A line of a log; a power cut may have left the last one half."""
    try:
        found: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found


@contextmanager
def logging_to(path: Path) -> Iterator[RunLog]:
    """Open the run log at ``path``, or make it."""
    with path.open("a", encoding="utf-8") as file:
        yield RunLog(file)
