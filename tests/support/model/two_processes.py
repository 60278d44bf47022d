"""Run by ``torchrun`` from test_trainer: one forward and backward pass, and a short training.

Arguments: the store, the folder for results.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from salibi_model import distributed
from salibi_model.models import config as model_config
from salibi_model.models.config import TRI_ENCODER, ModelConfig
from salibi_model.models.registry import build_model
from salibi_model.nn.masking import random_masks
from salibi_model.training.config import TrainingConfig
from salibi_model.training.grad_cache import LossStep, MaskedBatch, add_gradients
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.stores import describe

CASES = {
    "plain": ((), {}),
    "one hidden": (("lores",), {}),
    "two hidden": (("sar", "lores"), {}),
    "contrastive": ((), {"objectives": ("contrastive",)}),
    "base target": ((), {"fine_target": "base", "fusion": "separate"}),
    "scale-mae": ((), {"architecture": "scale-mae", "objectives": ("reconstruction",)}),
    "in parts": ((), {}, 2),
    "one hidden, in parts": (("lores",), {}, 2),
    # With mistake 5 its loss is a mean over the patches of a rank: it depends on their number.
    "original": ((), {"architecture": "original", "mistakes": (1, 2, 3, 4, 6)}),
}
"""Hidden modalities, choices of the configuration, and parts of each rank's batch."""


def gradients(
    hidden: tuple[str, ...], choices: dict[str, Any], num_parts: int = 1
) -> dict[str, torch.Tensor]:
    """Gradients of four samples, one of them without an observation, shared among the ranks."""
    rank, local = distributed.rank(), 4 // distributed.world_size()
    names = ("lores", "hires_4x") if choices.get("architecture") == "scale-mae" else TRI_ENCODER
    torch.manual_seed(0)
    model = build_model(ModelConfig(size=SIZE, modalities=tuple(map(describe, names)), **choices))
    images = nano_images(batch=4, names=names)
    if choices.get("architecture") != "original":  # which has no remedy for it
        images["lores"][1] = 0
    masks = random_masks(model.num_tokens(images), 0.75, range(4), hidden=hidden)
    own_samples = slice(rank * local, (rank + 1) * local)
    step = LossStep(model)
    wrapped = DistributedDataParallel(step) if distributed.world_size() > 1 else step
    batch = MaskedBatch(
        images={name: image[own_samples] for name, image in images.items()},
        masks={
            name: type(m)(m.kept[own_samples], m.removed[own_samples]) for name, m in masks.items()
        },
        gsd_scale=torch.tensor([0.5, 1.0, 2.0, 1.0])[own_samples] if num_parts > 1 else None,
    )
    # A step before, for what the gradients' synchronisation may keep from one to the next.
    for _ in range(num_parts):
        model.zero_grad(set_to_none=True)
        add_gradients(wrapped, batch, num_parts=num_parts, bf16=False)
    return {name: p.grad for name, p in model.named_parameters()}


def work(store: str, out: Path) -> None:
    """Write the gradients of all cases and a run of two steps; each rank calls this."""
    out.mkdir(parents=True, exist_ok=True)
    config = TrainingConfig(stores=(store,), steps=2, batch_size=4, seed=1, checkpoint_every=2)
    with distributed.process_group(torch.device("cpu")):
        gradients_by_case = {case: gradients(*choices) for case, choices in CASES.items()}
        if distributed.rank() == 0:
            torch.save(gradients_by_case, out / "gradients.pt")
        train(config, out=out / "run", device="cpu")


if __name__ == "__main__":
    model_config.SIZES["tiny"] = SIZE
    work(sys.argv[1], Path(sys.argv[2]))
