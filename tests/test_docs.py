"""What the documentation names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_mistake_of_the_originals_has_tests_that_exist():
    rows = re.findall(
        r"^\| (\d+) \|(.*)\|$", (ROOT / "docs/originals.md").read_text(), re.MULTILINE
    )
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, number
        for file, test in named:
            text = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_options_that_are_shown_are_known(page):
    """Every ``--option`` in a line that calls a command is one of that command's."""
    from typer.main import get_command

    from salibi_cli import data, model

    known = {}
    for name, application in (("salibi-data", data.app), ("salibi-model", model.application)):
        for sub, command in get_command(application).commands.items():
            inner = getattr(command, "commands", {"": command})
            known[name, sub] = {
                option
                for each in inner.values()
                for p in each.params
                for option in p.opts + p.secondary_opts
            }
    for name, sub, rest in re.findall(
        r"(salibi-(?:data|model)) (\w[\w-]*)((?: [^`|\n]+)?)", page.read_text()
    ):
        if (name, sub) in known:
            shown = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest))
            assert shown <= known[name, sub], f"{name} {sub}"
