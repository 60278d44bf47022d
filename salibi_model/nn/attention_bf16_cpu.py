"""Attention in bf16 on CPUs, by matrix products of one sample at a time.

PyTorch's attention for CPUs multiplies bf16 no faster than float32 where the processor has no tile instructions
(AMX), while its batched products use AVX512-BF16. One sample's logits are made at a time, in the forward pass and
again in the backward pass, so that no more than those of one are in memory. ``benchmarks/model/attention.py`` measures it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_densely(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    bias: Float[Tensor, "#batch heads queries keys"],
) -> Float[Tensor, "batch heads queries width"]:
    """Give ``softmax(q k^T / sqrt(width) + bias) v``; no gradient flows to the bias."""
    mixed: Tensor = _Attention.apply(query, key, value, bias)  # type: ignore[no-untyped-call]
    return mixed


class _Attention(torch.autograd.Function):
    """Keeps its inputs for the backward pass, and nothing of the size of queries times keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        mixed = torch.empty_like(query)
        samples = zip(query, key, value, bias.expand(len(query), -1, -1, -1), mixed, strict=True)
        for q, k, v, b, out in samples:
            out.copy_(_weights(q, k, b) @ v)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, bias = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        of_query, of_key, of_value = map(torch.empty_like, (query, key, value))
        for n, b in enumerate(bias.expand(len(query), -1, -1, -1)):
            weights = _weights(query[n], key[n], b)
            of_value[n] = weights.transpose(1, 2) @ grad[n]
            of_weights = grad[n] @ value[n].transpose(1, 2)
            of_logits = torch.ops.aten._softmax_backward_data(  # noqa: SLF001
                of_weights, weights, -1, weights.dtype
            )
            of_query[n] = (of_logits @ key[n]).mul_(scale)
            of_key[n] = (of_logits.transpose(1, 2) @ query[n]).mul_(scale)
        return of_query, of_key, of_value, None


def _weights(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """One sample's attention weights, of all heads."""
    scale = query.shape[-1] ** -0.5
    return torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale).softmax(dim=-1)
