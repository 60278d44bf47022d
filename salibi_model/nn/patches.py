"""Images as rows of square patches, and back. Pure functions."""

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from salibi_data.store.errors import UsageError


def patch_grid(
    images: Shaped[Tensor, "batch bands height width"], patch_px: int
) -> tuple[int, int]:
    """Compute the (rows, cols) of patches in ``images``.

    Raises:
        UsageError: an edge is not a multiple of ``patch_px``.
    """
    height, width = images.shape[-2:]
    if height % patch_px or width % patch_px:
        raise UsageError(
            f"images of {height}x{width} px do not divide into patches of {patch_px} px; "
            f"crop or pad both edges to a multiple of {patch_px}."
        )
    return height // patch_px, width // patch_px


def patchify(
    images: Shaped[Tensor, "batch bands height width"], patch_px: int
) -> Shaped[Tensor, "batch tokens values"]:
    """Cut images into patches, row-major; a patch's values run band, row, column.

    Args:
        images: images (B, C, H, W) of any type.
        patch_px: edge of a patch in pixels, by which H and W divide.

    Returns:
        Patches (B, H / patch_px * W / patch_px, C * patch_px ** 2).

    Raises:
        UsageError: an edge is not a multiple of ``patch_px``.
    """
    rows, cols = patch_grid(images, patch_px)
    batch, bands = images.shape[:2]
    blocks = images.reshape(batch, bands, rows, patch_px, cols, patch_px)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * cols, bands * patch_px**2)


def unpatchify(
    patches: Shaped[Tensor, "batch tokens values"], grid: tuple[int, int], patch_px: int
) -> Shaped[Tensor, "batch bands height width"]:
    """Undo :func:`patchify` for a (rows, cols) grid."""
    rows, cols = grid
    batch = patches.shape[0]
    blocks = patches.reshape(batch, rows, cols, -1, patch_px, patch_px)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * patch_px, cols * patch_px)


def take(
    rows: Shaped[Tensor, "batch tokens values"], index: Int64[Tensor, "batch chosen"]
) -> Shaped[Tensor, "batch chosen values"]:
    """Take the rows with the given indices, per sample."""
    batch, num_rows = rows.shape[:2]
    # index_select takes whole rows; `gather` would need an index of eight bytes for every value.
    first = torch.arange(batch, device=rows.device)[:, None] * num_rows
    chosen = rows.flatten(0, 1).index_select(0, (first + index).flatten())
    return chosen.reshape(*index.shape, -1)
