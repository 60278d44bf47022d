"""Encoders: one vision transformer and one head per modality, and the joint encoder.

There is no position embedding and no class token: positions enter through the Scale-ALiBi bias
alone, so images of other sizes and ground sample distances need no retraining.

Source: Kage & Andreadis 2024 (arXiv 2604.10347); structure as in CROMA (Fuller et al., NeurIPS
2023), with a third encoder for high-resolution images.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from salibi_data.store.schema import Modality
from salibi_model.nn.attention import GroundBias
from salibi_model.nn.layers import FeedForward, JointBlock, TransformerBlock


class Encoder(nn.Module):
    """Vision transformer for one modality: linear patch embedding, pre-norm blocks, a final norm."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, modality: Modality, *, patch_px: int, dim: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.nodata = modality.nodata
        # patchify puts all pixels of a band side by side, so statistics repeat per band.
        per_value = torch.tensor([modality.mean, modality.std]).repeat_interleave(patch_px**2, 1)
        self.register_buffer("pixel_mean", per_value[0], persistent=False)
        self.register_buffer("pixel_std", per_value[1], persistent=False)
        self.embed = nn.Linear(len(modality.bands) * patch_px**2, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def normalise(
        self, patches: Shaped[Tensor, "batch tokens values"]
    ) -> tuple[Float[Tensor, "batch tokens values"], Bool[Tensor, "batch tokens values"]]:
        """Normalise stored values (0..255) to mean 0 and deviation 1 over the training split.

        Returns:
            The values, 0 at nodata; and True where they are valid (not nodata).
        """
        valid = patches != self.nodata
        # The difference is a new tensor: dividing it in place spares a copy.
        values = (patches - self.pixel_mean).div_(self.pixel_std)
        return values.masked_fill_(~valid, 0.0), valid

    def forward(
        self, patches: Float[Tensor, "batch tokens values"], xy: Float[Tensor, "#batch tokens 2"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Encode patches to tokens.

        Args:
            patches: normalised values, from :meth:`normalise`.
            xy: centres of the patches in the ground frame (base-zoom patches); one row of centres
                where all samples share them.
        """
        bias = GroundBias(query_xy=xy, key_xy=xy, num_heads=self.num_heads)
        x = self.embed(patches)
        for block in self.blocks:
            x = block(x, bias)
        tokens: Tensor = self.norm(x)
        return tokens


class Head(nn.Module):
    """Embedding of a modality's image: mean over tokens, norm, Linear 4D, GELU, Linear D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch dim"]:
        """Summarise an image's tokens in one vector."""
        embedding: Tensor = self.feed_forward(self.norm(tokens.mean(dim=1)))
        return embedding


class JointEncoder(nn.Module):
    """Fuses modalities at the positions of the first one, the anchor (SAR).

    The first modality queries the second; the result queries the third. After every step the
    tokens still lie at the first modality's positions, so self attention has the bias between
    positions of the first, and step k that between the first and the (k+1)-th. The authors' code
    uses the cross bias for self attention, and optical positions in the second step.

    All steps share one stack of blocks, as in the authors' code, or each modality after the first
    has a stack of its own.
    """

    def __init__(
        self, names: Sequence[str], *, dim: int, depth: int, num_heads: int, shared: bool = True
    ) -> None:
        """Set up the blocks.

        Args:
            names: names of the modalities, the anchor first.
            dim: width of the tokens.
            depth: number of blocks of a stack.
            num_heads: number of attention heads of a block.
            shared: whether all steps use the same stack.
        """
        super().__init__()
        self.num_heads = num_heads
        stacks = ["shared"] if shared else list(names[1:])
        self.stacks = nn.ModuleDict(
            {
                name: nn.ModuleList(JointBlock(dim, num_heads) for _ in range(depth))
                for name in stacks
            }
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "batch _ dim"]],
        xy: Mapping[str, Float[Tensor, "#batch _ 2"]],
    ) -> Float[Tensor, "batch anchors dim"]:
        """Fuse the tokens of one modality or more, in order.

        A modality alone goes through the blocks without cross attention.

        Args:
            tokens: tokens per modality.
            xy: centres of their patches in the ground frame (base-zoom patches), per modality.

        Returns:
            Fused tokens at the positions of the first modality.
        """
        anchor, *contexts = tokens
        fused = tokens[anchor]
        self_bias = self._bias(xy[anchor], xy[anchor])
        for name in contexts:
            cross_bias = self._bias(xy[anchor], xy[name])
            for block in self._stack(name):
                fused = block(fused, tokens[name], self_bias, cross_bias)
            fused = self.norm(fused)
        if not contexts:
            for block in self._stack(""):
                fused = block(fused, None, self_bias, None)
            fused = self.norm(fused)
        return fused

    def _bias(self, query_xy: Tensor, key_xy: Tensor) -> GroundBias:
        return GroundBias(query_xy=query_xy, key_xy=key_xy, num_heads=self.num_heads)

    def _stack(self, name: str) -> nn.ModuleList:
        """Give the blocks of the step that queries ``name``; the first stack for other names."""
        stack = self.stacks[name] if name in self.stacks else next(iter(self.stacks.values()))
        return cast("nn.ModuleList", stack)
