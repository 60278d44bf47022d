"""Random weights in the layouts of the published files: the authors' and CROMA's."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch


class Names(NamedTuple):
    """Names in a published layout of the parameters that the two layouts name differently."""

    qkv: str
    out: str
    query: str
    key: str
    value: str
    second: str


AUTHORS = Names("create_qkv", "out", "create_q", "create_k", "create_v", "net.2")


CROMA = Names("to_qkv", "to_out", "to_q", "to_k", "to_v", "net.3")


DECODER_HEADS = 8


# Weights in the published layouts.


def linear_shapes(name, rows, cols, *, bias=True):
    shapes = {f"{name}.weight": (rows, cols)}
    return {**shapes, f"{name}.bias": (rows,)} if bias else shapes


def norm_shapes(name, dim):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def block_shapes(prefix, dim, names, *, cross):
    """Attention, cross attention if there is any, feed-forward: numbered in that order."""
    shapes = {
        **linear_shapes(f"{prefix}.0.{names.qkv}", 3 * dim, dim, bias=False),
        **linear_shapes(f"{prefix}.0.{names.out}", dim, dim),
        **norm_shapes(f"{prefix}.0.input_norm", dim),
    }
    if cross:
        for part in (names.query, names.key, names.value):
            shapes |= linear_shapes(f"{prefix}.1.{part}", dim, dim, bias=False)
        shapes |= linear_shapes(f"{prefix}.1.to_out", dim, dim)
        shapes |= norm_shapes(f"{prefix}.1.input_norm", dim)
    last = 2 if cross else 1
    shapes |= linear_shapes(f"{prefix}.{last}.net.0", 4 * dim, dim)
    shapes |= linear_shapes(f"{prefix}.{last}.{names.second}", dim, 4 * dim)
    return shapes | norm_shapes(f"{prefix}.{last}.input_norm", dim)


def transformer_shapes(prefix, dim, depth, names, *, cross=False):
    shapes = norm_shapes(f"{prefix}norm_out", dim)
    for layer in range(depth):
        shapes |= block_shapes(f"{prefix}layers.{layer}", dim, names, cross=cross)
    return shapes


def encoder_shapes(prefix, values, dim, depth, names):
    return linear_shapes(f"{prefix}linear_input", dim, values) | transformer_shapes(
        f"{prefix}transformer.", dim, depth, names
    )


def head_shapes(prefix, dim):
    return {
        **norm_shapes(f"{prefix}0", dim),
        **linear_shapes(f"{prefix}1", 4 * dim, dim),
        **linear_shapes(f"{prefix}3", dim, 4 * dim),
    }


def authors_shapes(*, dim, depth, decoder_dim, patch_px, num_patches):
    area = patch_px**2
    shapes = {}
    for sensor, bands, layers in (
        ("radar", 2, depth // 2),
        ("optical", 3, depth),
        ("hires", 3, depth),
    ):
        shapes |= encoder_shapes(f"{sensor}_encoder.", bands * area, dim, layers, AUTHORS)
        shapes |= head_shapes(f"GAP_FFN_{sensor}.", dim)
        shapes |= linear_shapes(f"global_contrast_loss.{sensor}_proj", dim, dim)
    shapes |= transformer_shapes("cross_encoder.", dim, depth // 2, AUTHORS, cross=True)
    shapes |= linear_shapes("decoder.encoder_to_decoder", decoder_dim, dim)
    shapes |= transformer_shapes("decoder.decoder.", decoder_dim, 1, AUTHORS)
    shapes |= linear_shapes("decoder.linear_output", 8 * area, decoder_dim)
    return shapes | {
        "decoder.mask_token": (1, 1, decoder_dim),
        "global_contrast_loss.logit_scale": (),
    }


def random_weights(shapes, seed):
    """Weights at which attention, norms and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            weights[name] = noise * 1.5 / shape[1] ** 0.5
        elif name.endswith("weight"):
            weights[name] = 1 + 0.2 * noise
        else:
            weights[name] = 0.2 * noise
    return weights


def authors_weights(*, dim=32, depth=2, decoder_dim=16, patch_px=4, num_patches=16, seed=0):
    """A state dictionary as the authors' training loop saves it (``.pth``)."""
    shapes = authors_shapes(
        dim=dim, depth=depth, decoder_dim=decoder_dim, patch_px=patch_px, num_patches=num_patches
    )
    weights = random_weights(shapes, seed)
    weights["global_contrast_loss.logit_scale"] = torch.tensor(math.log(1 / 0.07))
    weights["decoder.decoder_pos_embed"] = sincos_table(decoder_dim, math.isqrt(num_patches))[None]
    return weights


def croma_weights(*, dim=32, depth=2, patch_px=8, seed=0):
    """CROMA's released file (``.pt``): a dictionary of five state dictionaries."""
    area = patch_px**2
    parts = {
        "s1_encoder": encoder_shapes("", 2 * area, dim, depth // 2, CROMA),
        "s1_GAP_FFN": head_shapes("", dim),
        "s2_encoder": encoder_shapes("", 12 * area, dim, depth, CROMA),
        "s2_GAP_FFN": head_shapes("", dim),
        "joint_encoder": transformer_shapes("", dim, depth // 2, CROMA, cross=True),
    }
    return {
        name: random_weights(shapes, seed + number)
        for number, (name, shapes) in enumerate(parts.items())
    }


def sincos_table(dim, edge):
    """Position embeddings of a square grid: sin x, cos x, sin y, cos y at integer indices."""
    rows = []
    for y, x in itertools.product(range(edge), range(edge)):
        row = []
        for coordinate in (x, y):
            angles = [coordinate / 10_000 ** (i / (dim // 4)) for i in range(dim // 4)]
            row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        rows.append(row)
    return torch.tensor(rows)
