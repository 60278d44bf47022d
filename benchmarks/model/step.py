"""Compare the training step of three encoders with the original's recipe.

Claim: SDPA, bf16 where the processor has it, a bias from the kept patches' coordinates, fewer saved activations and a
fused optimiser make the step 2.5 times as fast on a CPU (4 times on a GPU), the forward pass alone 4.5 times, in 0.30
of the memory. The recipe is in reference_step.py; both give the same loss (checked here, in float32). The ways take
turns in one process. Memory is the peak of the tensors of a step beyond weights and optimiser state. The limit is a
matrix product of 2048 x 2048 in the same run; operations are those of the original's way, as counted by PyTorch.

Run: python -m benchmarks.model.step [--quick] [--device cuda] [--report benchmarks/reports/step.md]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, medians, paired, parser, report, table
from benchmarks.model.reference_step import Recipe
from benchmarks.model.tri_encoder import Workload
from salibi_model.training import optim
from salibi_model.training.allocator import keep_freed_memory
from salibi_model.training.grad_cache import LossStep, MaskedBatch, add_gradients, batch_losses

if TYPE_CHECKING:
    from salibi_model.models.scale_alibi import ScaleAlibi

TARGETS = {"step": 2.5, "forward": 4.5, "memory": 0.30}
GPU_STEP_TARGET = 4.0
TOLERANCE = 1e-4
"""Maximum relative difference between the losses of both in float32."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """Model with its optimiser, and the settings of a step."""

    model: ScaleAlibi
    optimizer: torch.optim.Optimizer
    bf16: bool
    clip: bool

    def step(self, batch: MaskedBatch) -> Tensor:
        """Do a step of the training loop; give its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = add_gradients(LossStep(self.model), batch, num_parts=1, bf16=self.bf16)
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return losses["loss"]

    @torch.no_grad()
    def forward(self, batch: MaskedBatch) -> Tensor:
        """Compute the loss alone."""
        return batch_losses(self.model, batch, bf16=self.bf16)["loss"]


def ways_of(load: Workload, device: torch.device) -> dict[str, Way]:
    """Set up the original's recipe, Salibi's step in float32, and in bf16."""
    original = load.model(Recipe).to(device)
    ways = {
        "original's recipe": Way(
            model=original,
            optimizer=torch.optim.AdamW(original.parameters(), lr=1e-5),
            bf16=False,
            clip=False,
        )
    }
    for name, bf16 in {"ours, float32": False, "ours, bf16": True}.items():
        model = load.model().to(device)
        optimizer = optim.adamw(model, weight_decay=0.05)
        optim.set_learning_rate(optimizer, 1e-5)
        ways[name] = Way(model=model, optimizer=optimizer, bf16=bf16, clip=True)
    return ways


def waited(work: Callable[[], Tensor]) -> Callable[[], float]:
    """Wrap work so that it waits for the GPU, which runs asynchronously."""
    return lambda: work().item()


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Give the peak bytes of the tensors that ``work`` creates."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    live = most = 0
    for _, change in changes:
        live += change
        most = max(most, live)
    return most


def peak_flops(dtype: torch.dtype, device: torch.device, edge: int) -> float:
    """Measure the operations per second of a large matrix product, the limit of a step."""
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(time.perf_counter() - started)
    return 2 * edge**3 / min(seconds)


def counted(way: Way, batch: MaskedBatch) -> int:
    """Count the floating-point operations of a step's matrix products."""
    with FlopCounterMode(display=False) as counter:
        way.step(batch)
    return counter.get_total_flops()


def main() -> None:
    """Print seconds, ratios, memory, and the distance from the limit."""
    argument_parser = parser(__doc__)
    argument_parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = argument_parser.parse_args()
    device = torch.device(arguments.device)
    load, rounds, edge = by_form(
        arguments,
        full=(Workload(), 5, 8192 if device.type == "cuda" else 2048),
        quick=(Workload(depth=2), 1, 2048),
        smallest=(Workload(size="tiny", depth=2, batch_size=2, mask_ratio=0.75), 1, 256),
    )
    if device.type == "cpu":
        keep_freed_memory()
    batch = load.batch(device)
    ways = ways_of(load, device)
    first, *ours = ways
    before = {name: way.forward(batch).item() for name, way in ways.items()}
    if abs(before["ours, float32"] / before[first] - 1) > TOLERANCE:
        raise AssertionError(f"the ways compute different losses: {before}")
    flops = counted(ways[first], batch)
    seconds = {
        kind: medians(
            paired(
                {n: waited(lambda w=w, k=kind: getattr(w, k)(batch)) for n, w in ways.items()},
                rounds,
            )
        )
        for kind in ("step", "forward")
    }
    memory = {name: peak_bytes(lambda w=way: w.step(batch), device) for name, way in ways.items()}
    limits = {
        name: peak_flops(dtype, device, edge)
        for name, dtype in zip(ways, (torch.float32, torch.float32, torch.bfloat16), strict=True)
    }
    rows = [
        [
            name,
            f"{seconds['step'][name]:.3f}",
            f"{seconds['step'][first] / seconds['step'][name]:.2f}",
            f"{seconds['forward'][name]:.3f}",
            f"{seconds['forward'][first] / seconds['forward'][name]:.2f}",
            f"{memory[name] / 1e6:.0f}",
            f"{memory[name] / memory[first]:.2f}",
            f"{flops / seconds['step'][name] / limits[name]:.0%}",
        ]
        for name in ways
    ]
    step_target = GPU_STEP_TARGET if device.type == "cuda" else TARGETS["step"]
    rows.append(
        [
            "target",
            "",
            f"{step_target}",
            "",
            f"{TARGETS['forward']}",
            "",
            f"{TARGETS['memory']:.2f}",
            "",
        ]
    )
    head = [
        "way",
        "step, s",
        "times as fast",
        "forward, s",
        "times as fast",
        "memory, MB",
        "of the original's",
        "of the matmul peak",
    ]
    width = load.config().size.dim
    what = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    setting = (
        f"Width {width}, batch {load.batch_size}, {load.mask_ratio:.0%} masked; medians of {rounds}. "
        f"Matmul peak {limits[first] / 1e9:.0f} GFLOP/s in float32, "
        f"{limits[ours[-1]] / 1e9:.0f} in bf16; a step's products are {flops / 1e9:.0f} GFLOP."
    )
    # A backward pass has two matrix products for each one of the forward pass.
    least_s = {"step": flops / limits[ours[-1]], "forward": flops / 3 / limits[ours[-1]]}
    most = {kind: seconds[kind][first] / least for kind, least in least_s.items()}
    meaning = (
        f"At the bf16 matmul peak, and with nothing but products to do, the step would be "
        f"{most['step']:.1f} times as fast as the original's, the forward pass {most['forward']:.1f} times."
    )
    lines = [f"{describe('torch')}; {what}", setting, *table(head, rows), meaning]
    report(arguments.report, "The training step", lines)


if __name__ == "__main__":
    main()
