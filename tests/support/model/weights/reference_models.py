"""CROMA and the authors' model as plain equations over their own state dictionaries.

The oracle of conversion and of the mode that repeats the authors' mistakes. Nothing here uses
``salibi_model``: attention is einsum and an explicit softmax in double precision, biases come from
loops over pairs of patches, and weights keep the names of the published files.

Sources: the public code of Kage & Andreadis 2024 (arXiv 2604.10347), which CROMA's (Fuller et al.,
NeurIPS 2023) preceded; equations and parameter names only.
"""

from __future__ import annotations

import itertools
import math

import torch

from tests.support.model.weights.reference_weights import (
    AUTHORS,
    CROMA,
    DECODER_HEADS,
    sincos_table,
)

# Biases by loops over pairs of patches.


def grid_places(edge):
    return list(itertools.product(range(edge), range(edge)))


def head_slopes(heads):
    """Powers of two only: all published models have 16 or 8 heads."""
    return [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]


def grid_bias(edge, heads, gsd=1.0):
    """-m(h) * distance in patches * gsd between all patches of a grid: (heads, N, N)."""
    places = grid_places(edge)
    table = [
        [[-slope * math.dist(place, other) * gsd for other in places] for place in places]
        for slope in head_slopes(heads)
    ]
    return torch.tensor(table, dtype=torch.float64)


def picked_bias(table, queries, keys):
    """Entries of a (heads, N, M) table at each sample's query and key indices, one by one."""
    samples = []
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        samples.append([[[head[q][k] for k in key] for q in query] for head in table.tolist()])
    return torch.tensor(samples, dtype=torch.float64)


def strided_bias(edge, heads, queries, keys):
    """The authors' bias between grids: every fourth column kept, rows of N assumed."""
    fine = grid_bias(2 * edge, heads, gsd=0.5)
    flat = [head[:, ::4].flatten().tolist() for head in fine]
    samples = []
    for query, key in zip(queries.tolist(), keys.tolist(), strict=True):
        samples.append([[[head[q * edge**2 + k] for k in key] for q in query] for head in flat])
    return torch.tensor(samples, dtype=torch.float64)


# Layers.


def doubled(weights):
    return {name: value.double() for name, value in weights.items()}


def linear(w, name, x):
    y = torch.einsum("...i,oi->...o", x, w[f"{name}.weight"])
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def norm(w, name, x):
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(q, k, v, bias, heads):
    batch, num_queries, dim = q.shape
    q, k, v = (t.reshape(batch, t.shape[1], heads, dim // heads) for t in (q, k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(dim // heads)
    if bias is not None:
        scores = scores + bias
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.einsum("bhij,bjhd->bihd", weights, v).reshape(batch, num_queries, dim)


def self_attention(w, prefix, x, bias, heads, names):
    q, k, v = linear(w, f"{prefix}.{names.qkv}", norm(w, f"{prefix}.input_norm", x)).chunk(3, -1)
    return linear(w, f"{prefix}.{names.out}", attend(q, k, v, bias, heads))


def cross_attention(w, prefix, x, context, bias, heads, names):
    """One norm for both sides, as published."""
    x, context = norm(w, f"{prefix}.input_norm", x), norm(w, f"{prefix}.input_norm", context)
    q = linear(w, f"{prefix}.{names.query}", x)
    k = linear(w, f"{prefix}.{names.key}", context)
    v = linear(w, f"{prefix}.{names.value}", context)
    return linear(w, f"{prefix}.to_out", attend(q, k, v, bias, heads))


def feed_forward(w, prefix, x, names):
    hidden = gelu(linear(w, f"{prefix}.net.0", norm(w, f"{prefix}.input_norm", x)))
    return linear(w, f"{prefix}.{names.second}", hidden)


def depth_of(w, prefix):
    """Layers under ``prefix``, counted from the names."""
    start = f"{prefix}layers."
    return 1 + max(int(name[len(start) :].split(".")[0]) for name in w if name.startswith(start))


def transformer(w, prefix, x, bias, heads, names):
    for layer in range(depth_of(w, prefix)):
        x = x + self_attention(w, f"{prefix}layers.{layer}.0", x, bias, heads, names)
        x = x + feed_forward(w, f"{prefix}layers.{layer}.1", x, names)
    return norm(w, f"{prefix}norm_out", x)


def cross_transformer(w, prefix, x, context, self_bias, cross_bias, heads, names):
    for layer in range(depth_of(w, prefix)):
        here = f"{prefix}layers.{layer}"
        x = x + self_attention(w, f"{here}.0", x, self_bias, heads, names)
        x = x + cross_attention(w, f"{here}.1", x, context, cross_bias, heads, names)
        x = x + feed_forward(w, f"{here}.2", x, names)
    return norm(w, f"{prefix}norm_out", x)


def head(w, prefix, tokens):
    hidden = gelu(linear(w, f"{prefix}1", norm(w, f"{prefix}0", tokens.mean(dim=1))))
    return linear(w, f"{prefix}3", hidden)


def cut(images, patch_px):
    """Patches row by row; a patch's values run band, row, column."""
    edge = images.shape[-1] // patch_px
    patches = [
        images[:, :, r * patch_px : (r + 1) * patch_px, c * patch_px : (c + 1) * patch_px]
        for r, c in grid_places(edge)
    ]
    return torch.stack([patch.reshape(len(images), -1) for patch in patches], dim=1)


def pick(rows, index):
    return torch.stack([row[chosen] for row, chosen in zip(rows, index, strict=True)])


# CROMA.


def croma_outputs(weights, sar, optical, *, heads):
    """Encodings, GAP representations and joint encodings of whole images, in double precision."""
    w = {f"{part}.{k}": v for part, state in weights.items() for k, v in doubled(state).items()}
    patch_px = math.isqrt(w["s1_encoder.linear_input.weight"].shape[1] // 2)
    bias = grid_bias(sar.shape[-1] // patch_px, heads)
    out = {}
    for name, part, images in (("sar", "s1", sar), ("optical", "s2", optical)):
        x = linear(w, f"{part}_encoder.linear_input", cut(images.double(), patch_px))
        out[name] = transformer(w, f"{part}_encoder.transformer.", x, bias, heads, CROMA)
        out[f"{name}_gap"] = head(w, f"{part}_GAP_FFN.", out[name])
    out["joint"] = cross_transformer(
        w, "joint_encoder.", out["sar"], out["optical"], bias, bias, heads, CROMA
    )
    return out


# The authors' model.

SENSORS = {"sar": "radar", "lores": "optical", "hires_4x": "hires"}


def authors_encode(w, name, images, kept, *, heads):
    """Tokens of the kept patches (all, in order, where ``kept`` is None) from raw pixels."""
    sensor = SENSORS[name]
    bands = images.shape[1]
    patch_px = math.isqrt(w[f"{sensor}_encoder.linear_input.weight"].shape[1] // bands)
    x = linear(w, f"{sensor}_encoder.linear_input", cut(images.double(), patch_px))
    table = grid_bias(images.shape[-1] // patch_px, heads, 0.5 if name == "hires_4x" else 1.0)
    if kept is None:
        kept = torch.arange(x.shape[1]).expand(len(x), -1)
    bias = picked_bias(table, kept, kept)
    return transformer(w, f"{sensor}_encoder.transformer.", pick(x, kept), bias, heads, AUTHORS)


def authors_embedding(w, name, tokens):
    """The optical head serves the hi-res encoder, too."""
    return head(w, "GAP_FFN_radar." if name == "sar" else "GAP_FFN_optical.", tokens)


def authors_contrastive(w, tokens):
    """Mean of optical to radar, radar to optical, and hi-res to itself."""
    unit = {}
    for name, sensor in SENSORS.items():
        features = authors_embedding(w, name, tokens[name])
        row = linear(w, f"global_contrast_loss.{sensor}_proj", features)
        unit[name] = row / row.norm(dim=1, keepdim=True)
    scale = w["global_contrast_loss.logit_scale"].exp()
    total = 0.0
    for left, right in (("lores", "sar"), ("sar", "lores"), ("hires_4x", "hires_4x")):
        logits = scale * unit[left] @ unit[right].T
        for row in range(len(logits)):
            total = total + (logits[row].logsumexp(0) - logits[row, row]) / len(logits)
    return total / 3


def authors_joint(w, tokens, kept, edge, *, heads):
    """Two steps: radar asks optical, the result asks hi-res; biases as the authors index them."""
    base = picked_bias(grid_bias(edge, heads), kept["sar"], kept["lores"])
    across = strided_bias(edge, heads, kept["lores"], kept["hires_4x"])
    x = cross_transformer(
        w, "cross_encoder.", tokens["sar"], tokens["lores"], base, base, heads, AUTHORS
    )
    return cross_transformer(
        w, "cross_encoder.", x, tokens["hires_4x"], base, across, heads, AUTHORS
    )


def authors_reconstruction(w, joint, images, kept, *, patch_px):
    """Sum over sensors of the mean squared error per removed patch, hi-res decimated."""
    edge = images["sar"].shape[-1] // patch_px
    batch, num_patches = len(joint), edge**2
    tokens_in = linear(w, "decoder.encoder_to_decoder", joint)
    rows = []
    for sample in range(batch):
        row = [w["decoder.mask_token"][0, 0]] * num_patches
        for token, position in enumerate(kept["sar"][sample].tolist()):
            row[position] = tokens_in[sample, token]
        rows.append(torch.stack(row))
    table = sincos_table(tokens_in.shape[2], edge).double()
    x = transformer(w, "decoder.decoder.", torch.stack(rows) + table, None, DECODER_HEADS, AUTHORS)
    predicted = linear(w, "decoder.linear_output", x)
    order = [images["lores"], images["sar"], images["hires_4x"][:, :, ::2, ::2]]
    target = cut(torch.cat(order, dim=1).double(), patch_px)
    mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True, unbiased=True)
    squared = ((target - mean) / (variance + 1e-6).sqrt() - predicted).square()
    removed = {name: removed_table(kept[name], edge, name) for name in kept}
    total, first = 0.0, 0
    for name, bands in (("lores", 3), ("sar", 2), ("hires_4x", 3)):
        last = first + bands * patch_px**2
        error = squared[:, :, first:last].mean(dim=2)
        total = total + error[removed[name]].mean()
        first = last
    return total


def removed_table(kept, edge, name):
    """Per base patch, whether it counts as removed; of hi-res, whether any of its four is."""
    fine = 2 if name == "hires_4x" else 1
    table = torch.zeros(len(kept), edge**2, dtype=torch.bool)
    for sample, index in enumerate(kept.tolist()):
        for row, col in grid_places(fine * edge):
            if row * fine * edge + col not in index:
                table[sample, row // fine * edge + col // fine] = True
    return table


def authors_losses(weights, images, kept, *, heads, patch_px):
    """Tokens, joint encodings and both losses, given the kept patches in the model's order."""
    w = doubled(weights)
    tokens = {
        name: authors_encode(w, name, images[name], kept[name], heads=heads) for name in SENSORS
    }
    joint = authors_joint(w, tokens, kept, images["sar"].shape[-1] // patch_px, heads=heads)
    return {
        **tokens,
        "joint": joint,
        "contrastive": authors_contrastive(w, tokens),
        "reconstruction": authors_reconstruction(w, joint, images, kept, patch_px=patch_px),
    }
