"""Original models and reconstruction terms worked out by hand."""

from __future__ import annotations

import math

import torch

from salibi_model.models.config import MISTAKES, TRI_ENCODER, ModelConfig
from salibi_model.models.original import OriginalScaleAlibi
from salibi_model.nn.layers import JointBlock
from salibi_model.nn.masking import Mask
from tests.support.model.nano import GRID, SIZE
from tests.support.model.stores import describe

HEADS = SIZE.num_heads


def original_config(names=TRI_ENCODER, *, mistakes=MISTAKES, **choices):
    modalities = tuple(map(describe, names))
    return ModelConfig(
        size=SIZE, modalities=modalities, architecture="original", mistakes=mistakes, **choices
    )


def original(*mistakes, seed=0):
    """With these mistakes; by default with all."""
    torch.manual_seed(seed)
    return OriginalScaleAlibi(original_config(mistakes=mistakes or MISTAKES))


def gradients(module):
    return [0.0 if p.grad is None else float(p.grad.abs().max()) for p in module.parameters()]


def joint_biases(model, images, masks):
    """The biases that each block of the joint encoder is given, step by step."""
    seen = []
    hooks = [
        block.register_forward_pre_hook(lambda _, given: seen.append(given[2:]))
        for block in model.modules()
        if isinstance(block, JointBlock)
    ]
    model(images, masks)
    for hook in hooks:
        hook.remove()
    return [tuple(getattr(bias, "dense", bias) for bias in biases) for biases in seen]


def shuffled(masks):
    """The same patches, the kept ones in another order for each sample."""
    generator = torch.Generator().manual_seed(1)
    mixed = {}
    for name, mask in masks.items():
        order = torch.stack(
            [torch.randperm(mask.kept.shape[1], generator=generator) for _ in mask.kept]
        )
        mixed[name] = Mask(mask.kept.gather(1, order), mask.removed)
    return mixed


def ground_bias(base, fine):
    """Distances between centres of base and fine patches in base-zoom patches, by loops."""
    table = []
    for queries, keys in zip(base.tolist(), fine.tolist(), strict=True):
        rows = []
        for q in queries:
            centre = (q // GRID + 0.5, q % GRID + 0.5)
            others = [((k // (2 * GRID) + 0.5) / 2, (k % (2 * GRID) + 0.5) / 2) for k in keys]
            rows.append([math.dist(centre, other) for other in others])
        table.append(
            [[[-(2 ** (-8 * (h + 1) / HEADS)) * d for d in r] for r in rows] for h in range(HEADS)]
        )
    return torch.tensor(table, dtype=torch.float64)
