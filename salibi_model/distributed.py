"""One process or many: the same calls work with and without a process group."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

from salibi_model.errors import UsageError


def rank() -> int:
    """Index of this process, 0 when there is one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def choose_device(name: str = "auto") -> torch.device:
    """Give the device called ``name``; ``auto`` takes this process's GPU where there is one.

    Raises:
        UsageError: no such device.
    """
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UsageError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); "
            "take `auto`, `cpu`, or a GPU that is there."
        ) from error
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started; nothing to do when there is only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All ranks' rows; each rank gets back the gradients that all ranks have for its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
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
    """Concatenate all ranks' rows, in rank order, with gradient; ``rows`` itself when alone.

    Every rank passes the same number of rows. ``torch.distributed.all_gather`` alone returns
    constants: the negatives of other ranks would teach nothing.
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
    """Return when all ranks have come here."""
    if world_size() > 1:
        dist.barrier()
