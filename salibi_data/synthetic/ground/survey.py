"""Finds ground of the sample landscape that one land cover dominates."""

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
"""Part of an image's ground that its class covers at least."""

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
"""Cell of the survey: an image's edge, 128 NAIP pixels of 0.6 m, is 24 of them."""
_STEP_CELLS: Final = 6
_MARGIN_CELLS: Final = 6
"""Left free along the landscape's edges: what stands beyond throws no shadows."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Ground of an image: its north-western corner in survey cells."""

    label: str
    row: int
    column: int


def choose_spots(landscape: Landscape, *, edge_m: float, num_per_class: int) -> list[Spot]:
    """Choose squares of ground that one class dominates, none of which overlap.

    The rarest class chooses first; a class gets fewer where the landscape has not so much of it.

    Args:
        landscape: where to look.
        edge_m: edge of a square, a whole number of :data:`CELL_M`.
        num_per_class: squares of each class at most.
    """
    covers = _survey(landscape)
    size = round(edge_m / CELL_M)
    candidates = {
        label: np.argwhere(shares >= SMALLEST_SHARE) * _STEP_CELLS + _MARGIN_CELLS
        for label, shares in _shares(covers, size).items()
    }
    rng = np.random.default_rng([landscape.seed, 3])
    taken = np.zeros(covers.shape, dtype=bool)
    spots: list[Spot] = []
    for label in sorted(candidates, key=lambda label: len(candidates[label])):
        num = 0
        for row, column in rng.permutation(candidates[label]).tolist():
            ground = taken[row : row + size, column : column + size]
            if num < num_per_class and not ground.any():
                ground[:] = True
                spots.append(Spot(label=label, row=row, column=column))
                num += 1
    return spots


def _survey(landscape: Landscape) -> npt.NDArray[np.int8]:
    """Number of the class of every cell of a landscape, -1 for none; row 0 is northernmost."""
    from salibi_data.synthetic.ground.landscape import Window

    window = Window(
        west_m=0,
        north_m=landscape.height_m,
        pixel_m=CELL_M,
        rows=round(landscape.height_m / CELL_M),
        columns=round(landscape.width_m / CELL_M),
    )
    of_material = {name: k for k, names in enumerate(CLASSES.values()) for name in names}
    labels = [of_material.get(surface.material, -1) for surface in landscape.surfaces]
    return np.asarray(labels, dtype=np.int8)[landscape.sample(window).feature]


def _shares(covers: npt.NDArray[np.int8], size: int) -> dict[str, npt.NDArray[np.float64]]:
    """Each class's share of squares of ``size`` cells, at every step from the margin on."""
    inner = covers[_MARGIN_CELLS:-_MARGIN_CELLS, _MARGIN_CELLS:-_MARGIN_CELLS]
    found = {}
    for k, label in enumerate(CLASSES):
        # Integral image: the sum of any square is four look-ups.
        sums = np.pad((inner == k).astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        squares = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size]
        squares += sums[:-size, :-size]
        found[label] = squares[::_STEP_CELLS, ::_STEP_CELLS] / size**2
    return found
