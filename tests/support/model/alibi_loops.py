"""The biases of Scale-ALiBi as plain loops."""

from __future__ import annotations

import math

import torch


def slopes_by_rule(n: int) -> list[float]:
    """Press et al. 2022: a geometric sequence; between powers of two, interleaved."""
    if math.log2(n).is_integer():
        ratio = 2 ** (-8 / n)
        return [ratio ** (k + 1) for k in range(n)]
    c = 2 ** math.floor(math.log2(n))
    return slopes_by_rule(c) + slopes_by_rule(2 * c)[0::2][: n - c]


def bias_by_loop(
    query: list[int],
    key: list[int],
    *,
    query_cols: int,
    key_cols: int,
    query_ratio: float,
    key_ratio: float,
    num_heads: int,
) -> torch.Tensor:
    """The formula, pixel by pixel: centres in base-zoom pixels, distance in base-zoom patches."""
    out = torch.zeros(num_heads, len(query), len(key), dtype=torch.float64)
    for h, m in enumerate(slopes_by_rule(num_heads)):
        for a, i in enumerate(query):
            for b, j in enumerate(key):
                qx, qy = (i % query_cols + 0.5) * 16, (i // query_cols + 0.5) * 16
                kx, ky = (j % key_cols + 0.5) * 16, (j // key_cols + 0.5) * 16
                dx = qx * query_ratio - kx * key_ratio
                dy = qy * query_ratio - ky * key_ratio
                out[h, a, b] = -m * math.hypot(dx, dy) / 16
    return out
