"""One image to be embedded and its place on Earth; and where images come from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from salibi_data.store.redaction import name_only

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees; NaN where a place is not known."""

NOWHERE: Bounds = (math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class View:
    """One image on its way to the model, and where it is from."""

    image: UInt8[np.ndarray, "bands rows cols"]
    """As stored: 1..255, 0 = nodata."""
    source: int
    """Number of the input."""
    item: int
    """Sample of a store, or window of a raster in row-major order."""
    window: tuple[int, int, int, int]
    """Row, column, rows and columns in the raster; of a sample 0, 0, and its size."""
    valid_fraction: float
    """Share of the window's pixels that were observed in every band."""
    gsd_m: float
    """Metres per pixel; NaN where not known."""
    gsd_ratio: float
    """What the model is told: the pixel over that of the model's base zoom."""
    bounds: Bounds


class Source(ABC):
    """One input as one modality of the model sees it: a row of images, some of them empty."""

    name: str
    """As it was given, without what may be secret."""
    number: int
    """Of the input."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the images, empty ones included."""

    @abstractmethod
    def read(self, first: int, stop: int) -> list[View | None]:
        """Read images ``first`` to ``stop``; ``None`` for those without an observed pixel.

        Called by several threads at a time.
        """

    @abstractmethod
    def shapes(self) -> set[tuple[int, int]]:
        """Rows and columns that its images have."""

    @abstractmethod
    def outlines(self, items: Sequence[int]) -> list[Any]:
        """Give shapely polygons in longitude and latitude; ``None`` where a place is not known."""

    @abstractmethod
    def label(self, item: int) -> str:
        """Tell one image from the others of the input."""

    def identity(self, item: int) -> str:
        """Name an image: ``micro.zarr#17/20969/50650``, ``scene.tif#512,1024``."""
        return f"{name_only(self.name)}#{self.label(item)}"


def observed_share(observed: Bool[np.ndarray, "bands rows cols"]) -> float:
    """Share of the pixels that were observed in every band."""
    return float(observed.all(axis=0).mean())
