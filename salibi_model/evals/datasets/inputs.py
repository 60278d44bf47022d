"""How labelled images are shown to a model: which bands, at which size, in which values."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.data.store import RAW_UNITS
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.models.config import ModelConfig

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
"""Names that labelled data has for Sentinel-2's bands, by which CROMA's encoder numbers them."""

_OFF_NODATA = 1e-3
"""By how much a valid value that happens to be the nodata value is moved."""


class UnfitError(UsageError):
    """A data set, or a scale of it, cannot be shown to this model, or fits another method."""


def bands_for(config: ModelConfig, modality: str, data: LabelledImages) -> tuple[str, ...]:
    """Give the data's names of the bands that a modality's encoder sees, in its order.

    Raises:
        UnfitError: the data lacks one.
        UsageError: the model has no such modality.
    """
    names = _names(config[modality], data)
    lacking = [name for name in names if name not in data.bands]
    if lacking:
        raise UnfitError(
            f"{data.name} lacks {', '.join(lacking)}, which modality {modality!r} sees; it has "
            f"{', '.join(data.bands)}. The model has {_described(config)}."
        )
    return names


def modalities_for(config: ModelConfig, data: LabelledImages) -> tuple[str, ...]:
    """Give the model's modalities whose bands the data has.

    Raises:
        UnfitError: there is none.
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


def shown_shape(
    shape: tuple[int, int],
    *,
    patch_px: int,
    scale: float = 1.0,
    image_px: int | None = None,
    where: str = "the data",
) -> tuple[int, int]:
    """Give the (rows, cols) at which images of ``shape`` are shown: nearest multiples of a patch.

    Args:
        shape: (rows, cols) of the images.
        patch_px: edge of a patch.
        scale: how many of their pixels go on one, along an edge.
        image_px: longer edge to which they are brought before that; ``None``: their own.
        where: the data's name, for the error.

    Raises:
        UnfitError: at this scale not even one patch is left of them.
        UsageError: the scale is not above 0.
    """
    if not 0 < scale < math.inf:
        raise UsageError(f"the scale is {scale}; take a number above 0, such as 2.")
    enlarged = 1.0 if image_px is None else image_px / max(shape)
    wanted = [edge * enlarged / scale for edge in shape]
    if scale > 1 and min(wanted) < patch_px:
        raise UnfitError(
            f"images of {where} have {min(wanted):.0f} px at scale {scale:g}, less than a patch of "
            f"{patch_px} px; take a smaller scale."
        )
    rows, cols = (max(1, math.floor(edge / patch_px + 0.5)) * patch_px for edge in wanted)
    return rows, cols


def trained_statistics(
    config: ModelConfig, modality: Modality
) -> tuple[Float[Tensor, " bands"], Float[Tensor, " bands"]]:
    """Give mean and deviation, per band, of the values that an encoder was trained on.

    A converted model's are not known. Two deviations about the mean then span its range, as where
    SatMAE (Cong et al. 2022, arXiv 2207.08051) and CROMA make 8-bit values of reflectances: 0..1
    for CROMA, 0..255 for the authors' models.
    """
    if modality.units == RAW_UNITS:
        highest = 1.0 if config.architecture == "croma" else 255.0
        middle = torch.full((len(modality.bands),), highest / 2)
        return middle, middle / 2
    return torch.tensor(modality.mean), torch.tensor(modality.std)


def as_trained(
    config: ModelConfig,
    modality: Modality,
    values: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
) -> Float[Tensor, "batch bands rows cols"]:
    """Bring values of mean 0 and deviation 1 to those that a modality's encoder was trained on.

    Args:
        config: the model's.
        modality: whose encoder is to see them.
        values: standardised by the statistics of the data they are of.
        valid: where they were measured; elsewhere nodata is given.
    """
    mean, std = (
        part[:, None, None].to(values.device) for part in trained_statistics(config, modality)
    )
    values = values * std + mean
    if modality.units == RAW_UNITS:
        values = values.clamp(torch.zeros_like(mean), 2 * mean)
    nodata = float(modality.nodata)
    values = torch.where(values == nodata, nodata + _OFF_NODATA, values)
    return values.masked_fill(~valid, nodata)


def _names(modality: Modality, data: LabelledImages) -> tuple[str, ...]:
    return tuple(
        band if band in data.bands else COMMON_NAMES.get(band, band) for band in modality.bands
    )


def _described(config: ModelConfig) -> str:
    return "; ".join(f"{one.name} ({', '.join(one.bands)})" for one in config.modalities)
