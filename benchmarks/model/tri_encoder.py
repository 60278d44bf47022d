"""Model with three encoders and a batch for it, for the benchmarks of training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from salibi_data.store.schema import Modality
from salibi_model.models.config import SIZES, ModelConfig
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.masking import random_masks
from salibi_model.training.grad_cache import MaskedBatch

if TYPE_CHECKING:
    from collections.abc import Callable

SENSORS = (
    ("sar", "sentinel-1", ("vv", "vh"), 0),
    ("lores", "sentinel-2", ("red", "green", "blue"), 0),
    ("hires_4x", "naip", ("red", "green", "blue"), 1),
)
"""Name, sensor, bands, and zoom levels beyond the base."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Size of the model and of its batch."""

    size: str = "small"
    depth: int = 4
    """Blocks per encoder: fewer than the size has, because all cost the same."""
    batch_size: int = 4
    mask_ratio: float = 0.4

    def config(self) -> ModelConfig:
        """Configure the tri-encoder with 16 px patches."""
        modalities = tuple(
            Modality(
                name=name,
                sensor=sensor,
                zoom=17 + finer,
                gsd_ratio=0.5**finer,
                size_px=256 * 2**finer,
                bands=bands,
                units="display",
                scale=(1.0,) * len(bands),
                offset=(0.0,) * len(bands),
                mean=(100.0,) * len(bands),
                std=(30.0,) * len(bands),
            )
            for name, sensor, bands, finer in SENSORS
        )
        return ModelConfig(size=replace(SIZES[self.size], depth=self.depth), modalities=modalities)

    def model(self, kind: Callable[[ModelConfig], ScaleAlibi] = ScaleAlibi) -> ScaleAlibi:
        """Make the model; its weights are the same each time."""
        torch.manual_seed(0)
        return kind(self.config())

    def batch(self, device: torch.device) -> MaskedBatch:
        """Draw images without missing values, and masks; the same each time."""
        generator = torch.Generator().manual_seed(1)
        config = self.config()
        images = {
            m.name: torch.randint(
                1,
                256,
                (self.batch_size, len(m.bands), m.size_px, m.size_px),
                dtype=torch.uint8,
                generator=generator,
            )
            for m in config.modalities
        }
        num_tokens = {n: (i.shape[-1] // config.patch_px) ** 2 for n, i in images.items()}
        masks = random_masks(num_tokens, self.mask_ratio, range(self.batch_size))
        return MaskedBatch(
            images={name: image.to(device) for name, image in images.items()},
            masks={name: mask.to(device) for name, mask in masks.items()},
            gsd_scale=None,
        )
