"""Gradients of one batch, computed at once or in parts that form one contrastive batch.

A batch in parts keeps one part's activations in memory, at the price of encoding twice. The
contrastive loss still compares all samples of all parts and processes: first the vectors that it
compares are computed without gradients, part by part; then the loss of all gives the gradients of
these vectors; then each part is encoded again and passes its vectors' gradients on to the weights.
Reconstruction is a mean over samples and needs no such exchange.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
2021 (arXiv 2101.06983), section 3.2.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from salibi_model.data.loader import Batch
from salibi_model.models.base import ContrastiveVectors, PretrainModel
from salibi_model.nn.masking import Mask, hidden_modalities, random_masks


@dataclass(frozen=True, kw_only=True)
class MaskedBatch:
    """One rank's share of a batch on its device, with the masks of its samples."""

    images: dict[str, UInt8[Tensor, "batch _ _ _"]]
    """Images per modality, in the store's units (0 = nodata)."""
    masks: dict[str, Mask]
    """Kept and removed patches per modality."""
    gsd_scale: Float[Tensor, " batch"] | None
    """Factor on the GSD ratio of each sample; ``None``: 1."""

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return next(iter(self.images.values())).device

    def parts(self, count: int) -> Iterator["MaskedBatch"]:
        """Divide it into ``count`` equal runs of samples."""
        length = len(next(iter(self.images.values()))) // count
        for number in range(count):
            samples = slice(number * length, (number + 1) * length)
            yield MaskedBatch(
                images={name: image[samples] for name, image in self.images.items()},
                masks={
                    name: Mask(mask.kept[samples], mask.removed[samples])
                    for name, mask in self.masks.items()
                },
                gsd_scale=None if self.gsd_scale is None else self.gsd_scale[samples],
            )


class LossStep(nn.Module):
    """Forward pass from a batch, or a part of one, to the losses whose gradient is taken.

    DistributedDataParallel wraps this module in place of the model: it synchronises what is
    computed in ``forward`` only, which has to serve whole batches and parts.
    """

    def __init__(self, model: PretrainModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        images: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        gsd_scale: Tensor | None = None,
        vector_gradients: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch, or of a part of one.

        Args:
            images: as for :meth:`PretrainModel.forward`.
            masks: likewise.
            gsd_scale: likewise.
            vector_gradients: for a part, the gradient of the whole batch's contrastive loss by
                the part's vectors, per modality (B, D); ``None`` for a whole batch.

        Returns:
            Losses of :meth:`PretrainModel.forward`. For a part those without the contrastive one,
            and ``surrogate``, where samples are compared: a function of the weights whose
            gradient is the part's share of the contrastive gradient.
        """
        if vector_gradients is None:
            whole: dict[str, Tensor] = self.model(images, masks, gsd_scale)
            return whole
        losses, vectors = self.model.separate_losses(images, masks, gsd_scale)
        if vector_gradients:
            # The contrastive loss depends on the encoders through the vectors alone, so the chain
            # rule needs their gradients only (Gao et al. 2021, section 3.2).
            products = [(own.vectors * vector_gradients[n]).sum() for n, own in vectors.items()]
            losses["surrogate"] = torch.stack(products).sum()
        return losses


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


def batch_losses(module: nn.Module, batch: MaskedBatch, *, bf16: bool) -> dict[str, Tensor]:
    """Compute the losses of a whole batch by a model, a :class:`LossStep`, or DDP around one."""
    with autocast(batch.device, bf16=bf16):
        losses: dict[str, Tensor] = module(batch.images, batch.masks, batch.gsd_scale)
    return losses


def add_gradients(
    step: LossStep | DistributedDataParallel, batch: MaskedBatch, *, num_parts: int, bf16: bool
) -> dict[str, Tensor]:
    """Add the gradient of a batch's loss to the weights' gradients.

    Args:
        step: the model's step, or DistributedDataParallel around it.
        batch: this rank's share of the batch.
        num_parts: parts that are computed one after the other; 1: at once.
        bf16: whether to compute in bfloat16 where that is safe.

    Returns:
        The loss and its parts, detached.
    """
    if num_parts == 1:
        losses = batch_losses(step, batch, bf16=bf16)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}
    model = cast("LossStep", getattr(step, "module", step)).model
    parts = list(batch.parts(num_parts))
    contrastive, gradients = _contrast_parts(model, parts, bf16=bf16)
    total: dict[str, Tensor] = {}
    for number, (part, vector_gradients) in enumerate(zip(parts, gradients, strict=True)):
        with _synchronised(step, last=number == num_parts - 1):
            with autocast(part.device, bf16=bf16):
                losses = step(part.images, part.masks, part.gsd_scale, vector_gradients)
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
    """Compute the contrastive losses of all parts together, and each part's vector gradients.

    The temperature gets its gradient here.
    """
    with torch.no_grad(), autocast(parts[0].device, bf16=bf16):
        by_part = [
            model.contrastive_vectors(part.images, part.masks, part.gsd_scale) for part in parts
        ]
    vectors = {
        name: ContrastiveVectors(
            vectors=torch.cat([part[name].vectors for part in by_part]).requires_grad_(),
            observed=torch.cat([part[name].observed for part in by_part]),
        )
        for name in by_part[0]
    }
    losses = model.contrastive_losses(vectors)
    if not losses:
        return {}, [{} for _ in parts]
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    chunks = {
        name: cast("Tensor", own.vectors.grad).chunk(len(parts)) for name, own in vectors.items()
    }
    gradients = [
        {name: own[number] for name, own in chunks.items()} for number in range(len(parts))
    ]
    return {name: value.detach() for name, value in losses.items()}, gradients


def _synchronised(step: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Average gradients over processes once per batch, with its last part."""
    if last or not isinstance(step, DistributedDataParallel):
        return nullcontext()
    return step.no_sync()


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Compute in bfloat16 where that is safe, or leave everything as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
