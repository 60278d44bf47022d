"""Attention in bf16 on CPUs, by matrix products of one sample at a time.

On processors without tile instructions (AMX), PyTorch's attention multiplies bf16 no faster than
float32, while its batched products use AVX512-BF16. The logits are computed for one sample at a
time, in the forward pass and again in the backward pass, so that memory holds those of one sample
only. ``benchmarks/model/attention.py`` measures it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def attend_per_sample(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    bias: Float[Tensor, "#batch heads queries keys"],
) -> Float[Tensor, "batch heads queries width"]:
    """Compute ``softmax(q k^T / sqrt(width) + bias) v``; no gradient flows to the bias."""
    attended: Tensor = _Attention.apply(query, key, value, bias)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    """Saves its inputs for the backward pass, and no tensor of the size of queries times keys."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        attended = torch.empty_like(query)
        samples = zip(query, key, value, bias.expand(len(query), -1, -1, -1), attended, strict=True)
        for q, k, v, b, out in samples:
            out.copy_(_weights(q, k, b) @ v)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, bias = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
        for n, b in enumerate(bias.expand(len(query), -1, -1, -1)):
            weights = _weights(query[n], key[n], b)
            grad_value[n] = weights.transpose(1, 2) @ grad[n]
            grad_weights = grad[n] @ value[n].transpose(1, 2)
            grad_logits = torch.ops.aten._softmax_backward_data(  # noqa: SLF001
                grad_weights, weights, -1, weights.dtype
            )
            grad_query[n] = (grad_logits @ key[n]).mul_(scale)
            grad_key[n] = (grad_logits.transpose(1, 2) @ query[n]).mul_(scale)
        return grad_query, grad_key, grad_value, None


def _weights(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """Compute one sample's attention weights (H, Q, K)."""
    scale = query.shape[-1] ** -0.5
    return torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale).softmax(dim=-1)
