"""Scale-ALiBi: attention biases from ground distance. Pure functions.

All images of a sample share one ground frame. Its unit is the edge of a patch at the base zoom;
its origin is the sample's upper left corner; x points right (east), y down (south). A patch of a
finer image (``gsd_ratio < 1``) is smaller in that frame, so one formula serves self attention at
any ground sample distance (GSD) and cross attention between two of them.

Source: Kage & Andreadis 2024 (arXiv 2604.10347), the bias ``-m(h) * distance * GSD``; slopes from
Press et al. 2022 (ALiBi, arXiv 2108.12409), section 3.
"""

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from salibi_data.store.errors import UsageError


def slopes(num_heads: int) -> Float[Tensor, " heads"]:
    """Compute each head's slope m(h): the decrease of its logits per unit of distance.

    For n heads, n a power of two, ``m_k = 2 ** (-8 k / n)`` with k = 1..n. Otherwise, with c the
    largest power of two below n: the slopes of c heads, then every other slope of 2c heads.

    Source: Press et al. 2022, section 3; for other n their released code,
    https://github.com/ofirpress/attention_with_linear_biases.

    Raises:
        UsageError: ``num_heads`` is not positive.
    """
    if num_heads < 1:
        raise UsageError(f"expected at least one attention head, got {num_heads}.")
    power = 1 << (num_heads.bit_length() - 1)
    values = _geometric_slopes(power)
    if power < num_heads:
        values += _geometric_slopes(2 * power)[0::2][: num_heads - power]
    return torch.tensor(values)


def _geometric_slopes(num_heads: int) -> list[float]:
    return [2.0 ** (-8.0 * k / num_heads) for k in range(1, num_heads + 1)]


def patch_centres(
    grid: tuple[int, int],
    gsd_ratio: float | Float[Tensor, " batch"],
    *,
    device: torch.device | None = None,
) -> Float[Tensor, "*batch tokens 2"]:
    """Compute the centres of an image's patches in the ground frame of its sample.

    Args:
        grid: (rows, cols) of patches.
        gsd_ratio: ground size of a pixel over that of a base-zoom pixel,
            ``2 ** -(zoom - base_zoom)``; one number, or one per sample.
        device: device of the result; by default that of ``gsd_ratio``.

    Returns:
        The (x, y) of each centre in base-zoom patches, ``(index + 0.5) * gsd_ratio``, row-major:
        (rows * cols, 2), or (B, rows * cols, 2) where ``gsd_ratio`` is a tensor.
    """
    rows, cols = grid
    if isinstance(gsd_ratio, Tensor):
        device = device or gsd_ratio.device
        gsd_ratio = gsd_ratio.to(device)
    y, x = torch.meshgrid(
        torch.arange(rows, device=device) + 0.5,
        torch.arange(cols, device=device) + 0.5,
        indexing="ij",
    )
    centres = torch.stack([x.flatten(), y.flatten()], dim=-1)
    if isinstance(gsd_ratio, Tensor):
        return centres * gsd_ratio[:, None, None].to(centres.dtype)
    return centres * gsd_ratio


def distance_bias(
    distance: Float[Tensor, "batch queries keys"], num_heads: int
) -> Float[Tensor, "batch {num_heads} queries keys"]:
    """Compute the bias ``-m(h) * distance`` of each head.

    Source: Kage & Andreadis 2024, the Scale-ALiBi equation.
    """
    return -slopes(num_heads).to(distance)[:, None, None] * distance[:, None]


@no_type_check  # shape checks in the tests would stop FlexAttention's compiler
def pair_bias(
    slope: Tensor, query_xy: tuple[Tensor, Tensor], key_xy: tuple[Tensor, Tensor]
) -> Tensor:
    """Compute the bias of one head, query and key: :func:`scale_alibi_bias` for one element."""
    x, y = query_xy[0] - key_xy[0], query_xy[1] - key_xy[1]
    return -slope * torch.sqrt(x * x + y * y)


def scale_alibi_bias(
    query_xy: Float[Tensor, "batch queries 2"],
    key_xy: Float[Tensor, "batch keys 2"],
    num_heads: int,
) -> Float[Tensor, "batch {num_heads} queries keys"]:
    """Compute the bias that is added to attention logits: ``-m(h) * ||query - key||``.

    It is added after the logits are divided by the square root of the head's width, and is not
    divided itself. Pass the coordinates of the patches that attend: for masked images, those of
    the kept patches. No tensor of the size of the full image is built.

    Args:
        query_xy: centres of the query patches, in base-zoom patches, from :func:`patch_centres`.
        key_xy: centres of the key patches, in the same ground frame.
        num_heads: number of attention heads.

    Returns:
        The bias (B, H, Q, K), 0 or less.

    Source: Kage & Andreadis 2024, the Scale-ALiBi equation. Departures: the slides print the
    square root of d as a factor, the working form divides by it; distances are between patch
    centres in one ground frame, where the slides multiply a grid distance by the GSD ratio (the
    same number for self attention).
    """
    difference = query_xy[:, :, None, :] - key_xy[:, None, :, :]
    return distance_bias(difference.square().sum(dim=-1).sqrt(), num_heads)
