"""Shared parts of both commands: one-line errors, exit codes, progress bars, JSON, tables."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, NoReturn, Protocol, Self

import typer

from salibi_data.store.errors import SalibiError

_INTERRUPTED: Final = 130
"""Exit code that Typer returns after Ctrl-C: 128 + SIGINT."""


class Advance(Protocol):
    """Callback that reports the progress of a piece of work."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished; ``note`` is shown beside them."""


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def app(*, help: str) -> typer.Typer:  # noqa: A002 - typer's own name
    """Create a Typer application without its own tracebacks and completion options."""
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

    Exit codes: 0 done, 1 the run failed, 2 usage, 130 interrupted (Ctrl-C), 143 terminated
    (SIGTERM). A ``SalibiError`` carries its exit code; an ``OSError`` (a full disk, a missing
    permission) is the run's failure.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    with _Stops() as stops:
        try:
            # In standalone mode, Typer prints errors in boxes, and nothing for an interrupt.
            exit_code = application(standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            exit_code = _INTERRUPTED
        except OSError as error:
            blocking_file = _file_where_a_folder_should_be(error)
            if blocking_file is not None:
                fail(f"{blocking_file} is a file where a folder should be; name another place.", 2)
            fail(_os_error_line(error), 1)
        except SalibiError as error:
            fail(str(error), error.exit_code)
        except Exception as error:
            # Typer's own errors. Some of its versions bundle click, so click's own class does not fit.
            exit_code = getattr(error, "exit_code", None)
            if not hasattr(error, "format_message") or not isinstance(exit_code, int):
                raise
            # With NoArgsIsHelpError, Typer has printed the help; it is not an error of the user.
            if type(error).__name__ != "NoArgsIsHelpError":
                fail(_usage_line(error), exit_code)
    if exit_code == _INTERRUPTED:
        fail("interrupted; run the same command again to go on", 128 + stops.signal_number)
    raise SystemExit(exit_code if isinstance(exit_code, int) else 0)


class _Stops:
    """Handle SIGTERM, by which schedulers end a job, like Ctrl-C: open files are closed.

    Only the first SIGTERM counts: later ones are ignored, so that they do not interrupt the cleanup.
    """

    def __enter__(self) -> Self:
        self.signal_number: int = signal.SIGINT
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.signal_number = number
        raise KeyboardInterrupt


def _usage_line(error: Any) -> str:
    """Message of one of Typer's errors, which names the option, and the command that prints help."""
    context = getattr(error, "ctx", None)
    where = f" See {context.command_path} --help." if context is not None else ""
    return f"{error.format_message().rstrip('.')}.{where}"


def _file_where_a_folder_should_be(error: OSError) -> Path | None:
    if not isinstance(error, FileExistsError | NotADirectoryError) or not error.filename:
        return None
    path = Path(os.fsdecode(error.filename))
    return next((part for part in (path, *path.parents) if part.is_file()), None)


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
    """Print ``content`` as JSON, for programs that read the figures."""
    typer.echo(json.dumps(content, indent=2, sort_keys=True))


def _nothing(done: int, total: int, note: str = "") -> None:
    """Ignore progress: stderr is no terminal."""


@contextmanager
def progress(description: str, *, unit: str, enabled: bool = True) -> Iterator[Advance]:
    """Show a progress bar on stderr; silent when stderr is no terminal or ``enabled`` is false."""
    if not (enabled and sys.stderr.isatty()):
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    with Progress(
        *columns, TextColumn(unit), rate, TimeLeft(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(description, total=None, rate="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{description}{note}")
            # rich has no speed before the second update.
            if speed := bar.tasks[task].speed:
                bar.update(task, rate=f"({speed:.3g}/s)")

        yield advance


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
    """Format a value for people: lists with commas, floats with four digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def human_time(seconds: float) -> str:
    """Format a duration as days, hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def human_bytes(count: int) -> str:
    """Format a number of bytes with a decimal prefix."""
    from rich.filesize import decimal

    return decimal(count)


def listed(text: str | None) -> tuple[str, ...] | None:
    """Split an option such as ``sar,lores`` at its commas; ``None`` where it was not given."""
    return tuple(part.strip() for part in text.split(",")) if text else None


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read an option such as ``2,1``; ``None`` where it was not given."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} is {text!r}; give numbers with commas, as 2,1."
        ) from error
