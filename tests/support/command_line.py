"""The commands, run in this process as a shell runs them; and what they must have said."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

from tests.support.paths import ROOT


def run_here(
    name: str, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``salibi-data`` or ``salibi-model`` to its end, without a process of its own.

    A process spends a second or more on imports. Here the entry point's own code runs, up to its
    exit code and its one line of error; signals and the start itself need a real process.
    """
    app = importlib.import_module(f"salibi_cli.{name.removeprefix('salibi-')}.app")
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", [name, *arguments]),
        patch.dict("os.environ", {"COLUMNS": "80"}),
        contextlib.chdir(folder or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        patch.object(warnings, "formatwarning", warnings.formatwarning),
    ):
        warnings.simplefilter("ignore")
        try:
            app.main()
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(
        [name, *arguments], int(code or 0), out.getvalue(), err.getvalue()
    )


def run_process(
    name: str, *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``salibi-data`` or ``salibi-model`` to its end, as a process of its own."""
    return subprocess.run(
        process_command(name, *arguments),
        cwd=folder,
        env=process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def process_command(name: str, *arguments: str) -> list[str]:
    """A command with its arguments, for ``subprocess``."""
    module = f"salibi_cli.{name.removeprefix('salibi-')}.app"
    return [sys.executable, "-c", f"from {module} import main; main()", *arguments]


def process_environment() -> dict[str, str]:
    """Environment in which a process of its own finds this checkout."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def run_line(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a documented command line in ``folder``."""
    name, *arguments = shlex.split(line)
    return run_here(name, *arguments, folder=folder)


def assert_one_line(done: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """A failed command says one line, on stderr, with ``words`` in it."""
    assert done.returncode == exit_code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert done.stdout == ""
