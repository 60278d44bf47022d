"""A model small enough for exact checks, and images and masks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from salibi_model.models.config import TRI_ENCODER, ModelConfig, Size
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.masking import Mask, random_masks
from tests.support.model.stores import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = Size(dim=32, depth=2, num_heads=4, decoder_dim=16, decoder_heads=2)
GRID = 4
"""Patches along an edge of a base-zoom image; the high-resolution image has twice as many."""


def nano_model(names: Sequence[str] = TRI_ENCODER, *, seed: int = 0, **choices: Any) -> ScaleAlibi:
    """A model of the named modalities with weights from ``seed``; ``choices`` of its configuration."""
    torch.manual_seed(seed)
    fields = {"size": SIZE, "modalities": tuple(map(describe, names)), **choices}
    return ScaleAlibi(ModelConfig(**fields))


def nano_images(
    batch: int = 3, names: Sequence[str] = TRI_ENCODER, *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random valid images, 64 px at the base zoom."""
    generator = torch.Generator().manual_seed(seed)
    images = {}
    for name in names:
        spec = describe(name)
        edge = round(16 * GRID / spec.gsd_ratio)
        shape = (batch, len(spec.bands), edge, edge)
        images[name] = torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)
    return images


def nano_masks(model: ScaleAlibi, images: dict[str, torch.Tensor]) -> dict[str, Mask]:
    """Masks that remove three quarters, seeded by the sample's number."""
    batch = len(next(iter(images.values())))
    return random_masks(model.num_tokens(images), 0.75, range(batch))
