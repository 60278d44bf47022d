"""Tasks of one labelled set, and models evaluated on them."""

from __future__ import annotations

import pytest

from salibi_cli.common import run
from salibi_cli.model import app as commands


def fails(monkeypatch, capsys, *arguments):
    """Run as from a shell; give the exit code and the one line on stderr."""
    monkeypatch.setattr("sys.argv", ["salibi-model", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run(commands.application)
    return stopped.value.code, capsys.readouterr().err
