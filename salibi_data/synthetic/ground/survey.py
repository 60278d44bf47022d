"""Finds squares of the landscape in which one land cover dominates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.materials import ROOFS, TREES, WATER

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Landscape

SMALLEST_SHARE: Final = 0.6
"""Smallest share of an image's ground that its class may cover."""

CLASSES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "alfalfa": frozenset({"alfalfa"}),
        "built_up": ROOFS | {"asphalt", "gravel", "concrete", "line", "yard", "lawn", "solar"},
        "corn": frozenset({"corn"}),
        "fallow": frozenset({"bare", "stubble"}),
        "pasture": frozenset({"pasture"}),
        "soybean": frozenset({"soy"}),
        "water": WATER,
        "woodland": (TREES - {"orchard"}) | {"understory"},
    }
)
"""Materials of the landscape that make up each class."""

CELL_M: Final = 3.2
"""Cell size of the survey; 24 cells are the edge of an image, 128 NAIP pixels of 0.6 m."""
_STEP_CELLS: Final = 6
_MARGIN_CELLS: Final = 6
"""Unused cells along the landscape's edges: nothing beyond the edge could throw a shadow there."""


@dataclass(frozen=True, kw_only=True)
class LabelledSquare:
    """Class and place of the ground that one image shows."""

    label: str
    """Class that dominates the square."""
    row: int
    """Row of the north-western corner, in survey cells from the landscape's northern edge."""
    column: int
    """Column of the same corner, in survey cells from the landscape's western edge."""


def choose_squares(
    landscape: Landscape, *, edge_m: float, num_per_class: int
) -> list[LabelledSquare]:
    """Choose squares of ground, each dominated by one class, that do not overlap.

    The rarest class chooses first. A class that covers too little ground gets fewer squares.

    Args:
        landscape: ground to search.
        edge_m: edge of a square, a multiple of :data:`CELL_M`.
        num_per_class: largest number of squares of each class.
    """
    classes = _survey(landscape)
    size = round(edge_m / CELL_M)
    candidates = {
        label: np.argwhere(shares >= SMALLEST_SHARE) * _STEP_CELLS + _MARGIN_CELLS
        for label, shares in _shares(classes, size).items()
    }
    rng = np.random.default_rng([landscape.seed, 3])
    occupied = np.zeros(classes.shape, dtype=bool)
    squares: list[LabelledSquare] = []
    for label in sorted(candidates, key=lambda label: len(candidates[label])):
        num = 0
        for row, column in rng.permutation(candidates[label]).tolist():
            cells = occupied[row : row + size, column : column + size]
            if num < num_per_class and not cells.any():
                cells[:] = True
                squares.append(LabelledSquare(label=label, row=row, column=column))
                num += 1
    return squares


def _survey(landscape: Landscape) -> npt.NDArray[np.int8]:
    """Return the class number of every survey cell, -1 for none; row 0 is the northernmost."""
    from salibi_data.synthetic.ground.landscape import GroundWindow

    window = GroundWindow(
        west_m=0,
        north_m=landscape.height_m,
        pixel_m=CELL_M,
        rows=round(landscape.height_m / CELL_M),
        columns=round(landscape.width_m / CELL_M),
    )
    class_by_material = {name: k for k, names in enumerate(CLASSES.values()) for name in names}
    numbers = [class_by_material.get(surface.material, -1) for surface in landscape.surfaces]
    return np.asarray(numbers, dtype=np.int8)[landscape.sample(window).feature]


def _shares(classes: npt.NDArray[np.int8], size: int) -> dict[str, npt.NDArray[np.float64]]:
    """Return each class's share of the squares of ``size`` cells, one square every six cells."""
    inner = classes[_MARGIN_CELLS:-_MARGIN_CELLS, _MARGIN_CELLS:-_MARGIN_CELLS]
    shares = {}
    for k, label in enumerate(CLASSES):
        # Integral image: the sum over any square takes four look-ups.
        sums = np.pad((inner == k).astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        squares = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size]
        squares += sums[:-size, :-size]
        shares[label] = squares[::_STEP_CELLS, ::_STEP_CELLS] / size**2
    return shares
