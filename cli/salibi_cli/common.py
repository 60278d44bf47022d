"""What both commands share: one-line errors, exit codes, progress, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

Advance = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


def app(*, help: str) -> typer.Typer:  # noqa: A002 - typer's own name
    """An application that shows no tracebacks of its own and no completion options."""
    return typer.Typer(
        help=help,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def fail(message: str, exit_code: int) -> NoReturn:
    """Print one line to stderr and leave with ``exit_code``."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise SystemExit(exit_code)


def run(application: typer.Typer) -> None:
    """Run ``application``; a deliberate error becomes one line and its exit code.

    Exit codes: 0 done, 1 the run failed, 2 usage, 130 interrupted. Deliberate errors carry
    ``exit_code``; an ``OSError`` (a full disk, a missing permission) is the run's failure.
    """
    try:
        application()
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on", 130)
    except OSError as error:
        fail(_os_error_line(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)
        if not isinstance(exit_code, int):
            raise
        fail(str(error), exit_code)


def _os_error_line(error: OSError) -> str:
    import errno

    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full{where}; what was written before is whole. "
            "Free some space and run the same command again."
        )
    return f"{error.strerror or error}{where}"


def print_json(content: Any) -> None:
    """Print ``content`` as JSON, for programs that read our figures."""
    typer.echo(json.dumps(content, indent=2, sort_keys=True))


@contextmanager
def progress(description: str, *, unit: str, enabled: bool = True) -> Iterator[Advance]:
    """A progress bar on stderr; silent when stderr is no terminal or ``enabled`` is false."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TextColumn(unit), TimeLeft(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys as a table; keys are the columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain(value) for value in row.values()))
    Console().print(table)


def plain(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def human_bytes(count: int) -> str:
    """A number of bytes with a decimal prefix."""
    from rich.filesize import decimal

    return decimal(count)
