"""Stored images as colours for the eye."""

import numpy as np

from salibi_data.store.schema import Modality

STRETCH_STD = 2.5
"""Deviations from the mean at which decibels are black or white."""


def as_rgb(image: np.ndarray, modality: Modality) -> np.ndarray:
    """Turn one stored image into colours for the eye.

    Bands named red, green and blue are shown as such; else three are. Two are VV and VH in dB: VV in red and blue, VH in green, so
    that what scatters in its volume, as forest does, turns green; each is stretched over its mean
    and 2.5 standard deviations. Nodata stays black.

    Args:
        image: (bands, rows, columns) uint8 as stored.
        modality: its description in the store or the model.

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
