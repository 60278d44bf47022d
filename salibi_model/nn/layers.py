"""Transformer parts: attention with an additive bias, feed-forward, and pre-norm blocks."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from salibi_data.store.errors import UsageError
from salibi_model.nn.attention import Bias, attend, attention_weights


class Attention(nn.Module):
    """Multi-head attention with a bias on its logits, bias-free in q, k and v.

    Self attention where ``context`` is ``x`` itself, cross attention otherwise.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise UsageError(f"width {dim} does not divide into {num_heads} attention heads.")
        self.num_heads = num_heads
        self.backend = "auto"
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries dim"],
        context: Float[Tensor, "batch keys dim"],
        bias: Bias | None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attend from ``x`` to ``context``: ``softmax(q k / sqrt(d) + bias) v``."""
        query, key, value = self._projected(x, context)
        mixed = attend(query, key, value, bias, backend=self.backend)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def weights(
        self,
        x: Float[Tensor, "batch queries dim"],
        context: Float[Tensor, "batch keys dim"],
        bias: Bias | None,
    ) -> Float[Tensor, "batch heads queries keys"]:
        """Give what :meth:`forward` weighs the context with; for looking at, not for speed."""
        query, key, _ = self._projected(x, context)
        return attention_weights(query, key, bias)

    def _projected(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if context is x:
            # One product for the three: the tokens are read, and rounded to bf16, once.
            weight = torch.cat([self.query.weight, self.key_value.weight])
            query, key, value = F.linear(x, weight).chunk(3, dim=-1)
        else:
            query = self.query(x)
            key, value = self.key_value(context).chunk(2, dim=-1)
        return self._split_heads(query), self._split_heads(key), self._split_heads(value)

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, num_tokens, _ = x.shape
        return x.reshape(batch, num_tokens, self.num_heads, -1).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Linear to four times the width, GELU, and back.

    GELU is computed again in the backward pass: keeping what it gives would take a quarter of a
    block's memory, computing it takes a hundredth of its time.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform each token on its own."""
        hidden, back = self[0](x), self[2]
        weight, bias = back.weight.to(hidden.dtype), back.bias.to(hidden.dtype)
        output: Tensor = _LinearOfGelu.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
        return output


class _LinearOfGelu(torch.autograd.Function):
    """``linear(gelu(hidden))``, of which only ``hidden`` is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        grads = grad.flatten(0, -2)
        of_weight = grads.T @ F.gelu(hidden).flatten(0, -2)
        of_hidden = torch.ops.aten.gelu_backward(grad @ weight, hidden)
        return of_hidden, of_weight, grads.sum(dim=0)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: self attention, then feed-forward."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        bias: Bias | None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Transform tokens, ``bias`` added to their attention logits."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, bias)
        updated: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return updated


class JointBlock(nn.Module):
    """Pre-norm block of the joint encoder: self attention, cross attention, feed-forward.

    One norm serves the queries and the context of cross attention, as in CROMA.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, num_heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, num_heads)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries dim"],
        context: Float[Tensor, "batch keys dim"] | None,
        self_bias: Bias,
        cross_bias: Bias | None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Transform ``x`` among itself, then with what it finds in ``context``, if there is one."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed, self_bias)
        if context is not None:
            normed, context = self.cross_norm(x), self.cross_norm(context)
            x = x + self.cross_attention(normed, context, cross_bias)
        updated: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return updated


def initialise(module: nn.Module) -> None:
    """Set a linear layer's weights to Xavier uniform and its bias to zero (as in MAE)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
