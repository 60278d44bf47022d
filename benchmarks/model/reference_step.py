"""Training step in the manner of CROMA's and Scale-ALiBi's public code: the peer of step.py.

All patches are embedded, then the kept ones gathered; the full (heads, N, N) table of biases is repeated for each
sample and its kept pairs gathered; attention is two einsums and a softmax, with separate layers for q, k and v; every
patch is predicted, and those that were not removed are left out of the mean. Everything is float32. The mathematics
is that of Salibi, without the authors' mistakes: both give the same loss.

Source: Fuller et al. 2023 (CROMA, arXiv 2311.00566) and its code; Kage & Andreadis 2024 (arXiv 2604.10347).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias
from salibi_model.nn.layers import Attention
from salibi_model.nn.patches import patch_grid

if TYPE_CHECKING:
    from salibi_model.models.config import ModelConfig


class EinsumAttention(nn.Module):
    """Dense attention: stores the logits of all heads and their softmax as tensors."""

    def __init__(self, ours: Attention) -> None:
        super().__init__()
        dim = ours.query.in_features
        self.num_heads = ours.num_heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.output = ours.output
        with torch.no_grad():
            key, value = ours.key_value.weight.chunk(2)
            self.to_q.weight.copy_(ours.query.weight)
            self.to_k.weight.copy_(key)
            self.to_v.weight.copy_(value)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """Attend from ``x`` to ``context``."""
        query, key, value = (
            layer(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        logits = torch.einsum("bhqd,bhkd->bhqk", query, key) * query.shape[-1] ** -0.5
        if bias is not None:
            logits = logits + bias
        mixed = torch.einsum("bhqk,bhkd->bhqd", logits.softmax(dim=-1), value)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class Recipe(ScaleAlibi):
    """Scale-ALiBi model computed by the original's recipe."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, Attention):
                    setattr(module, name, EinsumAttention(child))
        self._tables: dict[tuple[str, str], Tensor] = {}
        self._kept: dict[str, Tensor] = {}

    def _encode_kept(self, images: Any, patches: Any, masks: Any, gsd_scale: Any = None) -> Any:
        """Embed every patch, keep some, and let them attend over gathered biases."""
        del gsd_scale
        tokens = {}
        self._kept = {name: masks[name].kept for name in patches}
        self._grids = {n: patch_grid(images[n], self.config.patch_px) for n in patches}
        for name in patches:
            encoder = self.encoder(name)
            values, _ = encoder.normalise(patches[name])
            x = encoder.embed(values)
            x = x.gather(1, self._kept[name][:, :, None].expand(-1, -1, x.shape[2]))
            bias = self._bias(name, name)
            for block in encoder.blocks:
                x = block(x, bias)
            tokens[name] = encoder.norm(x)
        return tokens, dict.fromkeys(tokens)

    def _bias(self, query: str, key: str) -> Tensor:
        """Repeat the whole table for each sample; gather the kept pairs of it."""
        if (query, key) not in self._tables:
            xy = [
                patch_centres(self._grids[n], self.config[n].gsd_ratio)[None].to(
                    self._kept[n].device
                )
                for n in (query, key)
            ]
            self._tables[query, key] = scale_alibi_bias(xy[0], xy[1], self.config.size.num_heads)
        table = self._tables[query, key]
        query_patches, key_patches = self._kept[query], self._kept[key]
        pairs = (query_patches[:, :, None] * table.shape[3] + key_patches[:, None, :]).flatten(1)
        repeated = table.repeat(len(query_patches), 1, 1, 1).flatten(2).transpose(1, 2)
        gathered = repeated.gather(1, pairs[:, :, None].repeat(1, 1, table.shape[1]))
        shaped = gathered.transpose(1, 2).unflatten(
            2, (query_patches.shape[1], key_patches.shape[1])
        )
        return shaped.contiguous()

    def _decode(self, tokens: Any, centres: Any, masks: Any, grid: Any, indices: Any) -> Any:
        """Fuse over gathered biases; predict every patch, then look at those of ``indices``."""
        del centres
        anchor, *contexts = tokens
        fused, self_bias = tokens[anchor], self._bias(anchor, anchor)
        for name in contexts:
            cross_bias = self._bias(anchor, name)
            for block in self.joint._stack(name):  # noqa: SLF001
                fused = block(fused, tokens[name], self_bias, cross_bias)
            fused = self.joint.norm(fused)
        everything = self._all_indices(tokens, grid, list(indices))
        return self.decoder(
            fused,
            masks[anchor].kept,
            grid,
            indices=everything,
            gsd_ratio=self.config.anchor.gsd_ratio,
        )

    def _reconstruction(
        self, name: str, patches: Tensor, predicted: Tensor, mask: Any, grid: Any
    ) -> Tensor:
        """Mean squared error of every patch, averaged over the removed ones."""
        del grid
        values, _ = self.encoder(name).normalise(patches)
        mean, variance = values.mean(2, keepdim=True), values.var(2, unbiased=False, keepdim=True)
        target = (values - mean) / (variance + 1e-6).sqrt()
        error = (predicted - target).square().mean(2)
        removed = torch.zeros_like(error).scatter(1, mask.removed, 1.0)
        return (error * removed).sum() / removed.sum()
