"""Run by ``torchrun`` from test_training: one forward and backward pass, and a short training.

Arguments: the store, the folder for results.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from nano import SIZE, nano_images, nano_masks, nano_model
from torch.nn.parallel import DistributedDataParallel

from salibi_model import config as model_config
from salibi_model import distributed
from salibi_model.settings import TrainingConfig
from salibi_model.trainer import train


def gradients(out: Path) -> None:
    """Write the gradients of four samples, shared among the ranks."""
    rank, local = distributed.rank(), 4 // distributed.world_size()
    model, images = nano_model(), nano_images(batch=4)
    masks = nano_masks(model, images)
    mine = slice(rank * local, (rank + 1) * local)
    wrapped = DistributedDataParallel(model) if distributed.world_size() > 1 else model
    losses = wrapped(
        {name: image[mine] for name, image in images.items()},
        {name: type(m)(m.kept[mine], m.removed[mine]) for name, m in masks.items()},
    )
    losses["loss"].backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, out / "gradients.pt")


def main() -> None:
    """Do both."""
    store, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    model_config.SIZES["tiny"] = SIZE
    config = TrainingConfig(stores=(store,), steps=2, batch_size=4, seed=1)
    with distributed.process_group(torch.device("cpu")):
        gradients(out)
        train(config, out=out / "run", device="cpu")


if __name__ == "__main__":
    main()
