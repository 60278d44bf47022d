"""Fits labelled images to a model's encoder: bands, size and values."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.models.config import ModelConfig
from salibi_model.models.units import RAW_UNITS, highest_value

COMMON_NAMES = {
    "b1": "coastal",
    "b2": "blue",
    "b3": "green",
    "b4": "red",
    "b5": "rededge1",
    "b6": "rededge2",
    "b7": "rededge3",
    "b8": "nir",
    "b8a": "nir08",
    "b9": "nir09",
    "b11": "swir16",
    "b12": "swir22",
}
"""Common names of Sentinel-2's bands, which labelled data uses, by the numbers that CROMA's encoder
uses."""

_OFF_NODATA = 1e-3
"""Amount by which a valid value is moved that equals the nodata value."""


class UnfitError(UsageError):
    """The model cannot encode this data set at this scale, or the method does not fit its task."""


def bands_for(config: ModelConfig, modality: str, data: LabelledImages) -> tuple[str, ...]:
    """Return the data's names of the bands that a modality's encoder takes, in the encoder's order.

    Raises:
        UnfitError: the data lacks a band.
        UsageError: the model has no such modality.
    """
    names = _names(config[modality], data)
    missing = [name for name in names if name not in data.bands]
    if missing:
        raise UnfitError(
            f"{data.name} lacks {', '.join(missing)}, which modality {modality!r} sees; it has "
            f"{', '.join(data.bands)}. The model has {_described(config)}."
        )
    return names


def modalities_for(config: ModelConfig, data: LabelledImages) -> tuple[str, ...]:
    """Return the model's modalities whose bands the data has.

    Raises:
        UnfitError: the data has the bands of none.
    """
    fitting = tuple(
        modality.name
        for modality in config.modalities
        if set(_names(modality, data)) <= set(data.bands)
    )
    if not fitting:
        raise UnfitError(
            f"{data.name} has the bands {', '.join(data.bands)}; expected all those of a modality "
            f"of the model, which has {_described(config)}. Take a model or data of other bands."
        )
    return fitting


def input_shape(
    shape: tuple[int, int],
    *,
    patch_px: int,
    scale: float = 1.0,
    image_px: int | None = None,
    where: str = "the data",
) -> tuple[int, int]:
    """Return the (rows, cols) to which images are resized: the nearest multiples of a patch.

    Args:
        shape: (rows, cols) of the images.
        patch_px: edge of a patch.
        scale: pixels of the image per pixel of the result, along an edge.
        image_px: longer edge to which images are resized before that; ``None``: their own.
        where: name of the data, for the error.

    Raises:
        UnfitError: at this scale images are smaller than a patch.
        UsageError: the scale is not above 0.
    """
    if not 0 < scale < math.inf:
        raise UsageError(f"the scale is {scale}; take a number above 0, such as 2.")
    enlargement = 1.0 if image_px is None else image_px / max(shape)
    edges = [edge * enlargement / scale for edge in shape]
    if scale > 1 and min(edges) < patch_px:
        raise UnfitError(
            f"images of {where} have {min(edges):.0f} px at scale {scale:g}, less than a patch of "
            f"{patch_px} px; take a smaller scale."
        )
    # Halves go up; `round` would take them to the even number of patches.
    rows, cols = (max(1, math.floor(edge / patch_px + 0.5)) * patch_px for edge in edges)
    return rows, cols


def training_statistics(
    config: ModelConfig, modality: Modality
) -> tuple[Float[Tensor, " bands"], Float[Tensor, " bands"]]:
    """Return mean and standard deviation, per band, of the values that an encoder was trained on.

    Those of a converted model are not known. Two deviations on either side of the mean then span
    its range, as in the conversion of reflectance to 8 bits of SatMAE (Cong et al. 2022, arXiv
    2207.08051) and CROMA: 0..1 for CROMA, 0..255 for the Scale-ALiBi authors' models.
    """
    if modality.units == RAW_UNITS:
        middle = torch.full((len(modality.bands),), highest_value(config, modality) / 2)
        return middle, middle / 2
    return torch.tensor(modality.mean), torch.tensor(modality.std)


def to_training_values(
    config: ModelConfig,
    modality: Modality,
    values: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
) -> Float[Tensor, "batch bands rows cols"]:
    """Convert values of mean 0 and deviation 1 to those that a modality's encoder was trained on.

    Args:
        config: configuration of the model.
        modality: modality whose encoder takes the values.
        values: values standardised by the statistics of their data set.
        valid: ``True`` where there is a measurement; elsewhere the result is nodata.
    """
    mean, std = (
        part[:, None, None].to(values.device) for part in training_statistics(config, modality)
    )
    values = values * std + mean
    if modality.units == RAW_UNITS:
        values = values.clamp(torch.zeros_like(mean), 2 * mean)
    nodata = float(modality.nodata)
    # A measured value must not be taken for nodata.
    values = torch.where(values == nodata, nodata + _OFF_NODATA, values)
    return values.masked_fill(~valid, nodata)


def _names(modality: Modality, data: LabelledImages) -> tuple[str, ...]:
    """Names of a modality's bands, the data's own where they differ."""
    return tuple(
        band if band in data.bands else COMMON_NAMES.get(band, band) for band in modality.bands
    )


def _described(config: ModelConfig) -> str:
    return "; ".join(
        f"{modality.name} ({', '.join(modality.bands)})" for modality in config.modalities
    )
