"""The slides' token diagrams: coarse and fine patches on the same ground, and their distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

COARSE: Final = 4
"""Low-resolution patches along an edge, as in the slides; the fine image has twice as many."""
FINE: Final = 2 * COARSE
COARSE_COLOUR: Final = "#0072B2"
FINE_COLOUR: Final = "#D55E00"
"""Blue and vermilion of Okabe and Ito's palette, distinguishable with any colour vision deficiency."""
INK: Final = "#222222"
_COLOUR_MAP: Final = "cividis_r"


def distances(edge: int) -> NDArray[np.float64]:
    """Distances from low-res patch 0 to each patch of an ``edge`` x ``edge`` image, row-major.

    In low-res patches; both images cover the same ground (Kage & Andreadis 2024).
    """
    centres = (np.arange(edge) + 0.5) * COARSE / edge
    return np.hypot(*np.meshgrid(centres - 0.5, centres - 0.5)).ravel()


def draw_tokens(axes: Axes, edge: int, *, patch_m: float, title: str) -> AxesImage:
    """Draw numbered patches, shaded by their ground distance from low-res patch 0.

    Args:
        axes: where to draw; its units are metres.
        edge: patches along an edge of the image.
        patch_m: metres along the edge of a low-res patch.
        title: of the diagram.

    Returns:
        The shades, in metres, for a colour bar; those of both images agree.
    """
    far = distances(FINE).max() * patch_m
    distances_m = distances(edge) * patch_m
    _ground(axes, COARSE * patch_m, title)
    shade_m = distances_m.reshape(edge, edge)
    extent = (0.0, COARSE * patch_m, COARSE * patch_m, 0.0)
    shades = axes.imshow(shade_m, cmap=_COLOUR_MAP, vmin=0, vmax=far, extent=extent)
    colour = COARSE_COLOUR if edge == COARSE else FINE_COLOUR
    step = COARSE * patch_m / edge
    for line in range(edge + 1):
        axes.plot([0, COARSE * patch_m], [line * step] * 2, color="white", lw=1)
        axes.plot([line * step] * 2, [0, COARSE * patch_m], color="white", lw=1)
    for number, distance in enumerate(distances_m):
        row, column = divmod(number, edge)
        axes.text(
            (column + 0.5) * step,
            (row + 0.5) * step,
            str(number),
            ha="center",
            va="center",
            fontsize=13 if edge == COARSE else 8.5,
            color="white" if distance > far / 2 else INK,
        )
    covered = [0] if edge == COARSE else [0, 1, FINE, FINE + 1]
    _outline(axes, covered, edge, step, colour)
    return shades


def draw_equal_distances(axes: Axes, *, patch_m: float) -> None:
    """Draw the four fine patches that low-res patch 0 covers, each as far from its centre."""
    _ground(axes, patch_m, "Low-res patch 0 and the 4 it covers")
    axes.set_xlim(-0.04 * patch_m, 1.04 * patch_m)
    axes.set_ylim(1.04 * patch_m, -0.04 * patch_m)
    covered = [0, 1, FINE, FINE + 1]
    _outline(axes, covered, FINE, patch_m / 2, FINE_COLOUR)
    _outline(axes, [0], COARSE, patch_m, COARSE_COLOUR, width=4.0)
    middle = patch_m / 2
    all_distances = distances(FINE) * patch_m
    for number in covered:
        row, column = divmod(number, FINE)
        x, y = (column + 0.5) * patch_m / 2, (row + 0.5) * patch_m / 2
        axes.annotate(
            "",
            xy=(x, y),
            xytext=(middle, middle),
            arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.6, "shrinkB": 9, "shrinkA": 8},
        )
        axes.plot(x, y, "s", color=FINE_COLOUR, ms=17)
        axes.text(x, y, str(number), ha="center", va="center", color="white", fontsize=10)
        outward = -1 if row == 0 else 1
        axes.text(
            x,
            y + outward * 0.13 * patch_m,
            f"{all_distances[number]:.1f} m",
            ha="center",
            va="center",
            fontsize=10.5,
            color=INK,
        )
    axes.plot(middle, middle, "o", color=COARSE_COLOUR, ms=18, zorder=4)
    axes.text(middle, middle, "0", ha="center", va="center", color="white", fontsize=11, zorder=5)


def _ground(axes: Axes, size_m: float, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlim(0, size_m)
    axes.set_ylim(size_m, 0)
    axes.set_aspect("equal")
    axes.set_xlabel("east on the ground (m)")
    axes.set_ylabel("south on the ground (m)")


def _outline(
    axes: Axes,
    numbers: Sequence[int],
    edge: int,
    step: float,
    colour: str,
    *,
    width: float = 3.0,
) -> None:
    from matplotlib.patches import Rectangle

    for number in numbers:
        row, column = divmod(number, edge)
        axes.add_patch(
            Rectangle(
                (column * step, row * step), step, step, fill=False, ec=colour, lw=width, zorder=3
            )
        )
