"""Predicts masked patches, or hidden modalities, and measures the error."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.progress import Progress
from salibi_data.store.schema import Modality
from salibi_model.checkpoints.load import load
from salibi_model.data.modalities import check_agreement
from salibi_model.data.store import SampleStore
from salibi_model.evals.options import ReconstructionOptions
from salibi_model.models.base import PretrainModel
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.losses import patch_statistics
from salibi_model.nn.masking import random_masks
from salibi_model.nn.patches import patchify, unpatchify

HIDDEN = 128
"""Stored value shown in place of masked patches."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One image of one sample; all arrays (C, H, W) in stored values."""

    sample: int
    """Index of the sample in the store."""
    modality: Modality
    original: UInt8[np.ndarray, "bands height width"]
    masked: UInt8[np.ndarray, "bands height width"]
    """The input of the encoder: the original with the removed patches grey."""
    predicted: UInt8[np.ndarray, "bands height width"]
    """The decoder's output everywhere."""
    composite: UInt8[np.ndarray, "bands height width"]
    """The original where the encoder saw it, the prediction elsewhere."""


@dataclass(frozen=True, kw_only=True)
class ModalityError:
    """Error of the predictions, over valid pixels that the model did not see."""

    modality: str
    units: str
    """Units of the errors: ``dB``, ``reflectance`` or ``display`` (0..255)."""
    rmse: float
    """Root of the mean squared error over pixels, bands and samples."""
    mae: float
    """Mean absolute error."""
    rmse_by_band: dict[str, float]
    """The same per band."""
    flat_rmse: float
    """RMSE of a constant prediction, the baseline: each patch's own mean where the model's
    prediction is given that too, else the modality's mean."""
    num_pixels: int
    """Number of values compared."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionReport:
    """Images to show, and errors per modality."""

    shown: tuple[Reconstruction, ...]
    """Images of each sample, modality by modality."""
    errors: tuple[ModalityError, ...]
    num_samples: int
    """Number of samples that the errors are measured on."""
    given_statistics: bool
    """Whether predictions were given each patch's true mean and deviation, as MAE does for its
    figures: for models whose targets are relative to these."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the images."""
        return {
            "num_samples": self.num_samples,
            "given_statistics": self.given_statistics,
            "errors": [asdict(error) for error in self.errors],
        }


def reconstruct(
    checkpoint: str | Path | PretrainModel,
    store: str | Path | SampleStore,
    *,
    split: str = ReconstructionOptions.split,
    num_samples: int = ReconstructionOptions.num_samples,
    max_samples: int = ReconstructionOptions.max_samples,
    mask_ratio: float = ReconstructionOptions.mask_ratio,
    hide: Sequence[str] = ReconstructionOptions.hide,
    seed: int = ReconstructionOptions.seed,
    device: str | torch.device = "cpu",
    batch_size: int = ReconstructionOptions.batch_size,
    on_sample: Progress | None = None,
) -> ReconstructionReport:
    """Mask patches of a split's samples, or hide whole modalities, and predict what is hidden.

    A model with ``normalise_patches`` predicts each patch relative to the patch's own mean and
    deviation, and does not predict these. As MAE (He et al. 2022, arXiv 2111.06377) does for its
    figures, they are taken from the truth: the prediction is given a patch's brightness and
    contrast, not its content. The report says so in ``given_statistics``.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities. Those it lacks are predicted from the others
            and measured against nothing; only a model without ``normalise_patches`` can do that.
        split: ``validation``, ``test`` or ``train``.
        num_samples: number of samples to show, spread evenly over the split.
        max_samples: largest number of samples to measure errors on, spread evenly over the split.
        mask_ratio: share of patches that are removed, per modality.
        hide: modalities that are removed whole: ``["lores", "hires_4x"]`` for SAR to optical.
        seed: random seed of the masks.
        device: device to compute on, if a folder is given.
        batch_size: samples at a time.
        on_sample: called with the numbers of samples (done, total).

    Raises:
        CheckpointError: there is no model.
        StoreError: there is no store, or its split has no samples.
        UsageError: the store lacks a modality, or its values mean something else; the model has
            no decoder, ``mask_ratio`` does not fit, or everything is hidden.

    Example:
        >>> report = reconstruct(run_path, store_path, num_samples=1, max_samples=2)
        >>> [(row.modality.name, row.predicted.shape) for row in report.shown][:2]
        [('sar', (2, 256, 256)), ('lores', (3, 256, 256))]
        >>> report.num_samples, [(error.modality, error.units) for error in report.errors][:1]
        (2, [('sar', 'dB')])
    """
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = load(model, device=device)
    if not isinstance(model, ScaleAlibi):
        raise UsageError(
            f"a model of architecture {model.config.architecture} does not predict patches of "
            "all its modalities; take a scale-alibi or croma model."
        )
    for name in hide:
        model.config[name]
    samples = store if isinstance(store, SampleStore) else SampleStore(store)
    check_agreement(samples, model.config.modalities, all_needed=False)
    available = _available_modalities(model, samples)
    if set(hide) >= set(available):
        raise UsageError("every modality is hidden; leave one to predict the others from.")
    indices = samples.split_indices(split)
    if not len(indices):
        raise StoreError(f"{samples.location} has no samples in the split {split!r}.")
    shown, measured = _spread(indices, num_samples), _spread(indices, max_samples)
    chosen = np.union1d(shown, measured)
    sums = {name: _Sums(model.config[name]) for name in model.config.names}
    rows: list[Reconstruction] = []
    device = next(model.parameters()).device
    for first in range(0, len(chosen), batch_size):
        part = chosen[first : first + batch_size]
        # By seed and sample: the masks do not depend on the batch size.
        seeds = [seed * 1_000_003 + int(index) for index in part]
        images = {name: torch.from_numpy(samples.read(name, part)).to(device) for name in available}
        predictions = _predict(model, images, mask_ratio, hide, seeds)
        for name, predicted in predictions.items():
            sums[name].add(predicted, np.isin(part, measured))
        rows += _rows(model, predictions, part, shown)
        if on_sample is not None:
            on_sample(first + len(part), len(chosen))
    return ReconstructionReport(
        shown=tuple(rows),
        errors=tuple(total.error() for total in sums.values() if total.count.any()),
        num_samples=len(measured),
        given_statistics=model.config.normalise_patches,
    )


@dataclass(frozen=True, kw_only=True)
class _Predicted:
    """One modality of a batch, (B, C, H, W) at the decoder's resolution, in stored values."""

    truth: Float[Tensor, "batch bands height width"]
    predicted: Float[Tensor, "batch bands height width"]
    flat: Float[Tensor, "batch bands height width"]
    """The constant prediction of :attr:`ModalityError.flat_rmse`."""
    valid: Tensor
    """``True`` where the truth is an observation."""
    hidden: Tensor
    """``True`` where the encoder did not see the truth."""


class _Sums:
    """Sums of squared and absolute errors of one modality, in physical units."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        num_bands = len(modality.bands)
        self.squared, self.flat, self.absolute = (np.zeros(num_bands) for _ in range(3))
        self.count = np.zeros(num_bands, np.int64)

    def add(self, images: _Predicted, measured: np.ndarray) -> None:
        chosen = torch.from_numpy(measured).to(images.valid.device)[:, None, None, None]
        counted = (images.valid & images.hidden & chosen).double()
        scale = counted.new_tensor(self.modality.scale)[:, None, None]
        error, flat = (
            (guess.double() - images.truth.double()) * scale * counted
            for guess in (images.predicted, images.flat)
        )
        over = (0, 2, 3)
        self.squared += error.square().sum(over).cpu().numpy()
        self.flat += flat.square().sum(over).cpu().numpy()
        self.absolute += error.abs().sum(over).cpu().numpy()
        self.count += counted.sum(over).long().cpu().numpy()

    def error(self) -> ModalityError:
        total = max(1, int(self.count.sum()))
        by_band = np.sqrt(self.squared / np.maximum(self.count, 1))
        return ModalityError(
            modality=self.modality.name,
            units=self.modality.units,
            rmse=float(np.sqrt(self.squared.sum() / total)),
            mae=float(self.absolute.sum() / total),
            rmse_by_band=dict(zip(self.modality.bands, map(float, by_band), strict=True)),
            flat_rmse=float(np.sqrt(self.flat.sum() / total)),
            num_pixels=int(self.count.sum()),
        )


@torch.inference_mode()
def _predict(
    model: ScaleAlibi,
    images: dict[str, Tensor],
    mask_ratio: float,
    hide: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, _Predicted]:
    masks = random_masks(model.num_tokens(images), mask_ratio, seeds, hidden=hide)
    device = next(iter(images.values())).device
    masks = {name: mask.to(device) for name, mask in masks.items()}
    predicted = model.predict_patches(images, masks)
    grid = model.anchor_grid(images)
    result = {}
    for name, output in predicted.items():
        guess, flat = output.float(), torch.zeros_like(output, dtype=torch.float32)
        values, valid, hidden = flat, flat.bool(), ~flat.bool()  # the store has no truth
        if name in images:
            stored = patchify(images[name], model.config.patch_px)
            values, valid, hidden = model.reconstruction_target(
                name, stored, masks[name].removed, grid
            )
        if model.config.normalise_patches:
            mean, variance = patch_statistics(values, valid)
            # The inverse of the normalisation of the targets.
            guess, flat = guess * variance.sqrt() + mean, mean.expand_as(guess)
        predicted_images = _images(model, name, grid, (values, guess, flat), (valid, hidden))
        result[name] = _Predicted(**predicted_images)
    return result


def _images(
    model: ScaleAlibi,
    name: str,
    grid: tuple[int, int],
    normalised: tuple[Tensor, Tensor, Tensor],
    flags: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """Turn normalised patches into images of stored values, by the fields of :class:`_Predicted`."""
    encoder, fineness = model.encoder(name), model.decoder.fineness[name]
    stored = [patches * encoder.pixel_std + encoder.pixel_mean for patches in normalised]
    shape = (grid[0] * fineness, grid[1] * fineness)
    names = ("truth", "predicted", "flat", "valid", "hidden")
    return {
        key: unpatchify(patches, shape, model.config.patch_px)
        for key, patches in zip(names, (*stored, *flags), strict=True)
    }


def _rows(
    model: ScaleAlibi,
    predictions: dict[str, _Predicted],
    part: np.ndarray,
    shown_samples: np.ndarray,
) -> list[Reconstruction]:
    """Return the images of the samples to show."""
    return [
        Reconstruction(
            sample=int(index),
            modality=model.config[name],
            **{
                key: layer[i].cpu().numpy()
                for key, layer in _layers(model, name, predicted_images).items()
            },
        )
        for i, index in enumerate(part)
        if index in shown_samples
        for name, predicted_images in predictions.items()
    ]


def _layers(model: ScaleAlibi, name: str, images: _Predicted) -> dict[str, Tensor]:
    """Return the four images of each sample of a batch, by the fields of :class:`Reconstruction`."""
    # From 1: 0 is nodata.
    predicted = images.predicted.round().clamp(1, 255).to(torch.uint8)
    original = images.truth.round().clamp(1, 255).to(torch.uint8)
    original = original.masked_fill(~images.valid, model.config[name].nodata)
    return {
        "original": original,
        "masked": original.masked_fill(images.hidden, HIDDEN),
        "predicted": predicted,
        "composite": torch.where(images.hidden, predicted, original),
    }


def _available_modalities(model: ScaleAlibi, samples: SampleStore) -> list[str]:
    """Return the model's modalities that the store has.

    Raises:
        UsageError: the store lacks some, and the model's predictions are relative to the truth; or
            it lacks all.
    """
    names = model.config.names
    available = [name for name in names if name in samples.attributes.modalities]
    if available != list(names) and (model.config.normalise_patches or not available):
        missing = ", ".join(name for name in names if name not in available)
        raise UsageError(
            f"{samples.location} has no {missing}, and this model's predictions are relative to "
            "the true patches; take a store that has them, or a model trained with "
            "--absolute-targets."
        )
    return available


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose ``count`` indices, evenly spread."""
    count = min(count, len(indices))
    chosen: np.ndarray = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    return chosen
