"""Parts of ``--compat original``: configuration, decoder, and mistakes as pure functions.

Used by :mod:`salibi_model.models.original` only, which describes the mistakes by number.

Source: the public code of Kage & Andreadis 2024 (arXiv 2604.10347).
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_model.models.config import OBJECTIVES, TRI_ENCODER, ModelConfig
from salibi_model.nn.alibi import distance_bias, patch_centres
from salibi_model.nn.decoder import Decoder, sincos_positions
from salibi_model.nn.patches import patchify, unpatchify

NUM_BANDS = {"lores": 3, "sar": 2, "hires_4x": 3}
"""Number of bands per sensor, in the order in which the original stacks them as one image."""

GSD_RATIOS = {"sar": 1.0, "lores": 1.0, "hires_4x": 0.5}


class Mistake(IntEnum):
    """Names of :data:`salibi_model.models.config.MISTAKES`."""

    SELF_MATCHES = 1
    OPTICAL_HEAD = 2
    MISREAD_BIAS = 3
    OPTICAL_PLACES = 4
    DECIMATED_TARGET = 5
    RAW_VALUES = 6


def original_config(config: ModelConfig) -> ModelConfig:
    """Refuse a configuration with ablations; otherwise make its inputs raw for mistake 6.

    Raises:
        UsageError: modalities or ablations that the original does not have.
    """
    actual = tuple((m.name, len(m.bands), m.gsd_ratio) for m in config.modalities)
    expected = tuple((name, NUM_BANDS[name], GSD_RATIOS[name]) for name in TRI_ENCODER)
    if actual != expected:
        raise UsageError(
            "the original model takes sar (2 bands), lores (3) and hires_4x (3, GSD ratio 0.5), "
            f"in this order; got {', '.join(f'{name} ({bands})' for name, bands, _ in actual)}."
        )
    default_losses = set(config.objectives) == set(OBJECTIVES) and not config.pairs
    default_parts = config.gsd_scaling and config.fusion == "shared" and config.normalise_patches
    if not (default_losses and default_parts):
        raise UsageError(
            "the original model has no ablations: leave objectives, pairs, fusion, GSD scaling and "
            "patch normalisation at their defaults, or take scale-alibi."
        )
    if Mistake.RAW_VALUES not in config.mistakes:
        return replace(config, fine_target="base")
    raw = tuple(
        replace(m, mean=(0.0,) * len(m.bands), std=(1.0,) * len(m.bands), nodata=0)
        for m in config.modalities
    )
    return replace(config, modalities=raw, fine_target="base")


class StackedDecoder(Decoder):
    """Predicts all sensors by one linear layer, as bands of one image at the base zoom.

    Positions are integer indices of the grid, not centres in the ground frame. This layout does
    not count as a mistake: every model of the architecture ``original`` has it.
    """

    def __init__(
        self, *, dim: int, decoder_dim: int, depth: int, num_heads: int, patch_px: int
    ) -> None:
        super().__init__(
            dim=dim,
            decoder_dim=decoder_dim,
            depth=depth,
            num_heads=num_heads,
            patch_values={},
            fineness={},
        )
        self.num_values = {name: bands * patch_px**2 for name, bands in NUM_BANDS.items()}
        self.output = nn.Linear(decoder_dim, sum(self.num_values.values()))

    def predict_all(
        self,
        fused: Float[Tensor, "batch kept dim"],
        cells: Int64[Tensor, "batch kept"],
        grid: tuple[int, int],
    ) -> dict[str, Float[Tensor, "batch tokens _"]]:
        """Predict every patch of the grid, per sensor (B, rows * cols, values) at the base zoom.

        Args:
            fused: tokens of the joint encoder.
            cells: patch of the grid in which each of those tokens lies.
            grid: (rows, cols) of the base-zoom patches.
        """
        x = self._on_grid(self.embed(fused), cells, grid[0] * grid[1])
        indices = patch_centres(grid, 1.0).to(fused.device) - 0.5
        x = x + sincos_positions(indices, x.shape[2])
        for block in self.blocks:
            x = block(x, None)
        parts = self.output(self.norm(x)).split(list(self.num_values.values()), dim=2)
        return dict(zip(self.num_values, parts, strict=True))


def misread_bias(
    query: Int64[Tensor, "batch queries"],
    key: Int64[Tensor, "batch keys"],
    grid: tuple[int, int],
    num_heads: int,
) -> Float[Tensor, "batch {num_heads} queries keys"]:
    """Mistake 3: compute the bias between base and fine grid, read at the wrong positions.

    The authors' code keeps every fourth column of the fine grid's (4N, 4N) table, flattens the
    (4N, N) result and reads it at ``q * N + k``, as if its rows were the N base patches. For base
    patch q and fine patch k that is row ``q + k // N`` and column ``4 * (k % N)`` of the full table.

    Args:
        query: query patches on the base grid.
        key: key patches on the grid with twice as many rows and columns.
        grid: (rows, cols) of the base patches.
        num_heads: attention heads.
    """
    num_base = grid[0] * grid[1]
    centres = patch_centres((2 * grid[0], 2 * grid[1]), 0.5).to(query.device)
    row = query[:, :, None] + key[:, None, :] // num_base
    column = (4 * (key[:, None, :] % num_base)).expand_as(row)
    distance = torch.linalg.vector_norm(centres[row] - centres[column], dim=-1)
    return distance_bias(distance, num_heads)


@torch.no_grad()
def normalise_across(
    values: Mapping[str, Float[Tensor, "batch tokens _"]],
) -> dict[str, Float[Tensor, "batch tokens _"]]:
    """Mistake 6: normalise each patch to mean 0 and (unbiased) variance 1 across its sensors."""
    variance, mean = torch.var_mean(torch.cat(list(values.values()), dim=2), dim=2, keepdim=True)
    return {name: (own - mean) * torch.rsqrt(variance + 1e-6) for name, own in values.items()}


def decimate(
    patches: Shaped[Tensor, "batch fine values"],
    grid: tuple[int, int],
    fineness: int,
    patch_px: int,
) -> Shaped[Tensor, "batch tokens values"]:
    """Mistake 5: bring a finer image to the base grid by taking every ``fineness``-th pixel.

    Args:
        patches: patches of the finer image, row-major.
        grid: (rows, cols) of the base patches.
        fineness: finer patches per base patch along an edge; 1 changes nothing.
        patch_px: edge of a patch, in pixels of its own image.
    """
    images = unpatchify(patches, (grid[0] * fineness, grid[1] * fineness), patch_px)
    return patchify(images[:, :, ::fineness, ::fineness], patch_px)


def pool_mask(
    removed: Int64[Tensor, "batch removed"], grid: tuple[int, int], fineness: int
) -> Bool[Tensor, "batch tokens"]:
    """Mistake 5: count a base patch as removed where any of its finer patches is.

    Args:
        removed: indices of removed patches on the finer grid, row-major.
        grid: (rows, cols) of the base patches.
        fineness: finer patches per base patch along an edge; 1 changes nothing.
    """
    rows, cols = grid
    flags = torch.zeros(
        len(removed), rows * cols * fineness**2, dtype=torch.bool, device=removed.device
    )
    flags = flags.scatter(1, removed, True)
    return flags.reshape(-1, rows, fineness, cols, fineness).any(dim=4).any(dim=2).flatten(1)
