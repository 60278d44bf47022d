"""Attention with a bias from ground distance, by two backends that compute the same function.

``dense`` adds a (B, H, Q, K) bias in PyTorch's scaled dot-product attention; it works everywhere.
``flex`` computes the bias from the coordinates inside FlexAttention's kernel, so that no tensor of
that size is ever in memory. It is for GPUs, and for CPUs without gradient: PyTorch has no backward
pass of it there, and compiling the kernel takes half a minute.

Source: Kage & Andreadis 2024 (arXiv 2604.10347), the Scale-ALiBi equation; FlexAttention:
https://pytorch.org/docs/stable/nn.attention.flex_attention.html.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, Final, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_model.nn.alibi import pair_bias, scale_alibi_bias, slopes
from salibi_model.nn.attention_bf16_cpu import attend_per_sample
from salibi_model.nn.backends import BACKENDS

MIN_COMPUTE_CAPABILITY: Final = (8, 0)
"""CUDA compute capability that FlexAttention's kernels need: NVIDIA Ampere or later."""
MAX_KERNELS: Final = 128
"""Number of kernels that a process may compile."""
MIN_FLEX_WIDTH: Final = 16
"""FlexAttention's kernels need heads of at least this width."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GroundBias:
    """Positions of queries and keys on the ground, from which attention computes its bias.

    Made once per image and used by every block.
    """

    query_xy: Float[Tensor, "#batch queries 2"]
    """Centres in base-zoom patches, from :func:`salibi_model.nn.alibi.patch_centres`."""
    key_xy: Float[Tensor, "#batch keys 2"]
    """Centres of the keys, in the same ground frame."""
    num_heads: int
    key_valid: Bool[Tensor, "#batch keys"] | None = None
    """True for keys that may be attended to, at least one per sample; ``None``: all."""

    @cached_property
    def dense(self) -> Float[Tensor, "#batch heads queries keys"]:
        """The bias as a tensor: ``-m(h) * distance``, and -inf at keys that are not valid."""
        return self._compute()

    @cached_property
    def dense_bf16(self) -> Float[Tensor, "#batch heads queries keys"]:
        """The same in bfloat16, rounded once for all blocks."""
        return self._compute().bfloat16()

    def _compute(self) -> Tensor:
        bias = scale_alibi_bias(self.query_xy, self.key_xy, self.num_heads)
        if self.key_valid is None:
            return bias
        return bias.masked_fill(~self.key_valid[:, None, None, :], -torch.inf)

    @cached_property
    def score_mod(self) -> Callable[..., Tensor]:
        """The bias as a function of (score, sample, head, query, key), for FlexAttention."""
        # The kernels read coordinates by plain strides; a contiguous copy is small.
        query_xy, key_xy = self.query_xy.contiguous(), self.key_xy.contiguous()
        slope = slopes(self.num_heads).to(query_xy)
        valid = None if self.key_valid is None else self.key_valid.contiguous()
        many_queries, many_keys = len(query_xy) > 1, len(key_xy) > 1
        many_valid = valid is not None and len(valid) > 1

        @no_type_check  # shape checks in the tests would stop FlexAttention's compiler
        def add_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            # Coordinates that all samples share have one row: b * 0 is its index.
            b_query, b_key = b if many_queries else b * 0, b if many_keys else b * 0
            score = score + pair_bias(
                slope[h],
                (query_xy[b_query, q, 0], query_xy[b_query, q, 1]),
                (key_xy[b_key, k, 0], key_xy[b_key, k, 1]),
            )
            if valid is None:
                return score
            return torch.where(valid[b if many_valid else b * 0, k], score, -torch.inf)

        modifier: Callable[..., Tensor] = add_bias
        return modifier


Bias = GroundBias | Tensor
"""Bias of the logits: from ground positions, or any (B, H, Q, K) tensor."""


def attend(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    bias: Bias | None,
    *,
    backend: str = "auto",
) -> Float[Tensor, "batch heads queries width"]:
    """Attend: ``softmax(q k^T / sqrt(width) + bias) v``.

    Args:
        query: queries per head (B, H, Q, W), with W the head's width.
        key: keys per head (B, H, K, W).
        value: values per head (B, H, K, W).
        bias: positions on the ground, or a tensor, which is added as it is by the backend
            ``dense``; ``None`` adds nothing.
        backend: ``dense``, ``flex``, or ``auto``: see :func:`choose_backend`.

    Returns:
        The weighted values (B, H, Q, W).

    Raises:
        UsageError: ``flex`` does not support these queries on this device.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1, with a bias as in ALiBi.
    """
    if isinstance(bias, GroundBias) and choose_backend(query, backend) == "flex":
        attended: Tensor = _compiled_flex_attention()(query, key, value, score_mod=bias.score_mod)
        return attended
    if isinstance(bias, GroundBias):
        is_bf16 = query.dtype == torch.bfloat16
        if is_bf16 and query.device.type == "cpu":
            return attend_per_sample(query, key, value, bias.dense_bf16)
        bias = bias.dense_bf16 if is_bf16 else bias.dense
    mask = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_weights(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    bias: Bias | None,
) -> Float[Tensor, "batch heads queries keys"]:
    """Compute the weights of the values in :func:`attend`; rows sum to 1.

    For figures: it holds the (B, H, Q, K) weights in memory.
    """
    logits: Tensor = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    dense = bias.dense if isinstance(bias, GroundBias) else bias
    if dense is not None:
        logits = logits + dense.to(logits.dtype)
    return logits.softmax(dim=-1)


def choose_backend(query: Tensor, wanted: str = "auto") -> str:
    """Choose the backend for these queries: ``dense`` or ``flex``.

    ``auto`` takes ``flex`` on GPUs that its kernels are made for (NVIDIA Ampere and later, with
    Triton), where it saves the memory of the bias, and ``dense`` elsewhere.

    Raises:
        UsageError: there is no such backend; or ``flex`` was asked for with gradients on a CPU,
            or for heads narrower than its kernels take.
    """
    if wanted not in BACKENDS:
        raise UsageError(f"no attention backend {wanted!r}; take one of {', '.join(BACKENDS)}.")
    fits = query.device.type == "cpu" or query.shape[-1] >= MIN_FLEX_WIDTH
    if wanted == "auto":
        return "flex" if fits and _has_kernels(query.device) else "dense"
    if wanted == "flex" and not fits:
        raise UsageError(
            f"FlexAttention needs heads of width {MIN_FLEX_WIDTH} or more, these have "
            f"{query.shape[-1]}; take the backend dense, or fewer heads."
        )
    if wanted == "flex" and query.device.type == "cpu" and query.requires_grad:
        raise UsageError(
            "FlexAttention has no backward pass on CPUs: train there with the backend dense, or "
            "encode under torch.no_grad()."
        )
    return wanted


def _has_kernels(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= MIN_COMPUTE_CAPABILITY


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    """Compile FlexAttention; without it, the whole matrix of scores would be in memory.

    Each combination of gradient, type and kind of bias is compiled once, for all sizes. By
    default PyTorch stops compiling after eight of them and silently continues without; here the
    limit is higher, and exceeding it is an error (``fullgraph``).
    """
    from torch.nn.attention.flex_attention import flex_attention

    # The stubs of torch 2.13 lack this argument.
    compiled: Callable[..., Any] = torch.compile(  # type: ignore[call-overload]
        flex_attention, dynamic=True, fullgraph=True, recompile_limit=MAX_KERNELS
    )
    return compiled
