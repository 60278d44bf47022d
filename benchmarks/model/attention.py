"""Compare attention with a ground bias: Salibi's, PyTorch's SDPA, and dense like the original.

Claim: on a GPU, FlexAttention creates no (B, H, N, N) tensor and is faster than dense attention at 1,024 and 4,096
tokens. On a CPU, PyTorch's FlexAttention has no backward pass; Salibi uses SDPA in float32 and batched products of
one sample at a time in bf16, the faster of the two in each case. There the bias is a tensor, but logits and weights
are not kept. Forward and backward pass, 16 heads of width 48 as in size base; each turn computes the bias. Memory is
the peak of tensors beyond queries, keys and values.

Run: python -m benchmarks.model.attention [--quick] [--device cuda] [--report benchmarks/reports/attention.md]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from benchmarks.model.step import peak_bytes
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.attention import GroundBias, attend

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HEADS, WIDTH = 16, 48


def dense(query: Tensor, key: Tensor, value: Tensor, bias: GroundBias) -> Tensor:
    """Attend by einsums and a softmax; every step stores a tensor."""
    logits = torch.einsum("bhqd,bhkd->bhqk", query, key) * WIDTH**-0.5
    weights = (logits + bias.dense.to(query.dtype)).softmax(dim=-1)
    return torch.einsum("bhqk,bhkd->bhqd", weights, value)


def sdpa(query: Tensor, key: Tensor, value: Tensor, bias: GroundBias) -> Tensor:
    """Attend with PyTorch's kernel and the bias as a tensor."""
    added = bias.dense_bf16 if query.dtype == torch.bfloat16 else bias.dense
    return F.scaled_dot_product_attention(query, key, value, attn_mask=added)


def work_of(edge: int, way: str, device: torch.device) -> Callable[[], float]:
    """Give the forward and backward pass over ``edge`` x ``edge`` patches; it waits for the device."""
    dtype = torch.float32 if way.endswith("float32") else torch.bfloat16
    tensors = [
        torch.randn(1, HEADS, edge**2, WIDTH, device=device, dtype=dtype, requires_grad=True)
        for _ in range(3)
    ]
    xy = patch_centres((edge, edge), 0.5, device=device)[None]
    attending = {"dense": dense, "SDPA": sdpa, "ours": attend}[way.split(",", maxsplit=1)[0]]

    def work() -> float:
        bias = GroundBias(query_xy=xy, key_xy=xy, num_heads=HEADS)
        mixed = attending(*tensors, bias)
        gradients = torch.autograd.grad(mixed.float().square().mean(), tensors)
        return gradients[0][0, 0, 0, 0].item()

    return work


def main() -> None:
    """Print milliseconds and megabytes."""
    argument_parser = parser(__doc__)
    argument_parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = argument_parser.parse_args()
    device = torch.device(arguments.device)
    edges, rounds = by_form(arguments, full=((32, 64), 5), quick=((32,), 3), smallest=((8,), 1))
    names = [f"{way}, {kind}" for way in ("dense", "SDPA", "ours") for kind in ("float32", "bf16")]
    rows = []
    for edge in edges:
        ways = {name: work_of(edge, name, device) for name in names}
        median = medians(paired(ways, rounds))
        memory = {name: peak_bytes(way, device) for name, way in ways.items()}
        rows += [
            [
                f"{edge**2} tokens, {name}",
                f"{1000 * median[name]:.1f}",
                f"{median[names[0]] / median[name]:.2f}",
                f"{memory[name] / 1e6:.0f}",
                f"{memory[name] / memory[names[0]]:.2f}",
            ]
            for name in names
        ]
    what = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    head = ["way", "ms", "times as fast", "memory, MB", "of dense float32"]
    lines = [f"{describe('torch')}; {what}; medians of {rounds}", *table(head, rows)]
    report(arguments.report, "Attention with a ground bias", lines)


if __name__ == "__main__":
    main()
