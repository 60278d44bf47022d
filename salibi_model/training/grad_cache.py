"""The gradient of one batch: taken whole, or in parts that are one contrastive batch all the same."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from salibi_model.data.loader import Batch
from salibi_model.models.base import PretrainModel, Rows
from salibi_model.nn.masking import Mask, hidden_modalities, random_masks


@dataclass(frozen=True, kw_only=True)
class MaskedBatch:
    """One rank's part of a batch on its device, and what of it is hidden."""

    images: dict[str, UInt8[Tensor, "batch _ _ _"]]
    masks: dict[str, Mask]
    gsd_scale: Float[Tensor, " batch"] | None

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(iter(self.images.values())).device

    def parts(self, count: int) -> Iterator["MaskedBatch"]:
        """Divide it into ``count`` equal runs of samples."""
        length = len(next(iter(self.images.values()))) // count
        for number in range(count):
            mine = slice(number * length, (number + 1) * length)
            yield MaskedBatch(
                images={name: image[mine] for name, image in self.images.items()},
                masks={
                    n: Mask(mask.kept[mine], mask.removed[mine]) for n, mask in self.masks.items()
                },
                gsd_scale=None if self.gsd_scale is None else self.gsd_scale[mine],
            )


def mask_batch(
    model: PretrainModel,
    batch: Batch,
    *,
    mask_ratio: float,
    hide_share: float,
    device: torch.device,
) -> MaskedBatch:
    """Draw a batch's masks from its samples' seeds, and move it to the device."""
    num_tokens = model.num_tokens(batch.images)
    hidden = hidden_modalities(list(num_tokens), hide_share, batch.seed)
    masks = random_masks(num_tokens, mask_ratio, batch.seeds, hidden=hidden)
    scale = batch.gsd_scale
    return MaskedBatch(
        images={n: image.to(device, non_blocking=True) for n, image in batch.images.items()},
        masks={name: mask.to(device) for name, mask in masks.items()},
        gsd_scale=None if scale is None else scale.to(device),
    )


def losses_of(wrapped: nn.Module, batch: MaskedBatch, *, bf16: bool) -> dict[str, Tensor]:
    """Give the loss of a batch and its parts, by ``wrapped``, which may be DDP's."""
    with autocast(batch.device, bf16=bf16):
        losses: dict[str, Tensor] = wrapped(batch.images, batch.masks, batch.gsd_scale)
    return losses


def add_gradients(
    wrapped: nn.Module, model: PretrainModel, batch: MaskedBatch, *, num_parts: int, bf16: bool
) -> dict[str, Tensor]:
    """Add the gradient of a batch's loss to the weights'; give the loss and its parts, detached.

    In parts, the contrastive loss still compares all samples of all parts and processes: first
    the vectors that it compares are made without gradients, part by part; then the loss of all
    gives their gradients; then each part is encoded again and passes its vectors' gradients on.
    Memory holds one part's activations, at the price of encoding twice. Reconstruction is a mean
    over samples and needs none of that.

    Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    2021 (arXiv 2101.06983), section 3.2.
    """
    if num_parts == 1:
        losses = losses_of(wrapped, batch, bf16=bf16)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}
    parts = list(batch.parts(num_parts))
    contrastive, gradients = _contrast_parts(model, parts, bf16=bf16)
    total: dict[str, Tensor] = {}
    for number, (part, row_gradients) in enumerate(zip(parts, gradients, strict=True)):
        with _synchronised(wrapped, last=number == num_parts - 1):
            with autocast(part.device, bf16=bf16):
                losses = wrapped(part.images, part.masks, part.gsd_scale, row_gradients)
            surrogate = losses.pop("surrogate", 0.0)
            (losses["loss"] / num_parts + surrogate).backward()
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() / num_parts
    if contrastive:
        total["contrastive"] = torch.stack(list(contrastive.values())).sum()
        total |= contrastive
        total["loss"] = total["loss"] + total["contrastive"]
    return total


def _contrast_parts(
    model: PretrainModel, parts: list[MaskedBatch], *, bf16: bool
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Give the contrastive losses of all parts together, and each part's vectors' gradients.

    The temperature's gradient is added to it here.
    """
    with torch.no_grad(), autocast(parts[0].device, bf16=bf16):
        found = [model.contrasted_rows(p.images, p.masks, p.gsd_scale) for p in parts]
    rows = {
        name: Rows(
            vectors=torch.cat([part[name].vectors for part in found]).requires_grad_(),
            observed=torch.cat([part[name].observed for part in found]),
        )
        for name in found[0]
    }
    losses = model.contrast(rows)
    if not losses:
        return {}, [{} for _ in parts]
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    chunks = {
        name: cast("Tensor", own.vectors.grad).chunk(len(parts)) for name, own in rows.items()
    }
    gradients = [
        {name: each[number] for name, each in chunks.items()} for number in range(len(parts))
    ]
    return {name: value.detach() for name, value in losses.items()}, gradients


def _synchronised(wrapped: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Let processes average their gradients once, with the last part."""
    if last or not isinstance(wrapped, DistributedDataParallel):
        return nullcontext()
    return wrapped.no_sync()


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Compute in bfloat16 where that is safe, or leave everything as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
