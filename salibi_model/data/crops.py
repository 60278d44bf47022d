"""Cuts random squares from samples and resizes them, the same ground in all modalities."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import TILE_PX, Modality
from salibi_model.data.resample import resample_stored

_CROP_STREAM = 1
"""Number that keeps these draws apart from others by the same sample's seed."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square of a sample, in base-zoom pixels, and the size it is resized to."""

    row: int
    """First row, from the north."""
    col: int
    """First column, from the west."""
    edge: int
    """Edge in base-zoom pixels."""
    size_px: int
    """Edge after resizing, of modalities at the base zoom."""

    @property
    def gsd_scale(self) -> float:
        """Ground size of a resized pixel over that of a stored one."""
        return self.edge / self.size_px

    def cut(
        self, image: UInt8[np.ndarray, "bands rows cols"], modality: Modality
    ) -> UInt8[np.ndarray, "bands new_rows new_cols"]:
        """Cut this square from an image of one modality and resize it.

        Args:
            image: the whole image, in stored values.
            modality: its description in the store.

        Returns:
            Stored values, ``size_px / gsd_ratio`` pixels along an edge.
        """
        ratio = modality.gsd_ratio
        # Whole numbers already, by `Crop.check`; rounding takes off the error of the division.
        row, col, edge = (round(n / ratio) for n in (self.row, self.col, self.edge))
        # A copy: samples are read-only, and torch warns of tensors on read-only memory.
        square = image[:, row : row + edge, col : col + edge].copy()
        size = round(self.size_px / ratio)
        resized = resample_stored(torch.from_numpy(square)[None], modality, (size, size))
        return resized[0].numpy()


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Sizes of the squares that are cut, and the size they are resized to."""

    min_share: float
    """Smallest edge, as a share of the sample's edge."""
    max_share: float
    """Largest edge, as a share of the sample's edge."""
    size_px: int
    """Edge after resizing, of modalities at the base zoom; finer ones have more pixels of the same
    ground."""

    def __post_init__(self) -> None:
        if not 0 < self.min_share <= self.max_share <= 1:
            raise UsageError(
                f"crops have edges of {self.min_share:g} to {self.max_share:g} of a sample's; expected "
                "shares above 0 and up to 1, the smaller one first."
            )
        if self.size_px < 1:
            raise UsageError(f"crops have an edge of {self.size_px} px; expected 1 or more.")

    def check(self, modalities: Iterable[Modality]) -> None:
        """Check that crops are whole pixels of every modality.

        Raises:
            UsageError: a modality would have a fraction of a pixel, or no window has such an edge.
        """
        modalities = tuple(modalities)
        for modality in modalities:
            if not (self.size_px / modality.gsd_ratio).is_integer():
                raise UsageError(
                    f"crops of {self.size_px} px would be {self.size_px / modality.gsd_ratio:g} px of "
                    f"{modality.name!r}; take a multiple of {modality.gsd_ratio:g}."
                )
        step = _step(modalities)
        if self._edges(step)[1] < self._edges(step)[0]:
            raise UsageError(
                f"no crop has an edge of {self.min_share:g} to {self.max_share:g} of {TILE_PX} px that "
                f"is a multiple of {step} px; take other shares."
            )

    def window(self, seed: int, modalities: Iterable[Modality]) -> Window:
        """Draw a sample's window: its edge, then its position, each uniform over whole pixels."""
        rng = np.random.default_rng((seed, _CROP_STREAM))
        step = _step(modalities)
        low, high = self._edges(step)
        edge = int(rng.integers(low, high + 1))
        row, col = rng.integers(0, TILE_PX // step - edge + 1, size=2).tolist()
        return Window(row=row * step, col=col * step, edge=edge * step, size_px=self.size_px)

    def _edges(self, step: int) -> tuple[int, int]:
        """Smallest and largest edge, in multiples of ``step``."""
        # A share such as 0.7 of 100 must not lose a pixel to the rounding of floats.
        low = math.ceil(self.min_share * TILE_PX / step - 1e-9)
        high = math.floor(self.max_share * TILE_PX / step + 1e-9)
        return max(low, 1), high


def _step(modalities: Iterable[Modality]) -> int:
    """Smallest edge in base-zoom pixels that is a whole pixel of the coarsest modality."""
    return max(1, *(math.ceil(modality.gsd_ratio) for modality in modalities))
