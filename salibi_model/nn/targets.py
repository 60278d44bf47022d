"""Images at a coarser resolution, as targets of reconstruction. Pure functions."""

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

    Returns:
        The averages, 0 where no pixel is valid; and where one is.
    """
    share = F.avg_pool2d(valid.to(images.dtype), factor)
    total = F.avg_pool2d(images.masked_fill(~valid, 0.0), factor)
    # Half a pixel's share: less than any block with a valid pixel has.
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
        valid: where there was an observation.
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer image per anchor patch along an edge.
        patch_px: edge of a patch, in pixels of its own image.

    Returns:
        Patches on ``grid``, and where at least one pixel was valid.
    """
    fine_grid = (grid[0] * fineness, grid[1] * fineness)
    images, observed = (unpatchify(part, fine_grid, patch_px) for part in (values, valid))
    shrunk, seen = shrink(images, observed, fineness)
    return patchify(shrunk, patch_px), patchify(seen, patch_px)


def hidden_pixels(
    removed: Int64[Tensor, "batch removed"], grid: tuple[int, int], fineness: int, patch_px: int
) -> Bool[Tensor, "batch tokens pixels"]:
    """Tell which pixels of an image averaged to the anchor's grid were removed, by patch.

    A pixel of it lies in one patch of the finer image, so nothing that was seen counts as hidden,
    nor the reverse; the authors' code max-pools the mask, and most of the image counts as hidden.

    Args:
        removed: indices on the finer grid.
        grid: (rows, cols) of the anchor's patches.
        fineness: patches of the finer image per anchor patch along an edge; divides ``patch_px``.
        patch_px: edge of a patch, in pixels of its own image.
    """
    rows, cols = grid[0] * fineness, grid[1] * fineness
    hidden = removed.new_zeros(len(removed), rows * cols).scatter(1, removed, 1).bool()
    covered = patch_px // fineness
    pixels = hidden.reshape(-1, 1, rows, cols).repeat_interleave(covered, 2)
    return patchify(pixels.repeat_interleave(covered, 3), patch_px)
