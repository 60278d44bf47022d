"""Decoder: from fused tokens at the positions of one modality to the patches of every modality.

Source: MAE (He et al. 2022) and CROMA (Fuller et al. 2023): mask tokens, sine-cosine positions,
one light transformer. Departures: positions are in the ground frame, and a finer modality is
predicted at its native resolution (each base position predicts the 2x2 patches it covers), where
the authors' code decimates the high-resolution target.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.layers import TransformerBlock
from salibi_model.nn.patches import take


def sincos_positions(xy: Float[Tensor, "*batch 2"], dim: int) -> Float[Tensor, "*batch {dim}"]:
    """Embed positions (base-zoom patches) by sines and cosines; ``dim`` is a multiple of four.

    A quarter of the channels each for sin x, cos x, sin y, cos y, at wavelengths that rise
    geometrically from 2 pi to almost 20,000 pi (Vaswani et al. 2017, section 3.5, per axis).
    """
    frequency = 10_000.0 ** -(torch.arange(dim // 4, device=xy.device) / (dim // 4))
    angle = xy[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class Decoder(nn.Module):
    """Predicts the patches of all modalities from tokens somewhere on the anchor's grid."""

    def __init__(
        self,
        *,
        dim: int,
        decoder_dim: int,
        depth: int,
        num_heads: int,
        patch_values: Mapping[str, int],
        fineness: Mapping[str, int],
    ) -> None:
        """Set up the layers.

        Args:
            dim: width of the encoders' tokens.
            decoder_dim: width of the decoder, a multiple of four.
            depth: number of blocks.
            num_heads: number of attention heads of a block.
            patch_values: number of values in a patch per modality (bands * patch_px ** 2).
            fineness: patches per anchor patch along an edge, per modality (2 for hires_4x).
        """
        super().__init__()
        self.fineness = dict(fineness)
        self.embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        self.blocks = nn.ModuleList(TransformerBlock(decoder_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(decoder_dim)
        self.predict = nn.ModuleDict(
            {
                name: nn.Linear(decoder_dim, fineness[name] ** 2 * values)
                for name, values in patch_values.items()
            }
        )

    def forward(
        self,
        fused: Float[Tensor, "batch kept dim"],
        cells: Int64[Tensor, "batch kept"],
        grid: tuple[int, int],
        *,
        indices: Mapping[str, Int64[Tensor, "batch _"]],
        gsd_ratio: float = 1.0,
    ) -> dict[str, Float[Tensor, "batch _ _"]]:
        """Predict patches of modalities.

        Args:
            fused: tokens of the joint encoder.
            cells: patch of the anchor's grid in which each of those tokens lies.
            grid: (rows, cols) of the anchor's patches.
            indices: patches to predict per modality (B, P): row-major indices on its own grid.
            gsd_ratio: GSD ratio of the anchor.

        Returns:
            Values of those patches per modality of ``indices`` (B, P, values).
        """
        x = self._on_grid(self.embed(fused), cells, grid[0] * grid[1])
        centres = patch_centres(grid, gsd_ratio).to(fused.device)
        x = x + sincos_positions(centres, x.shape[2])
        for block in self.blocks:
            x = block(x, None)
        x = self.norm(x)
        predicted = {}
        for name, index in indices.items():
            fineness = self.fineness[name]
            patches = self.predict[name](x).unflatten(2, (fineness**2, -1)).flatten(1, 2)
            order = anchor_order(grid, fineness).to(fused.device)
            predicted[name] = take(patches, order[index])
        return predicted

    def _on_grid(self, tokens: Tensor, cells: Tensor, num_cells: int) -> Tensor:
        """Lay tokens on the anchor's grid: the mean of those in a cell, else the mask token."""
        batch, _, dim = tokens.shape
        sums = tokens.new_zeros(batch, num_cells, dim)
        sums = sums.scatter_add(1, cells[:, :, None].expand_as(tokens), tokens)
        counts = tokens.new_zeros(batch, num_cells).scatter_add(
            1, cells, tokens.new_ones(cells.shape)
        )
        mean = sums / counts.clamp(min=1)[:, :, None]
        return torch.where(counts[:, :, None] > 0, mean, self.mask_token.to(tokens.dtype))


def anchor_order(grid: tuple[int, int], fineness: int) -> Int64[Tensor, " tokens"]:
    """Give the index of the prediction for each patch of the finer grid (row-major).

    Predictions run anchor by anchor, and within an anchor row by row over the ``fineness`` ** 2
    patches that it covers: for 16x16 anchors and fineness 2, anchor 0 predicts patches 0, 1, 32,
    33 of the 32x32 grid.

    Args:
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer grid per anchor patch along an edge.
    """
    rows, cols = grid
    predictions = torch.arange(rows * cols * fineness**2)
    by_anchor = predictions.reshape(rows, cols, fineness, fineness)
    return by_anchor.transpose(1, 2).flatten()


def anchor_cells(grid: tuple[int, int], fineness: int) -> Int64[Tensor, " tokens"]:
    """Give the anchor patch that covers each patch of the finer grid (row-major).

    Args:
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer grid per anchor patch along an edge.
    """
    return anchor_order(grid, fineness) // fineness**2
