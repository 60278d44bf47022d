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
    """Multi-head attention with a bias on its logits; projections to q, k, v have no bias terms.

    It is self attention where ``context`` is ``x`` itself, and cross attention otherwise.
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
        query, key, value = self._project(x, context)
        attended = attend(query, key, value, bias, backend=self.backend)
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def weights(
        self,
        x: Float[Tensor, "batch queries dim"],
        context: Float[Tensor, "batch keys dim"],
        bias: Bias | None,
    ) -> Float[Tensor, "batch heads queries keys"]:
        """Compute the attention weights of :meth:`forward`, for figures; rows sum to 1."""
        query, key, _ = self._project(x, context)
        return attention_weights(query, key, bias)

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if context is x:
            # One product for all three reads the tokens, and rounds them to bf16, once.
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
    """Linear layer to four times the width, GELU, and linear layer back.

    The backward pass computes GELU again: saving its output would take a quarter of a block's
    memory, computing it takes a hundredth of a block's time.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform each token on its own."""
        hidden, second = self[0](x), self[2]
        # Cast here: the backward pass runs outside autocast and needs one dtype.
        weight, bias = second.weight.to(hidden.dtype), second.bias.to(hidden.dtype)
        output: Tensor = _GeluLinear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
        return output


class _GeluLinear(torch.autograd.Function):
    """``linear(gelu(hidden))``, which saves only ``hidden`` and the weight for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2)
        grad_weight = grad_rows.T @ F.gelu(hidden).flatten(0, -2)
        # The operator that autograd uses for GELU: the same gradient to the last bit.
        grad_hidden = torch.ops.aten.gelu_backward(grad @ weight, hidden)
        return grad_hidden, grad_weight, grad_rows.sum(dim=0)


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
        """Transform tokens; ``bias`` is added to their attention logits."""
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
        """Attend within ``x``, then to ``context`` where there is one, then feed forward."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed, self_bias)
        if context is not None:
            normed, context = self.cross_norm(x), self.cross_norm(context)
            x = x + self.cross_attention(normed, context, cross_bias)
        updated: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return updated


def initialise(module: nn.Module) -> None:
    """Set a linear layer's weights to Xavier uniform and its bias to zero, as in MAE's code.

    Other modules stay as they are. For ``nn.Module.apply``.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
