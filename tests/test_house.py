"""The rooms of docs/architecture.md: what may import what, and how large things may grow."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from functools import cache

import pytest

from tests.support import house
from tests.support.paths import ROOT

MODULES = house.modules()


@cache
def edges_of_tree() -> list[house.Edge]:
    return house.imports(MODULES)


def lines(items: object) -> str:
    return "\n" + "\n".join(map(str, items))


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {house.room_of(module) for module in MODULES}
    assert rooms == set(house.ROOMS_BELOW)


def test_rooms_import_only_rooms_below_them() -> None:
    wrong = [
        edge
        for edge in edges_of_tree()
        if (room := house.room_of(edge.importer)) != house.room_of(edge.imported)
        and house.room_of(edge.imported) not in house.rooms_below(room)
    ]
    assert not wrong, lines(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    groups = house.circles(edges_of_tree())
    edges = [
        edge
        for group in groups
        for edge in edges_of_tree()
        if edge.importer in group and edge.imported in group
    ]
    assert not groups, lines(edges)


def test_the_halves_share_the_floor_alone() -> None:
    wrong = [
        edge
        for edge in edges_of_tree()
        if edge.importer.startswith("salibi_model")
        and edge.imported.startswith("salibi_data")
        and house.room_of(edge.imported) != "salibi_data.store"
    ]
    wrong += [
        edge
        for edge in edges_of_tree()
        if edge.importer.startswith("salibi_data") and edge.imported.startswith("salibi_model")
    ]
    assert not wrong, lines(wrong)


def test_the_schema_imports_the_standard_library_alone() -> None:
    import ast

    tree = ast.parse(MODULES["salibi_data.store.schema"].read_text())
    imported = {
        (name or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert imported <= set(sys.stdlib_module_names), imported - set(sys.stdlib_module_names)


def test_no_module_is_too_long() -> None:
    paths = [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]
    paths += (ROOT / "benchmarks").rglob("*.py")
    long = {
        path.relative_to(ROOT).as_posix(): count
        for path in paths
        if (count := len(path.read_text().splitlines())) > house.MAX_LINES
    }
    assert not long, lines(long.items())


def test_no_folder_holds_too_many_modules() -> None:
    entries = defaultdict(set)
    for package in [*house.PACKAGES, "tests", "benchmarks"]:
        folder = house.PACKAGES.get(package, ROOT) / package
        for path in folder.rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py", "conftest.py"):
                entries[path.parent].add(path.name)
    crowded = {
        folder.relative_to(ROOT).as_posix(): len(names)
        for folder, names in entries.items()
        if len(names) > house.MAX_MODULES
    }
    assert not crowded, lines(crowded.items())


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [name for name in MODULES if name.split(".")[-1] in ("utils", "helpers", "misc")]
    assert not vague


def test_the_picture_of_the_rooms_is_of_this_tree() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.draw_rooms", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_tests_are_in_the_rooms_of_what_they_test() -> None:
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    rooms = {name.removeprefix("salibi_").replace(".", "/") for name in packages}
    rooms |= {room.removeprefix("data/") for room in rooms if room.startswith("data/store")}
    folders = {
        path.parent.relative_to(ROOT / "tests").as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert folders <= rooms | {".", "integration"}, folders - rooms


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import salibi_model.comparison", "salibi_data.store.tiles (line 1) imports"),
        (
            "def late():\n    from salibi_data.plans import splits",
            "salibi_data.store.tiles (line 2)",
        ),
        ("from ..plans.splits import tile_splits", "imports salibi_data.plans.splits"),
    ],
)
def test_an_import_is_seen_wherever_it_stands(text: str, problem: str, tmp_path) -> None:
    path = tmp_path / "tiles.py"
    path.write_text(text)
    edges = house.imports({**MODULES, "salibi_data.store.tiles": path})
    assert problem in lines(edge for edge in edges if edge.importer == "salibi_data.store.tiles")


def test_a_circle_is_found() -> None:
    edges = [house.Edge("a", "b", 1), house.Edge("b", "c", 1), house.Edge("c", "a", 1)]
    assert house.circles([*edges, house.Edge("d", "a", 1)]) == [["a", "b", "c"]]
