"""Calls that work alike in one process and in a group of processes.

``torchrun`` starts a group, or Slurm's ``srun`` with one task per device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import first_line

MAX_WAIT: Final = timedelta(hours=1)
"""Longest wait of processes for the first one, which alone writes checkpoints and probes."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Place of this process among those that were started with it."""

    rank: int = 0
    """Index among all processes."""
    local_rank: int = 0
    """Index among the processes on this machine."""
    world_size: int = 1
    """Number of processes."""


def read_launch() -> Launch:
    """Read this process's rank and the number of processes from the environment.

    No process group is needed yet. ``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK``, which torchrun
    sets, come first. Otherwise the tasks of one ``srun`` form a group where ``MASTER_ADDR`` and
    ``MASTER_PORT`` are set. Their number is ``SLURM_STEP_NUM_TASKS``: unlike ``SLURM_NTASKS``, a
    batch script and ``salloc``'s shell do not have it.
    https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES

    Raises:
        UsageError: srun started several tasks without an address for them to meet at.
    """
    if "WORLD_SIZE" in os.environ:
        return Launch(
            rank=_read_integer("RANK"),
            local_rank=_read_integer("LOCAL_RANK"),
            world_size=_read_integer("WORLD_SIZE", default=1),
        )
    num_tasks = _num_step_tasks()
    if num_tasks == 1:
        return Launch()
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UsageError(
            f"srun started {num_tasks} tasks. To train one model with them, set MASTER_ADDR and "
            "MASTER_PORT, as docs/examples/train.sbatch does; to train one with each, set "
            "WORLD_SIZE=1."
        )
    return Launch(
        rank=_read_integer("SLURM_PROCID"),
        local_rank=_read_integer("SLURM_LOCALID"),
        world_size=num_tasks,
    )


def _num_step_tasks() -> int:
    """Count the tasks that ``srun`` started together with this one."""
    return _read_integer("SLURM_STEP_NUM_TASKS", default=1)


def _read_integer(variable: str, *, default: int = 0) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UsageError(f"{variable} is {text!r} in the environment; expected a whole number.")
    return int(text)


def rank() -> int:
    """Give the index of this process; 0 when there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Give the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def choose_device(name: str = "auto") -> torch.device:
    """Find a device by name: ``cuda`` is this process's own GPU, ``auto`` that or else the CPU.

    Raises:
        UsageError: no such device.
    """
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{_gpu_index()}"
    elif name == "auto":
        name = "cpu"
    try:
        device = torch.device(name)
        # torch.device accepts GPUs that do not exist; only an allocation fails.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UsageError(
            f"device {name!r} cannot be used ({first_line(error)}); "
            "take `auto`, `cpu`, or a GPU that is there."
        ) from error
    return device


def _gpu_index() -> int:
    """Find the index of this process's own GPU among those that it sees."""
    if "LOCAL_RANK" in os.environ or _num_step_tasks() == 1:
        return _read_integer("LOCAL_RANK")
    # With --gpus-per-task, Slurm shows each task its own GPU alone.
    return _read_integer("SLURM_LOCALID") if torch.cuda.device_count() > 1 else 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Form a group with the processes that were started with this one; no group for one process.

    GPUs communicate through NCCL, CPUs through gloo.

    Raises:
        UsageError: as :func:`read_launch`.
    """
    if dist.is_initialized() or (launch := read_launch()).world_size == 1:
        yield
        return
    if device.type == "cuda":
        # Collectives without a tensor, such as a barrier, use the current device, otherwise GPU 0.
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=MAX_WAIT,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All ranks' rows; the backward pass sums the gradients that all ranks have for a rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        # all_gather needs tensors of equal shape on all ranks, and contiguous ones.
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous()
        dist.all_reduce(summed)
        first = rank() * ctx.num_rows
        return summed[first : first + ctx.num_rows]


def gather_rows(rows: Float[Tensor, "local ..."]) -> Float[Tensor, "total ..."]:
    """Concatenate all ranks' rows in rank order, with gradients; one process gets ``rows`` itself.

    Every rank passes the same number of rows. ``torch.distributed.all_gather`` would return
    constants: no gradient would flow through the negatives of other ranks.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def mean_over_ranks(values: Float[Tensor, " values"]) -> Float[Tensor, " values"]:
    """Average ``values`` over all ranks, without gradient."""
    values = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(values)
    return values / world_size()


def wait_for_all() -> None:
    """Wait until all ranks have called this."""
    if world_size() > 1:
        dist.barrier()
