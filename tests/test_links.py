"""Links of the documents and references of the docstrings lead somewhere."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.support import house
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += sorted((ROOT / "benchmarks").rglob("*.md"))
SOURCES = [
    *house.modules().values(),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "docs").rglob("*.py")),
]
ROLE = re.compile(r":(?:mod|func|class|data|meth|attr|exc):`~?([^`]+)`")
FILE = re.compile(r"`((?:docs|benchmarks|catalogs|tests|salibi_data|salibi_model|cli)/[\w./-]+)`")
MODULE = re.compile(r"\bsalibi_(?:data|model|cli)(?:\.\w+)+")

THIRD_PARTY = ("torch.", "numpy.", "zarr.", "rasterio.", "shapely.", "typer.", "datetime.")
"""Beginnings of references to what others document."""


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    plain = [re.sub(r"[`*\[\]()]|\(.*?\)", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text)) for text in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (document.parent / path) if path else document
        assert linked.exists(), f"{document.name} links to {target}, which is not there"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{document.name}: no heading for {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_modules_that_documents_name_are_there(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        pytest.skip("names what was there before, too")
    text = document.read_text()
    for name in FILE.findall(text):
        assert (ROOT / name).exists(), f"{document.name} names {name}, which is not there"
    known = project_names()
    for name in MODULE.findall(text):
        assert known.has(name), f"{document.name} names {name}, which is not there"


class Names:
    """Modules, and what they define, read from the source."""

    def __init__(self) -> None:
        self._modules = house.modules()
        self._defined: dict[str, set[str]] = {}

    def has(self, dotted: str) -> bool:
        """Whether a dotted name is a module, or defined in one (members of classes included)."""
        parts = dotted.split(".")
        for count in range(len(parts), 0, -1):
            module = ".".join(parts[:count])
            if module in self._modules:
                remainder = ".".join(parts[count:])
                return (
                    not remainder or remainder in self.defined(module) or remainder.startswith("__")
                )
        return False

    def defined(self, module: str) -> set[str]:
        """Names that a module defines, imports or lists in its stub, and members of its classes."""
        if module not in self._defined:
            path = self._modules[module]
            names = set(_names(ast.parse(path.read_text()).body))
            stub = path.with_suffix(".pyi")
            if stub.is_file():
                names |= set(_names(ast.parse(stub.read_text()).body))
            self._defined[module] = names
        return self._defined[module]


@cache
def project_names() -> Names:
    """Names of the project, read once."""
    return Names()


def _names(body: list[ast.stmt], owner: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield owner + node.name
            if isinstance(node, ast.ClassDef):
                yield from _names(node.body, f"{owner}{node.name}.")
            elif node.name == "__init__":
                yield from _attributes(node, owner)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield owner + node.target.id
        elif isinstance(node, ast.Assign):
            yield from (owner + name.id for name in node.targets if isinstance(name, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (owner + (alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.If | ast.Try):
            yield from _names(node.body, owner)


def _attributes(function: ast.AST, owner: str) -> Iterator[str]:
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and isinstance(node.ctx, ast.Store)
        ):
            yield owner + node.attr


def references(path: Path) -> Iterator[tuple[str, int]]:
    """Each reference in a file's docstrings: the target and its line."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for target in ROLE.findall(line):
            yield target, number


def imported(path: Path) -> dict[str, str]:
    """Full name of everything that a file imports from the project, by its name in the file."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_references_in_docstrings_lead_somewhere(path: Path) -> None:
    known = project_names()
    relative = path.relative_to(ROOT)
    module = ".".join(relative.with_suffix("").parts).removeprefix("cli.").removesuffix(".__init__")
    own = set(_names(ast.parse(path.read_text()).body))
    members = {name.rpartition(".")[2] for name in own}
    full = imported(path)

    def leads_somewhere(target: str) -> bool:
        first, dot, remainder = target.partition(".")
        return (
            target.startswith(THIRD_PARTY)
            or target in own | members
            or known.has(target)
            or known.has(f"{module}.{target}")
            or (first in full and known.has(f"{full[first]}{dot}{remainder}"))
        )

    wrong = [f"line {line}: {to}" for to, line in references(path) if not leads_somewhere(to)]
    wrong += [name for name in FILE.findall(path.read_text()) if not (ROOT / name).exists()]
    assert not wrong, f"{relative}: " + "; ".join(wrong)
