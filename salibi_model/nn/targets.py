"""Targets of reconstruction at a coarser resolution than the image's. Pure functions."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from salibi_model.nn.patches import patchify, unpatchify


def shrink(
    images: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
    factor: int,
) -> tuple[Float[Tensor, "batch bands _ _"], Bool[Tensor, "batch bands _ _"]]:
    """Average blocks of ``factor`` x ``factor`` pixels over their valid ones.

    Args:
        images: images of any floating type.
        valid: True where there was an observation.
        factor: edge of a block in pixels; rows and columns beyond the last whole block are dropped.

    Returns:
        The averages, 0 where no pixel is valid; and True where one is.
    """
    share = F.avg_pool2d(valid.to(images.dtype), factor)
    total = F.avg_pool2d(images.masked_fill(~valid, 0.0), factor)
    # Half a pixel's share is less than the share of any block with a valid pixel.
    return total / share.clamp(min=0.5 / factor**2), share > 0


def shrink_patches(
    values: Float[Tensor, "batch fine values"],
    valid: Bool[Tensor, "batch fine values"],
    grid: tuple[int, int],
    fineness: int,
    patch_px: int,
) -> tuple[Float[Tensor, "batch tokens values"], Bool[Tensor, "batch tokens values"]]:
    """Average a finer image to the anchor's grid: the mean of each square's valid pixels.

    The authors' code takes every second pixel instead, which aliases.

    Args:
        values: patches of the finer image, 0 where not valid.
        valid: True where there was an observation.
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer image per anchor patch along an edge.
        patch_px: edge of a patch, in pixels of its own image.

    Returns:
        Patches on ``grid``, and True where at least one pixel was valid.
    """
    fine_grid = (grid[0] * fineness, grid[1] * fineness)
    images, valid_images = (unpatchify(x, fine_grid, patch_px) for x in (values, valid))
    shrunk, shrunk_valid = shrink(images, valid_images, fineness)
    return patchify(shrunk, patch_px), patchify(shrunk_valid, patch_px)


def hidden_pixels(
    removed: Int64[Tensor, "batch removed"], grid: tuple[int, int], fineness: int, patch_px: int
) -> Bool[Tensor, "batch tokens pixels"]:
    """Find the removed pixels of an image that was averaged to the anchor's grid, by patch.

    Each of its pixels lies in one patch of the finer image, so it was seen or removed as a whole.
    The authors' code max-pools the mask instead, and most of the image counts as removed.

    Args:
        removed: indices of removed patches on the finer grid.
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer image per anchor patch along an edge; divides ``patch_px``.
        patch_px: edge of a patch, in pixels of its own image.
    """
    rows, cols = grid[0] * fineness, grid[1] * fineness
    hidden = removed.new_zeros(len(removed), rows * cols).scatter(1, removed, 1).bool()
    covered = patch_px // fineness
    pixels = hidden.reshape(-1, 1, rows, cols).repeat_interleave(covered, 2)
    return patchify(pixels.repeat_interleave(covered, 3), patch_px)
