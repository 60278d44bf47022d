"""Shared parts of the benchmarks: arguments, timing in turns, and reports.

A benchmark compares ways to do one thing. The ways take turns (A B A B), so that other load on the
machine affects all of them alike. Results are medians and their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Create the argument parser of a benchmark; its docstring is the ``description``."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = arguments.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="under a minute; what `make bench` runs")
    size.add_argument(
        "--smallest",
        action="store_true",
        help="seconds; checks that it runs, the figures mean nothing",
    )
    arguments.add_argument("--report", type=Path, metavar="FILE", help="write a report in Markdown")
    return arguments


def by_form(arguments: argparse.Namespace, *, full: T, quick: T, smallest: T) -> T:
    """Pick the value for the chosen form: full, quick or smallest."""
    if arguments.smallest:
        return smallest
    return quick if arguments.quick else full


def paired(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time the ways in turns; give the seconds of each. A first round warms up and does not count."""
    seconds_by_way: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn >= 0:
                seconds_by_way[name].append(time.perf_counter() - started)
    return seconds_by_way


def medians(seconds_by_way: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Give the median of each way."""
    return {name: statistics.median(values) for name, values in seconds_by_way.items()}


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark in its own process, for its peak memory; give the JSON of its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format figures as a Markdown table: the first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return ["", *(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]


def report(path: Path | None, title: str, lines: Sequence[str]) -> None:
    """Print the lines of a report, and write them to ``path`` if it is given."""
    print("\n".join(lines))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        day = datetime.now(UTC).date()
        path.write_text("\n".join([f"# {title}", "", f"{day}.", *lines]).rstrip() + "\n")
