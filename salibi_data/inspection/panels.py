"""Figures: rows of image panels at native pixels, with titles and row labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

GAP_PX = 12
MARGIN_PX = 24
TITLE_PT = 22
HEADING_PT = 28
INK = (30, 30, 30)
PAPER = (255, 255, 255)


class FigureError(UsageError):
    """A figure cannot be written where, or as what, it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image with its title."""

    title: str
    image: np.ndarray
    """(H, W, 3) uint8; its edge divides the panel's, or is a multiple of it."""


def check_path(path: str | Path) -> None:
    """Check before the work that a figure can be written to ``path``.

    Raises:
        FigureError: it is a folder, or its suffix names no format that stores colours.
    """
    path = Path(path)
    if path.is_dir() or not _writable(path.suffix.lower()):
        raise FigureError(f"{path} names no picture; give a file such as grid.png, .jpg or .pdf.")


def _writable(suffix: str) -> bool:
    """Return whether Pillow can write colour images in the format of ``suffix``."""
    from PIL import Image

    name = Image.registered_extensions().get(suffix)
    if name not in Image.SAVE:
        return False
    try:
        # Some formats register a writer that always fails, or that only takes black and white.
        Image.new("RGB", (8, 8)).save(BytesIO(), name)
    except (OSError, ValueError, KeyError):
        return False
    return True


def draw_panels(
    rows: Sequence[Sequence[Panel]],
    *,
    row_labels: Sequence[str] = (),
    heading: str = "",
    edge_px: int = 512,
) -> Image.Image:
    """Draw rows of panels as one picture.

    Every panel is ``edge_px`` wide. A coarser image is enlarged by a whole factor without
    smoothing, and a finer one is averaged by a whole factor, so that ground features line up
    between panels to the pixel. If all rows have the same titles, these are drawn once, at the top.

    Args:
        rows: panels of the same ground, row by row; rows may differ in length.
        row_labels: label of each row, drawn to its left.
        heading: text at the top.
        edge_px: edge of a panel in the figure.

    Raises:
        ValueError: an image is not (H, W, 3) uint8, or its edge and ``edge_px`` do not divide.
    """
    from PIL import Image, ImageDraw

    title_font, heading_font = _font(TITLE_PT), _font(HEADING_PT)
    line = int(TITLE_PT * 1.5)
    shared = len({tuple(panel.title for panel in row) for row in rows}) == 1
    label_width = max((round(title_font.getlength(text)) for text in row_labels), default=0)
    left = MARGIN_PX + (label_width + GAP_PX if label_width else 0)
    heading_lines = _wrapped(heading, heading_font, _width(rows, left, edge_px) - 2 * MARGIN_PX)
    top = MARGIN_PX + int(HEADING_PT * 1.5) * len(heading_lines)
    title_height = line if shared else 0
    row_height = edge_px + GAP_PX + (0 if shared else line)
    size = (_width(rows, left, edge_px), top + title_height + row_height * len(rows) + MARGIN_PX)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, text in enumerate(heading_lines):
        position = (MARGIN_PX, MARGIN_PX + int(HEADING_PT * 1.5) * number)
        draw.text(position, text, INK, heading_font)
    for number, row in enumerate(rows):
        y = top + line + number * row_height
        if number < len(row_labels):
            draw.text(
                (MARGIN_PX, y + edge_px // 2), row_labels[number], INK, title_font, anchor="lm"
            )
        for column, panel in enumerate(row):
            x = left + column * (edge_px + GAP_PX)
            if number == 0 or not shared:
                draw.text((x, y - line + 2), panel.title, INK, title_font)
            canvas.paste(_at_edge(panel, edge_px), (x, y))
    return canvas


def save_panels(
    rows: Sequence[Sequence[Panel]],
    path: str | Path,
    *,
    row_labels: Sequence[str] = (),
    heading: str = "",
    edge_px: int = 512,
) -> None:
    """Draw rows of panels as :func:`draw_panels` does, and write them to a file.

    Raises:
        FigureError: ``path`` names no picture.
        ValueError: an image is not (H, W, 3) uint8, or its edge and ``edge_px`` do not divide.
    """
    check_path(path)
    picture = draw_panels(rows, row_labels=row_labels, heading=heading, edge_px=edge_px)
    save_picture(picture, path)


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write a picture to a file in the format of its suffix; missing folders are created."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _width(rows: Sequence[Sequence[Panel]], left: int, edge_px: int) -> int:
    columns = max((len(row) for row in rows), default=0)
    return left + columns * (edge_px + GAP_PX) - GAP_PX + MARGIN_PX


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _at_edge(panel: Panel, edge_px: int) -> Image.Image:
    from PIL import Image

    image = panel.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:  # noqa: PLR2004
        raise ValueError(
            f"panel {panel.title!r} is {image.shape} {image.dtype}; expected (H, W, 3) uint8."
        )
    height, width = image.shape[:2]
    if height != width or (edge_px % height and height % edge_px):
        raise ValueError(
            f"panel {panel.title!r} is {height}x{width} px; expected a square whose edge divides "
            f"{edge_px} or is a multiple of it, so that pixels keep their places."
        )
    if height > edge_px:
        # reduce averages whole boxes; resize would blend pixels across their edges.
        return Image.fromarray(image).reduce(height // edge_px)
    factor = edge_px // height
    return Image.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
