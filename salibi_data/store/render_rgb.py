"""Renders stored images as colours for figures."""

import numpy as np

from salibi_data.store.schema import Modality

STRETCH_STD = 2.5
"""Standard deviations from the mean at which decibels are black or white."""


def as_rgb(image: np.ndarray, modality: Modality) -> np.ndarray:
    """Render one stored image in colours.

    Bands named red, green and blue are shown as such; otherwise the first three bands are. Of two
    bands, VV and VH in dB, VV is shown in red and blue and VH in green, so that volume scattering,
    as in forest, is green; each is stretched over its mean and 2.5 standard deviations. Nodata
    stays black.

    Args:
        image: (bands, rows, columns) uint8 in stored values.
        modality: description of the image in the store or the model.

    Returns:
        uint8 (rows, columns, 3).
    """
    if modality.units == "dB":
        image = _stretched(image, modality)
    colours = ("red", "green", "blue")
    channels: tuple[int, ...] = {1: (0, 0, 0), 2: (0, 1, 0)}.get(len(image), (0, 1, 2))
    if set(colours) <= set(modality.bands):
        channels = tuple(modality.bands.index(colour) for colour in colours)
    return np.ascontiguousarray(image[list(channels)].transpose(1, 2, 0))


def _stretched(image: np.ndarray, modality: Modality) -> np.ndarray:
    mean = np.array(modality.mean, np.float32)[:, None, None]
    std = np.array(modality.std, np.float32)[:, None, None]
    share = np.clip(0.5 + (image - mean) / (2 * STRETCH_STD * std), 0, 1)
    return np.where(image == modality.nodata, 0, np.round(255 * share)).astype(np.uint8)
