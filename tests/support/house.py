"""The rooms of the tree, their order, and every import between modules, read from the source."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = {"salibi_data": ROOT, "salibi_model": ROOT, "salibi_cli": ROOT / "cli"}

MAX_MODULES = 12
"""Modules or rooms in one folder."""

MAX_LINES = 400
"""Lines of one module."""

ROOMS_BELOW = {
    "salibi_data.store": [],
    "salibi_data.synthetic": ["salibi_data.store"],
    "salibi_data.catalog": ["salibi_data.synthetic"],
    "salibi_data.sources": ["salibi_data.catalog"],
    "salibi_data.pixels": ["salibi_data.sources"],
    "salibi_data.plans": ["salibi_data.pixels"],
    "salibi_data.assembly": ["salibi_data.plans"],
    "salibi_data.builds": ["salibi_data.assembly"],
    "salibi_data.derived": ["salibi_data.builds"],
    "salibi_data.imports": ["salibi_data.builds"],
    "salibi_data.inspection": ["salibi_data.builds", "salibi_data.derived"],
    "salibi_data.forecasts": ["salibi_data.plans"],
    "salibi_data.releases": ["salibi_data.inspection"],
    "salibi_data.viewer": ["salibi_data.store"],
    "salibi_model.errors": ["salibi_data.store"],
    "salibi_model.distributed": ["salibi_model.errors"],
    "salibi_model.nn": ["salibi_model.distributed"],
    "salibi_model.models": ["salibi_model.nn"],
    "salibi_model.data": ["salibi_model.models"],
    "salibi_model.checkpoints": ["salibi_model.data"],
    "salibi_model.evals": ["salibi_model.checkpoints"],
    "salibi_model.training": ["salibi_model.evals"],
    "salibi_model.embeddings": ["salibi_model.checkpoints"],
    "salibi_model.exports": ["salibi_model.evals"],
    "salibi_model.comparison": ["salibi_model.training"],
    "salibi_data": ["salibi_data.releases", "salibi_data.imports", "salibi_data.forecasts"],
    "salibi_model": ["salibi_model.comparison", "salibi_model.embeddings", "salibi_model.exports"],
    "salibi_cli": ["salibi_data", "salibi_data.viewer", "salibi_model"],
}
"""Each room, and the rooms right below it; a room imports these and whatever is below them."""


@dataclass(frozen=True, order=True)
class Edge:
    """One module imports another."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.imported}"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Path of every module of the three packages, by its dotted name."""
    named = {}
    for package, base in PACKAGES.items():
        folder = root / base.relative_to(ROOT) / package
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(named: dict[str, Path]) -> list[Edge]:
    """Every import between these modules, those inside functions and for type checkers included."""
    edges = set()
    for name, path in named.items():
        for node in ast.walk(ast.parse(path.read_text())):
            for target in _targets(node, name, is_package=path.name == "__init__.py"):
                module = _longest_module(target, named)
                if module is not None and module != name:
                    edges.add(Edge(name, module, node.lineno))
    return sorted(edges)


def _targets(node: ast.AST, importer: str, *, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = importer.split(".")[: None if is_package else -1]
        parents = parents[: len(parents) - node.level + 1]
        base = ".".join([*parents, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _longest_module(target: str, named: dict[str, Path]) -> str | None:
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        if ".".join(parts[:count]) in named:
            return ".".join(parts[:count])
    return None


def room_of(module: str) -> str:
    """The room of :data:`ROOMS_BELOW` that a module is in."""
    package, _, inner = module.partition(".")
    name = f"{package}.{inner.split('.')[0]}" if inner else package
    return package if package == "salibi_cli" else name


def rooms_below(room: str) -> set[str]:
    """Every room that a room may import."""
    below = set()
    for direct in ROOMS_BELOW[room]:
        below |= {direct, *rooms_below(direct)}
    return below


def circles(edges: list[Edge]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan)."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge.importer, set()).add(edge.imported)
        graph.setdefault(edge.imported, set())
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(graph[module]):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return groups


def num_floors(edges: list[Edge]) -> int:
    """Modules on the longest chain of imports, where there are no circles."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge.importer, set()).add(edge.imported)
    heights: dict[str, int] = {}

    def height(module: str) -> int:
        if module not in heights:
            heights[module] = 1 + max((height(m) for m in graph.get(module, ())), default=0)
        return heights[module]

    return max((height(module) for module in graph), default=0)
