"""Draw docs/rooms.svg: the rooms of the tree, what each is for, and what it imports.

Everything in the picture is read from the source: names and numbers of modules from the folders,
the sentence in a box from the first line of the room's docstring, the lines from the imports. An
import that follows from two others is left out.

Run: python -m docs.draw_rooms [--check]
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.support import house
from tests.support.paths import ROOT

PICTURE = ROOT / "docs" / "rooms.svg"
FLOOR, TOP = "salibi_data.store", "salibi_cli"
HALVES = ("salibi_data", "salibi_model")

WIDTH, MARGIN, GAP = 1180, 16, 12
ROW, BOX = 84, 62
"""Height in pixels of a row, and of a box in it."""

PIXELS_PER_LETTER = 6.4
"""Width of a letter of the small text, with room to spare."""

WAY = (
    "salibi_data.catalog",
    "salibi_data.plans",
    "salibi_data.sources",
    "salibi_data.pixels",
    "salibi_data.builds",
    "salibi_data.store",
    "salibi_model.data",
    "salibi_model.training",
    "salibi_model.checkpoints",
    "salibi_model.evals",
)
"""The way of the data, as docs/architecture.md numbers it."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A room where it is drawn; pixels from the upper left corner."""

    room: str
    left: float
    top: float
    width: float

    @property
    def middle(self) -> float:
        """Horizontal centre."""
        return self.left + self.width / 2


def room_imports(edges: list[house.Edge], rooms: set[str]) -> dict[str, set[str]]:
    """What each room imports, without what follows from other imports."""
    direct: dict[str, set[str]] = {}
    for edge in edges:
        room, imported = house.room_of(edge.importer), house.room_of(edge.imported)
        if (
            room in rooms
            and imported in house.rooms_below(room)
            and not {room, imported} & set(HALVES)
        ):
            direct.setdefault(room, set()).add(imported)

    def reach(room: str) -> set[str]:
        below = direct.get(room, set())
        return below.union(*(reach(lower) for lower in below))

    return {
        room: {one for one in below if not any(one in reach(other) for other in below)}
        for room, below in direct.items()
    }


def heights(imports: dict[str, set[str]], rooms: set[str]) -> dict[str, int]:
    """Row of each room: one above the highest room that it imports, 0 for the floor."""
    rows: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in rows:
            rows[room] = 1 + max((height(lower) for lower in imports.get(room, ())), default=-1)
        return rows[room]

    for room in sorted(rooms):
        height(room)
    rows[TOP] = 1 + max(row for room, row in rows.items() if room != TOP)
    return rows


def layout(rows: dict[str, int]) -> dict[str, Box]:
    """Where each room is drawn: the floor and the commands whole, the halves side by side."""
    highest = max(rows.values())
    boxes = {}
    for number in range(highest + 1):
        top = MARGIN + (highest - number) * ROW
        for column, half in enumerate(HALVES):
            rooms = sorted(room for room, row in rows.items() if row == number and half in room)
            area = (WIDTH - 2 * MARGIN - 3 * GAP) / 2
            left = MARGIN + column * (area + 3 * GAP)
            if rooms in ([FLOOR], [TOP]):
                continue
            width = (area - GAP * (len(rooms) - 1)) / max(len(rooms), 1)
            for place, room in enumerate(rooms):
                boxes[room] = Box(
                    room=room, left=left + place * (width + GAP), top=top, width=width
                )
    for room in (FLOOR, TOP):
        top = MARGIN + (highest - rows[room]) * ROW
        boxes[room] = Box(room=room, left=MARGIN, top=top, width=WIDTH - 2 * MARGIN)
    return boxes


def purpose(room: str, modules: dict[str, Path]) -> str:
    """First line of the room's docstring."""
    text = ast.get_docstring(ast.parse(modules[room].read_text())) or ""
    return text.splitlines()[0].replace("``", "") if text else ""


def drawn_box(box: Box, modules: dict[str, Path]) -> list[str]:
    """SVG of a box and its text."""
    inside = [
        name for name in modules if name.startswith(f"{box.room}.") and "__main__" not in name
    ]
    count = sum(modules[name].name != "__init__.py" for name in inside) or 1
    half = 0 if box.room.startswith("salibi_data") else 1
    fill = "#f3ead7" if box.room in (FLOOR, TOP) else ("#dcebe0", "#dfe6f2")[half]
    name = box.room if box.room in (FLOOR, TOP) else box.room.partition(".")[2]
    letters = int((box.width - 20) / PIXELS_PER_LETTER)
    lines = textwrap.wrap(purpose(box.room, modules), letters, max_lines=2, placeholder=" ...")
    x, y = box.left, box.top
    return [
        (
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{box.width:.0f}" height="{BOX}" rx="6" '
            f'fill="{fill}" stroke="#556"/>'
        ),
        f'<text x="{x + 10:.0f}" y="{y + 19:.0f}" class="name">{escape(name)}</text>',
        f'<text x="{x + box.width - 10:.0f}" y="{y + 19:.0f}" class="count">{count}</text>',
        *drawn_step(box),
        *(
            f'<text x="{x + 10:.0f}" y="{y + 37 + 15 * number:.0f}" class="small">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ),
    ]


def drawn_step(box: Box) -> list[str]:
    """SVG of the number of a room on the way of the data; nothing for a room that is not on it."""
    if box.room not in WAY:
        return []
    x, y = box.left + box.width - 16, box.top + BOX - 16
    return [
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="10" fill="#b5651d"/>',
        f'<text x="{x:.0f}" y="{y + 4:.0f}" class="step">{WAY.index(box.room) + 1}</text>',
    ]


def drawn_line(lower: Box, upper: Box) -> str:
    """SVG of the line from a room to one that it imports."""
    start = min(max(upper.middle, lower.left + 8), lower.left + lower.width - 8)
    end = min(max(start, upper.left + 8), upper.left + upper.width - 8)
    top, bottom = upper.top + BOX, lower.top
    bend = (bottom - top) / 2
    return (
        f'<path d="M{end:.0f},{top:.0f} C{end:.0f},{top + bend:.0f} {start:.0f},{bottom - bend:.0f} '
        f'{start:.0f},{bottom:.0f}"/>'
    )


def drawing() -> str:
    """The whole picture, as SVG."""
    modules = house.modules()
    rooms = {room for room in house.ROOMS_BELOW if room not in HALVES}
    imports = room_imports(house.imports(modules), rooms)
    boxes = layout(heights(imports, rooms))
    height = max(box.top for box in boxes.values()) + BOX + MARGIN
    lines = [
        drawn_line(boxes[lower], boxes[room])
        for room, below in sorted(imports.items())
        for lower in sorted(below)
    ]
    texts = [text for room in sorted(boxes) for text in drawn_box(boxes[room], modules)]
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
                'font-family="Helvetica, Arial, sans-serif">'
            ),
            (
                "<style>.name{font:600 14px Helvetica,Arial,sans-serif}"
                ".small{font:11px Helvetica,Arial,sans-serif;fill:#333}"
                ".count{font:11px Helvetica,Arial,sans-serif;fill:#667;text-anchor:end}"
                ".step{font:600 11px Helvetica,Arial,sans-serif;fill:#fff;text-anchor:middle}"
                "path{fill:none;stroke:#99a;stroke-width:1.2}</style>"
            ),
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            *lines,
            *texts,
            "</svg>\n",
        ]
    )


def main() -> None:
    """Write the picture, or say whether it is that of this tree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if it differs")
    arguments = parser.parse_args()
    picture = drawing()
    if not arguments.check:
        PICTURE.write_text(picture)
    elif not PICTURE.is_file() or PICTURE.read_text() != picture:
        sys.exit(f"{PICTURE} is not of this tree; run: python -m docs.draw_rooms")


if __name__ == "__main__":
    main()
