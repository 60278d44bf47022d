"""Attention with a bias from ground distance, by two backends that give the same numbers.

``dense`` adds a (B, H, Q, K) bias in PyTorch's scaled dot-product attention; it works everywhere.
``flex`` computes the bias from the coordinates inside FlexAttention's kernel, so that no tensor of
that size is ever in memory; it is for GPUs, and for CPUs without gradient (PyTorch has no backward
pass of it there, and the kernel is compiled first, which takes half a minute).

Source: Kage & Andreadis 2024 (arXiv 2604.10347), the Scale-ALiBi equation; PyTorch's
documentation of ``torch.nn.attention.flex_attention``.
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
from salibi_model.nn.alibi import scale_alibi_bias, slopes
from salibi_model.nn.attention_bf16_cpu import attend_densely
from salibi_model.nn.backends import BACKENDS

AMPERE: Final = (8, 0)
"""CUDA compute capability."""
KERNELS: Final = 128
"""Kernels that a process may compile."""
MIN_FLEX_WIDTH: Final = 16
"""FlexAttention's kernels need heads of at least this width."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GroundBias:
    """Where queries and keys lie on the ground: all that attention needs to know of place.

    Made once per image and used by every block.
    """

    query_xy: Float[Tensor, "#batch queries 2"]
    """Centres in base-zoom patches, from :func:`salibi_model.nn.alibi.patch_centres`."""
    key_xy: Float[Tensor, "#batch keys 2"]
    num_heads: int
    key_valid: Bool[Tensor, "#batch keys"] | None = None
    """Which keys may be attended to; ``None``: all. Each sample has one at least."""

    @cached_property
    def dense(self) -> Float[Tensor, "#batch heads queries keys"]:
        """The bias as a tensor: ``-m(h) * distance``, and -inf at keys that are not valid."""
        return self._made()

    @cached_property
    def dense_bf16(self) -> Float[Tensor, "#batch heads queries keys"]:
        """The same, rounded once for all the blocks that train in bf16."""
        return self._made().bfloat16()

    def _made(self) -> Tensor:
        bias = scale_alibi_bias(self.query_xy, self.key_xy, self.num_heads)
        if self.key_valid is None:
            return bias
        return bias.masked_fill(~self.key_valid[:, None, None, :], -torch.inf)

    @cached_property
    def score_mod(self) -> Callable[..., Tensor]:
        """The bias as a function of (score, sample, head, query, key), for FlexAttention."""
        # Contiguous, for kernels that read them by plain strides; they are small.
        query_xy, key_xy = self.query_xy.contiguous(), self.key_xy.contiguous()
        slope = slopes(self.num_heads).to(query_xy)
        valid = None if self.key_valid is None else self.key_valid.contiguous()
        own_query, own_key = len(query_xy) > 1, len(key_xy) > 1
        own_valid = valid is not None and len(valid) > 1

        @no_type_check  # shape checks in the tests would break the kernel's compiler
        def with_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            b_query, b_key = b if own_query else b * 0, b if own_key else b * 0
            x = query_xy[b_query, q, 0] - key_xy[b_key, k, 0]
            y = query_xy[b_query, q, 1] - key_xy[b_key, k, 1]
            score = score - slope[h] * torch.sqrt(x * x + y * y)
            if valid is None:
                return score
            return torch.where(valid[b if own_valid else b * 0, k], score, -torch.inf)

        modified: Callable[..., Tensor] = with_bias
        return modified


Bias = GroundBias | Tensor
"""What is added to the logits: places, or a (B, H, Q, K) tensor of any other kind."""


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
        query: from the tokens that ask.
        key: from the tokens that are asked.
        value: what those answer.
        bias: the ground distances; a tensor is always added as it is; ``None`` adds nothing.
        backend: ``dense``, ``flex``, or ``auto``: see :func:`choose_backend`.

    Raises:
        UsageError: ``flex`` cannot do this here.
    """
    if isinstance(bias, GroundBias) and choose_backend(query, backend) == "flex":
        mixed: Tensor = _flex()(query, key, value, score_mod=bias.score_mod)
        return mixed
    if isinstance(bias, GroundBias):
        low = query.dtype == torch.bfloat16
        if low and query.device.type == "cpu":
            return attend_densely(query, key, value, bias.dense_bf16)
        bias = bias.dense_bf16 if low else bias.dense
    added = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=added)


def attention_weights(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    bias: Bias | None,
) -> Float[Tensor, "batch heads queries keys"]:
    """Give what :func:`attend` weighs the values with; rows sum to 1. For looking at, not speed."""
    logits: Tensor = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    added = bias.dense if isinstance(bias, GroundBias) else bias
    if added is not None:
        logits = logits + added.to(logits.dtype)
    return logits.softmax(dim=-1)


def choose_backend(query: Tensor, wanted: str = "auto") -> str:
    """Give the backend for these queries: ``dense`` or ``flex``.

    ``auto`` takes ``flex`` on GPUs that its kernels are made for (NVIDIA Ampere and later, with
    Triton), where it saves the memory of the bias, and ``dense`` elsewhere.

    Raises:
        UsageError: no such backend, or ``flex`` is wanted for gradients on a CPU, or for heads
            narrower than its kernels take.
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
            "FlexAttention has no backward pass on CPUs: train there with the backend dense; encode "
            "under torch.no_grad()."
        )
    return wanted


def _has_kernels(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


@cache
def _flex() -> Callable[..., Any]:
    """The compiled kernel: without compiling, FlexAttention makes the whole matrix of scores.

    Each combination of gradient, type and kind of bias is compiled once, for all sizes. By
    default PyTorch stops compiling after eight of them and goes on without, silently; here there
    is room for more, and one too many is an error.
    """
    from torch.nn.attention.flex_attention import flex_attention

    # The stubs of torch 2.13 lack this argument.
    compiled: Callable[..., Any] = torch.compile(  # type: ignore[call-overload]
        flex_attention, dynamic=True, fullgraph=True, recompile_limit=KERNELS
    )
    return compiled
