"""Random masks: the patches of each modality that are removed. Pure functions of seeds."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from salibi_data.store.errors import UsageError


class Mask(NamedTuple):
    """Patch indices (row-major) of one modality in random order; each patch is in one of the two."""

    kept: Int64[Tensor, "batch kept"]
    """Patches the encoder sees."""
    removed: Int64[Tensor, "batch removed"]
    """Patches the decoder must predict."""

    def to(self, device: torch.device) -> "Mask":
        """Copy this mask to a device."""
        return Mask(self.kept.to(device), self.removed.to(device))


def num_removed(num_tokens: int, mask_ratio: float) -> int:
    """Count the patches that are removed from ``num_tokens``.

    Args:
        num_tokens: number of patches.
        mask_ratio: share of patches REMOVED, not kept.

    Raises:
        UsageError: no patch would be kept, or none removed.
    """
    count = round(num_tokens * mask_ratio) if math.isfinite(mask_ratio) else 0
    if not 0 < count < num_tokens:
        raise UsageError(
            f"mask_ratio {mask_ratio} removes {count} of {num_tokens} patches; give the share to "
            "remove, between 0 and 1, so that some are kept and some predicted."
        )
    return count


def random_masks(
    num_tokens: Mapping[str, int],
    mask_ratio: float,
    seeds: Sequence[int],
    *,
    hidden: Collection[str] = (),
) -> dict[str, Mask]:
    """Draw independent masks for each sample and modality.

    A sample's masks depend on its own seed only: they are the same in any batch, for any number
    of processes, and on any device.

    Args:
        num_tokens: number of patches per modality; the order of the entries is part of the draw.
        mask_ratio: share of patches REMOVED, 0.75 in MAE (He et al. 2022) and CROMA (Fuller et
            al. 2023).
        seeds: one seed per sample.
        hidden: modalities of which all patches are removed.

    Returns:
        Masks of all samples, per modality.

    Raises:
        UsageError: ``mask_ratio`` keeps, or removes, nothing.
    """
    generator = torch.Generator()
    orders: dict[str, list[Tensor]] = {name: [] for name in num_tokens}
    for seed in seeds:
        generator.manual_seed(seed)
        for name, count in num_tokens.items():
            orders[name].append(torch.randperm(count, generator=generator))
    counts = {
        name: count if name in hidden else num_removed(count, mask_ratio)
        for name, count in num_tokens.items()
    }
    return {name: _split(torch.stack(order), counts[name]) for name, order in orders.items()}


def hidden_modalities(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Draw the modalities of which a batch hides all patches; at least one is always seen.

    Args:
        names: names of the batch's modalities.
        share: probability with which each is hidden.
        seed: seed of the batch, the same in all processes.
    """
    if not share:
        return frozenset()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(names), generator=generator)
    # The modality with the largest number stays visible, where all would be hidden.
    drawn[drawn.argmax()] = 1.0
    return frozenset(
        name for name, value in zip(names, drawn.tolist(), strict=True) if value < share
    )


def _split(order: Tensor, num_removed: int) -> Mask:
    return Mask(kept=order[:, num_removed:], removed=order[:, :num_removed])
