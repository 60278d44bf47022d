"""Defines the images to be embedded, and the interface of the inputs that they come from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

Bounds = tuple[float, float, float, float]
"""(west, south, east, north) in degrees; NaN without a georeference."""

NOWHERE: Bounds = (math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """One image to be encoded, and its origin."""

    image: UInt8[np.ndarray, "bands rows cols"]
    """Stored values: 1..255, 0 = nodata."""
    source: int
    """Number of the input."""
    item: int
    """Index of the sample in a store, or of the window in a raster in row-major order."""
    window: tuple[int, int, int, int]
    """(row, column, rows, columns) in the raster; (0, 0, rows, columns) of a sample."""
    valid_fraction: float
    """Share of the window's pixels that are observed in every band."""
    gsd_m: float
    """Metres per pixel; NaN if unknown."""
    gsd_ratio: float
    """Size of a pixel over that of a base-zoom pixel of the training, which the model is given."""
    bounds: Bounds


class EmbeddingInput(ABC):
    """One input for one modality of the model: a sequence of images, some of them empty."""

    name: str
    """Path as it was given; a URL without secrets."""
    short_name: str
    """End of the name that tells this input from the others."""
    number: int
    """Number of the input."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the images, empty ones included."""

    @abstractmethod
    def read(self, first: int, stop: int) -> list[InputImage | None]:
        """Read images ``first`` to ``stop``; ``None`` for those without an observed pixel.

        Several threads call it at a time.
        """

    @abstractmethod
    def shapes(self) -> set[tuple[int, int]]:
        """Return the sizes (rows, columns) of the images."""

    @abstractmethod
    def outlines(self, items: Sequence[int]) -> list[Any]:
        """Return shapely polygons in longitude and latitude; ``None`` without a georeference."""

    @abstractmethod
    def label(self, item: int) -> str:
        """Return a text that identifies an image within the input."""

    def identity(self, item: int) -> str:
        """Return the name of an image: ``micro.zarr#17/20969/50650``, ``scene.tif#512,1024``."""
        return f"{self.short_name}#{self.label(item)}"


def observed_share(observed: Bool[np.ndarray, "bands rows cols"]) -> float:
    """Return the share of the pixels that are observed in every band."""
    return float(observed.all(axis=0).mean())
