"""What a model makes of the patches it does not see: arrays ready for a figure."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

import salibi_model
from salibi_data.schema import Modality
from salibi_model.errors import StoreError
from salibi_model.losses import patch_statistics
from salibi_model.masking import Mask, random_masks
from salibi_model.patches import patch_grid, patchify, unpatchify
from salibi_model.pretrain import ScaleAlibi
from salibi_model.store import SampleStore

HIDDEN = 128
"""Value shown where a patch is masked."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One image of one sample; all arrays (C, H, W) in the store's units."""

    sample: int
    modality: Modality
    original: UInt8[np.ndarray, "bands height width"]
    masked: UInt8[np.ndarray, "bands height width"]
    """The original with the removed patches grey: what the encoder saw."""
    predicted: UInt8[np.ndarray, "bands height width"]
    """The decoder's output everywhere, in the TARGET patches' own mean and deviation."""
    composite: UInt8[np.ndarray, "bands height width"]
    """The original where it was seen, the prediction elsewhere."""


def reconstruct(
    checkpoint: str | Path | ScaleAlibi,
    store: str | Path | SampleStore,
    *,
    split: str = "validation",
    num_samples: int = 4,
    mask_ratio: float = 0.75,
    seed: int = 0,
    device: str = "cpu",
) -> list[Reconstruction]:
    """Mask the first samples of a split and predict what is hidden.

    The model predicts each patch relative to its own mean and deviation, and these are not
    predicted. As MAE (He et al. 2022) does for its figures, they are taken from the target: a
    patch's brightness and contrast are given to the prediction, its content is not. A figure of
    these arrays should say so.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        split: ``validation``, ``test`` or ``train``.
        num_samples: how many samples, spread evenly over the split.
        mask_ratio: share of patches REMOVED, per modality.
        seed: of the masks.
        device: where to compute.

    Returns:
        Sample by sample, and within a sample modality by modality.

    Raises:
        CheckpointError: there is no model.
        StoreError: there is no store, or its split has no samples.
        UsageError: the store lacks a modality, or ``mask_ratio`` does not fit.
    """
    model = checkpoint
    if not isinstance(model, ScaleAlibi):
        model = salibi_model.load(model, device=device)
    samples = store if isinstance(store, SampleStore) else SampleStore(store)
    indices = samples.split_indices(split)
    if not len(indices):
        raise StoreError(f"{samples.location} has no samples in the split {split!r}.")
    count = min(num_samples, len(indices))
    chosen = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    images = {
        name: torch.from_numpy(samples.read(name, chosen)).to(device) for name in model.config.names
    }
    seeds = [seed * 1_000_003 + int(index) for index in chosen]
    masks = {
        name: mask.to(torch.device(device))
        for name, mask in random_masks(model.num_tokens(images), mask_ratio, seeds).items()
    }
    with torch.inference_mode():
        predicted = model.predict_patches(images, masks)
        panels = {
            name: _panels(model, name, images[name], predicted[name], masks[name])
            for name in model.config.names
        }
    return [
        Reconstruction(
            sample=int(index), modality=model.config[name], **{k: v[i] for k, v in shown.items()}
        )
        for i, index in enumerate(chosen)
        for name, shown in panels.items()
    ]


def _panels(
    model: ScaleAlibi, name: str, images: Tensor, predicted: Tensor, mask: Mask
) -> dict[str, np.ndarray]:
    """Bring predictions back to store units and lay them beside what was there."""
    patch_px = model.config.patch_px
    grid = patch_grid(images, patch_px)
    stored = patchify(images, patch_px)
    encoder = model.encoder(name)
    values, valid = encoder.normalise(stored)
    mean, variance = patch_statistics(values, valid)
    restored = predicted.float() * variance.sqrt() + mean
    restored = restored * encoder.pixel_std + encoder.pixel_mean
    restored = restored.round().clamp(1, 255).to(torch.uint8)
    removed = torch.zeros(stored.shape[:2], dtype=torch.bool, device=stored.device)
    removed = removed.scatter(1, mask.removed, True)[:, :, None]
    layers = {
        "original": stored,
        "masked": stored.masked_fill(removed, HIDDEN),
        "predicted": restored,
        "composite": torch.where(removed, restored, stored),
    }
    return {key: unpatchify(layer, grid, patch_px).cpu().numpy() for key, layer in layers.items()}
