"""Adapts a checkpoint as a model of torchgeo-bench (extra ``torchgeo-bench``, Python 3.12+).

The framework standardises images by their data set's statistics; here they are rescaled to the
values that the encoder was trained on, as in the project's own evaluation. Nothing else imports
this module.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchgeo_bench.datasets.base import BandSpec
from torchgeo_bench.models._band_mapping import canonical_band_name
from torchgeo_bench.models.interface import BenchModel

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.checkpoints.load import load
from salibi_model.data.resample import resample
from salibi_model.evals.datasets.inputs import COMMON_NAMES, input_shape, to_training_values
from salibi_model.models.compatibility import check_gsd
from salibi_model.models.config import ModelConfig

_NORMALIZATION: Final = "bandspec_zscore"
_FRAMEWORK_NAMES: Final = {
    "nir08": "nir_narrow",
    "nir09": "watervapor",
    "swir16": "swir1",
    "swir22": "swir2",
}
"""The framework's names of bands, where they differ."""


class SalibiBench(BenchModel):  # type: ignore[misc]
    """The encoder of one of a checkpoint's modalities.

    For segmentation, hook the layer ``tokens``, which is called with the patch tokens on their grid.
    """

    def __init__(
        self,
        bands: Sequence[BandSpec],
        *,
        checkpoint: str | Path,
        modality: str | None = None,
        gsd_m: float | None = None,
        any_gsd: bool = False,
        normalization: str = _NORMALIZATION,
        **_: object,
    ) -> None:
        """Load the model, and choose the bands of the data set for it.

        Args:
            bands: bands of the data set, given by the framework.
            checkpoint: a run's or model's folder.
            modality: modality whose encoder takes the images; ``None``: the first whose bands the
                data set has.
            gsd_m: metres per pixel of the images after the framework's resizing, which does not
                state them. Needed if the model was trained with metres.
            any_gsd: whether to accept images far from the ground sample distances of the training.
            normalization: strategy of the framework; only ``bandspec_zscore``.

        Raises:
            UsageError: bands, units, GSD or normalization do not fit the model.
            CheckpointError: there is no model.
        """
        if str(normalization) != _NORMALIZATION:
            raise UsageError(
                f"normalization is {str(normalization)!r}; expected {_NORMALIZATION!r}, from which "
                "values are brought to those of the training."
            )
        super().__init__(bands=list(bands), normalization=_NORMALIZATION)
        self.model = load(checkpoint)
        self.modality, self._order = _choose_modality(self.model.config, modality, bands)
        if gsd_m is not None:
            check_gsd(self.model.config, self.modality, gsd_m, any_gsd=any_gsd)
        elif self.model.config.base_gsd_m is not None:
            raise UsageError(
                "the model was trained with metres: give gsd_m, such as model.gsd_m=10."
            )
        self._gsd_m = gsd_m if self.model.config.base_gsd_m else None
        self.tokens = nn.Identity()

    @torch.no_grad()
    def _forward_patch_features(
        self, images: Float[Tensor, "batch bands rows cols"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the pooled embedding of standardised images, and call :attr:`tokens` with their tokens."""
        images = images[:, self._order]
        valid = images.isfinite()
        values = images.masked_fill(~valid, 0.0)
        patch_px = self.model.config.patch_px
        height, width = images.shape[-2:]
        shape = input_shape((height, width), patch_px=patch_px)
        if (height, width) != shape:
            values, valid = resample(values, valid, shape)
        gsd_factor = math.sqrt(height * width / math.prod(shape))
        spec = self.model.config[self.modality]
        stored = to_training_values(self.model.config, spec, values, valid)
        # Rescaled by their statistics, values are in the training's units, outliers beyond 0..255.
        encode = functools.partial(self.model.encode, check_values=False)
        if self._gsd_m is None:
            encode = functools.partial(encode, gsd_ratio=spec.gsd_ratio * gsd_factor)
        else:
            encode = functools.partial(encode, gsd_m=self._gsd_m * gsd_factor)
        tokens, vectors = encode(stored, self.modality)
        rows, cols = (edge // patch_px for edge in shape)
        self.tokens(tokens.transpose(1, 2).reshape(len(images), -1, rows, cols))
        return vectors


def _choose_modality(
    config: ModelConfig, modality: str | None, bands: Sequence[BandSpec]
) -> tuple[str, list[int]]:
    """Return the modality whose encoder takes the images, and the positions of its bands.

    Raises:
        UsageError: a band is missing, or radar is not in dB.
    """
    available = [canonical_band_name(band.name) for band in bands]
    modalities = config.modalities if modality is None else (config[modality],)
    for spec in modalities:
        names = [_framework_name(band) for band in spec.bands]
        if set(names) <= set(available):
            order = [available.index(name) for name in names]
            _check_decibels(spec, [bands[position] for position in order])
            return spec.name, order
    listed = "; ".join(f"{spec.name} ({', '.join(spec.bands)})" for spec in modalities)
    raise UsageError(
        f"the data set has the bands {', '.join(band.name for band in bands)}; expected all those of "
        f"{listed}. Take other bands or another modality."
    )


def _framework_name(band: str) -> str:
    common = COMMON_NAMES.get(band.lower(), band.lower())
    return str(canonical_band_name(_FRAMEWORK_NAMES.get(common, common)))


def _check_decibels(spec: Modality, bands: Sequence[BandSpec]) -> None:
    """Refuse linear radar power for a modality in dB: it is never below 0, which dB are."""
    if spec.units.lower() == "db" and all(band.min >= 0 for band in bands):
        raise UsageError(
            f"modality {spec.name!r} was trained on dB; the data set's bands "
            f"{', '.join(band.name for band in bands)} are never below 0, as power is. Take other data."
        )
