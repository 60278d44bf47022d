"""The smallest Scale-MAE."""

from __future__ import annotations

import torch

from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.nn.masking import random_masks
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.stores import describe

OPTICAL = ("lores", "hires_4x")


def config(names=OPTICAL, **changes):
    modalities = tuple(map(describe, names))
    return ModelConfig(
        size=SIZE,
        modalities=modalities,
        architecture="scale-mae",
        objectives=("reconstruction",),
        **changes,
    )


def nano(names=OPTICAL, *, seed=0, **changes):
    torch.manual_seed(seed)
    return ScaleMae(config(names, **changes))


def nano_masks(model, images):
    batch = len(next(iter(images.values())))
    return random_masks(model.num_tokens(images), 0.75, range(batch))


def nano_batch(model, names=OPTICAL, *, batch=2):
    images = nano_images(batch, names)
    return images, nano_masks(model, images)


def random_pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)
