"""Parts of ``--compat original``: configuration, decoder, and mistakes as pure functions.

The companion of :mod:`salibi_model.models.original`, used by nothing else; mistakes are numbered there.

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
from salibi_model.nn.alibi import patch_centres, slopes
from salibi_model.nn.decoder import Decoder, sincos_positions
from salibi_model.nn.patches import patchify, unpatchify

NUM_BANDS = {"lores": 3, "sar": 2, "hires_4x": 3}
"""Sensors in the order in which the original stacks them as one image, and their bands."""

GSD_RATIOS = {"sar": 1.0, "lores": 1.0, "hires_4x": 0.5}


class Mistake(IntEnum):
    """What :data:`salibi_model.models.config.MISTAKES` are called in the code."""

    SELF_MATCHES = 1
    OPTICAL_HEAD = 2
    MISREAD_BIAS = 3
    OPTICAL_PLACES = 4
    DECIMATED_TARGET = 5
    RAW_VALUES = 6


def original_config(config: ModelConfig) -> ModelConfig:
    """Check that ``config`` asks for nothing else; make its inputs raw for mistake 6.

    Raises:
        UsageError: modalities or ablations that the original does not have.
    """
    found = tuple((m.name, len(m.bands), m.gsd_ratio) for m in config.modalities)
    wanted = tuple((name, NUM_BANDS[name], GSD_RATIOS[name]) for name in TRI_ENCODER)
    if found != wanted:
        raise UsageError(
            "the original model takes sar (2 bands), lores (3) and hires_4x (3, GSD ratio 0.5), "
            f"in this order; got {', '.join(f'{name} ({bands})' for name, bands, _ in found)}."
        )
    whole = set(config.objectives) == set(OBJECTIVES) and not config.pairs
    usual = config.gsd_scaling and config.fusion == "shared" and config.normalise_patches
    if not (whole and usual):
        raise UsageError(
            "the original model has no ablations: leave objectives, pairs, fusion, GSD scaling and "
            "the normalising of patches at their defaults, or take scale-alibi."
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

    Positions are integer indices of the grid, not centres in the ground frame. This layout is none
    of the mistakes: every model of the architecture ``original`` has it.
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

    def stacked(
        self,
        fused: Float[Tensor, "batch kept dim"],
        cells: Int64[Tensor, "batch kept"],
        grid: tuple[int, int],
    ) -> dict[str, Float[Tensor, "batch tokens _"]]:
        """Predict every patch of the grid, per sensor at the base zoom."""
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
    """Mistake 3: the bias between base and fine grid, read at the wrong places.

    Of the (4N, 4N) table of the fine grid every fourth column is kept; the (4N, N) rest is
    flattened and read at ``q * N + k``, as if its rows were those of the N base patches. For base
    patch q and fine patch k that is row ``q + k // N`` and column ``4 * (k % N)`` of the full table.

    Args:
        query: patches that ask, of the base grid.
        key: patches that are asked, of the grid with twice as many rows and columns.
        grid: (rows, cols) of the base patches.
        num_heads: attention heads.
    """
    num_base = grid[0] * grid[1]
    centres = patch_centres((2 * grid[0], 2 * grid[1]), 0.5).to(query.device)
    row = query[:, :, None] + key[:, None, :] // num_base
    column = (4 * (key[:, None, :] % num_base)).expand_as(row)
    distance = torch.linalg.vector_norm(centres[row] - centres[column], dim=-1)
    bias: Tensor = -slopes(num_heads).to(distance)[:, None, None] * distance[:, None]
    return bias


@torch.no_grad()
def normalised_across(
    values: Mapping[str, Float[Tensor, "batch tokens _"]],
) -> dict[str, Float[Tensor, "batch tokens _"]]:
    """Mistake 6: bring each patch to mean 0 and variance 1 over the values of all its sensors.

    The variance is the unbiased one.
    """
    variance, mean = torch.var_mean(torch.cat(list(values.values()), dim=2), dim=2, keepdim=True)
    return {name: (own - mean) * torch.rsqrt(variance + 1e-6) for name, own in values.items()}


def decimated(
    patches: Shaped[Tensor, "batch fine values"],
    grid: tuple[int, int],
    fineness: int,
    patch_px: int,
) -> Shaped[Tensor, "batch tokens values"]:
    """Mistake 5: bring a finer image to the base grid by every ``fineness``-th of its pixels.

    Args:
        patches: of the finer image, row-major.
        grid: (rows, cols) of the base patches.
        fineness: finer patches per base patch along an edge; 1 changes nothing.
        patch_px: edge of a patch, in pixels of its own image.
    """
    images = unpatchify(patches, (grid[0] * fineness, grid[1] * fineness), patch_px)
    return patchify(images[:, :, ::fineness, ::fineness], patch_px)


def pooled_mask(
    removed: Int64[Tensor, "batch removed"], grid: tuple[int, int], fineness: int
) -> Bool[Tensor, "batch tokens"]:
    """Mistake 5: a base patch counts as removed where any of its finer patches is.

    Args:
        removed: indices on the finer grid, row-major.
        grid: (rows, cols) of the base patches.
        fineness: finer patches per base patch along an edge; 1 changes nothing.
    """
    rows, cols = grid
    flags = torch.zeros(
        len(removed), rows * cols * fineness**2, dtype=torch.bool, device=removed.device
    )
    flags = flags.scatter(1, removed, True)
    return flags.reshape(-1, rows, fineness, cols, fineness).any(dim=4).any(dim=2).flatten(1)
