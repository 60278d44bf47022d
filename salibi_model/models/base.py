"""What every architecture offers: a loss to be trained on, and embeddings to be used."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.config import ModelConfig
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.backends import BACKENDS
from salibi_model.nn.layers import Attention
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid

Ratio = float | Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the contrastive loss compares, of one modality."""

    vectors: Float[Tensor, "batch dim"]
    """On the unit sphere, one per sample."""
    observed: Bool[Tensor, " batch"]
    """Of which samples the encoder saw anything but nodata; the others are not compared."""


class PretrainModel(nn.Module, ABC):
    """Base of the architectures; a subclass encodes whole images and defines the loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
        row_gradients: Mapping[str, Float[Tensor, "batch dim"]] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Give the pre-training loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units (0..255, 0 = nodata). A batch
                may lack modalities.
            masks: per modality of the batch, the patches kept and removed.
            gsd_scale: per sample, the ground size of its pixels over what the modalities' GSD
                ratios say, as of images that were cropped and enlarged; ``None``: 1.
            row_gradients: where these images are part of a larger contrastive batch, the gradient
                of its loss by :meth:`contrasted_rows`. The contrastive loss is then left out, and
                ``surrogate`` stands for it: its gradient by the weights is what these images add.

        Returns:
            ``loss``, the sum to minimise, and its parts by name.
        """

    def contrasted_rows(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, Rows]:
        """Give what the contrastive loss compares, per modality; nothing where there is none."""
        del images, masks, gsd_scale
        return {}

    def contrast(self, rows: Mapping[str, Rows]) -> dict[str, Float[Tensor, ""]]:
        """Give the parts of the contrastive loss, by name, of this process's ``rows``.

        All processes' rows take part in it; each gives as many.
        """
        del rows
        return {}

    def monitors(self) -> dict[str, Float[Tensor, ""]]:
        """Give what is worth a column of ``metrics.csv`` besides the losses."""
        return {}

    def num_tokens(self, images: Mapping[str, Tensor]) -> dict[str, int]:
        """Count the patches that are masked, per modality of the batch, in the model's order."""
        grids = {
            name: patch_grid(images[name], self.config.patch_px)
            for name in self.config.names
            if name in images
        }
        return {name: rows * cols for name, (rows, cols) in grids.items()}

    def encode(
        self,
        images: Shaped[Tensor, "batch bands height width"],
        modality: str,
        gsd_ratio: Ratio | None = None,
        *,
        gsd_m: Ratio | None = None,
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch dim"]]:
        """Encode whole images of one modality, of any size and ground sample distance.

        Args:
            images: values in the store's units (0..255, 0 = nodata); they are normalised here
                with the checkpoint's statistics. Edges are multiples of the patch (16 px).
            modality: name of the array: ``sar``, ``lores``, ``hires_4x``.
            gsd_ratio: ground size of a pixel over that of a base-zoom pixel, one number or one
                per image. ``None`` takes the modality's own, as in training: 1 for ``sar`` and
                ``lores``, 0.5 for ``hires_4x``.
            gsd_m: metres on the ground per pixel, in place of ``gsd_ratio``, one number or one
                per image; of a georeferenced raster, see :func:`salibi_model.data.pixel_size.pixel_m`.

        Returns:
            Tokens (B, N, D), row-major, and the embedding (B, D). It describes an image; to
            compare modalities, :meth:`project` it first.

        Raises:
            UsageError: no such modality, or images or distances that do not fit it.
        """
        spec = self.config[modality]
        images = self._checked_images(images, spec)
        if gsd_m is not None:
            if gsd_ratio is not None:
                raise UsageError("give gsd_ratio or gsd_m, not both.")
            gsd_ratio = self.config.ground_ratio(_positive("gsd_m", gsd_m, len(images)))
        ratio = spec.gsd_ratio if gsd_ratio is None else gsd_ratio
        ratio = _positive("gsd_ratio", ratio, len(images))
        return self._encode_whole(images, modality, ratio)

    def project(
        self, embedding: Float[Tensor, "batch dim"], modality: str
    ) -> Float[Tensor, "batch dim"]:
        """Bring an embedding to the unit sphere where modalities are comparable.

        Retrieval uses this: the contrastive loss aligns it, and only it, between modalities. A
        model without that loss gives the embedding's direction.
        """
        self.config[modality]
        return F.normalize(embedding.float(), dim=-1)

    def use_attention(self, backend: str) -> None:
        """Choose the backend of all attention layers; see :mod:`salibi_model.nn.attention`.

        Raises:
            UsageError: there is no such backend.
        """
        if backend not in BACKENDS:
            raise UsageError(
                f"no attention backend {backend!r}; take one of {', '.join(BACKENDS)}."
            )
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = backend

    def _scaled_ratio(self, modality: str, gsd_scale: Tensor | None) -> Ratio:
        """A modality's own GSD ratio, or one per sample where images were cropped and enlarged."""
        ratio = self.config[modality].gsd_ratio
        return ratio if gsd_scale is None else ratio * gsd_scale

    def centres(
        self, grid: tuple[int, int], gsd_ratio: Ratio, device: torch.device
    ) -> Float[Tensor, "#batch tokens 2"]:
        """Place an image's patches in the ground frame, or in its own where GSDs are ignored."""
        ratio = gsd_ratio if self.config.gsd_scaling else 1.0
        return patch_centres(grid, ratio, device=device).reshape(-1, grid[0] * grid[1], 2)

    def _checked_images(self, images: Tensor, spec: Modality) -> Tensor:
        """Images that fit the modality, of a type that the weights can be multiplied with."""
        fits = isinstance(images, Tensor) and images.ndim == 4 and images.numel()  # noqa: PLR2004
        if not fits or images.shape[1] != len(spec.bands):
            came = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise UsageError(
                f"modality {spec.name!r} has the bands {', '.join(spec.bands)}: expected a tensor "
                f"(batch, {len(spec.bands)}, height, width), got {came}."
            )
        if images.is_complex() or images.dtype == torch.bool:
            raise UsageError(f"images are {images.dtype}; expected numbers 0..255 as stored.")
        if not images.is_floating_point():
            return images
        if not bool(images.isfinite().all()):
            raise UsageError(
                f"the images have values that are not finite; nodata is {spec.nodata} here."
            )
        return images.to(next(self.parameters()).dtype)

    @abstractmethod
    def _encode_whole(
        self, images: Tensor, modality: str, gsd_ratio: Ratio
    ) -> tuple[Tensor, Tensor]:
        """Give tokens (B, N, D) and embedding (B, D) of checked images."""


def _positive(name: str, value: Any, batch: int) -> Ratio:
    """Read a ratio or distance: one finite number above 0, or one for each image."""
    try:
        values = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        values = torch.tensor(torch.nan)
    each = values.ndim > 0
    if values.shape not in ((), (batch,)) or not bool(((values > 0) & values.isfinite()).all()):
        raise UsageError(
            f"{name} is {value!r}; expected a finite number above 0, or one for each of the {batch} "
            "images."
        )
    return values if each else float(value)


def untouched(module: nn.Module) -> Float[Tensor, ""]:
    """Give zero, as a function of all the module's parameters.

    Added to a loss, it gives gradients of zero to parts that a batch did not use, so that the
    processes of a group agree on which gradients there are.
    """
    return torch.stack([0.0 * parameter.sum() for parameter in module.parameters()]).sum()
