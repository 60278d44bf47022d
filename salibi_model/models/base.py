"""Interface of every architecture: a loss for training, and embeddings for use."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.config import ModelConfig
from salibi_model.models.stored_images import (
    as_tensor,
    check_finite,
    check_stored,
    images_to_stored,
)
from salibi_model.models.units import highest_value
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.backends import BACKENDS
from salibi_model.nn.layers import Attention
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid

GsdRatio = float | Float[Tensor, " batch"]
"""Ground size of a pixel over that of a base-zoom pixel: one number, or one per sample."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveVectors:
    """Vectors of one modality that the contrastive loss compares with those of others."""

    vectors: Float[Tensor, "batch dim"]
    """Unit vectors, one per sample."""
    observed: Bool[Tensor, " batch"]
    """True where the encoder saw anything but nodata; other samples are not compared."""


class PretrainModel(nn.Module, ABC):
    """Base of the architectures; a subclass encodes whole images and defines the loss.

    A model whose loss compares samples also gives that loss in two stages, for a batch that is
    taken in parts: :meth:`separate_losses` of each part, then :meth:`contrastive_losses` of the
    vectors of all parts.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def __repr__(self) -> str:
        modalities = ", ".join(
            f"{modality.name} {len(modality.bands)} x {modality.size_px} px"
            for modality in self.config.modalities
        )
        size = self.config.size
        return (
            f"{type(self).__name__}({modalities}; patch {self.config.patch_px} px, dim {size.dim}, "
            f"depth {size.depth}; {sum(p.numel() for p in self.parameters()):,} parameters)"
        )

    @abstractmethod
    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the pre-training loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units (0..255, 0 = nodata). A batch
                may lack modalities.
            masks: kept and removed patches per modality of the batch.
            gsd_scale: factor on the modalities' GSD ratios per sample, other than 1 for images
                that were cropped and enlarged; ``None``: 1.

        Returns:
            ``loss``, the sum to minimise, and its parts by name.
        """

    def separate_losses(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, ""]], dict[str, ContrastiveVectors]]:
        """Compute the losses that do not compare samples, and the vectors of the one that does.

        Arguments are those of :meth:`forward`.

        Returns:
            ``loss`` and its parts without the contrastive loss; and the vectors to compare, per
            modality, empty for a model without a contrastive loss.
        """
        return self(images, masks, gsd_scale), {}

    def contrastive_vectors(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, ContrastiveVectors]:
        """Compute only the vectors of :meth:`separate_losses`, without reconstruction."""
        del images, masks, gsd_scale
        return {}

    def contrastive_losses(
        self, vectors: Mapping[str, ContrastiveVectors]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compare this process's vectors with those of all processes, which pass equally many.

        Returns:
            The parts of the contrastive loss by name; their sum is to be minimised.
        """
        del vectors
        return {}

    def extra_metrics(self) -> dict[str, Float[Tensor, ""]]:
        """Give values for ``metrics.csv`` besides the losses, by column."""
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
        images: Shaped[Tensor | np.ndarray, "batch bands height width"],
        modality: str,
        gsd_ratio: GsdRatio | None = None,
        *,
        gsd_m: GsdRatio | None = None,
        units: str | None = None,
        check_values: bool = True,
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch dim"]]:
        """Encode whole images of one modality, of any size and ground sample distance (GSD).

        Args:
            images: values as stored (1..255, 0 = nodata) or in ``units``; they are normalised here
                with the checkpoint's statistics. Edges are multiples of the patch (16 px). A NumPy
                array is copied to the model's device.
            modality: name of the array: ``sar``, ``lores``, ``hires_4x``.
            gsd_ratio: ground size of a pixel over that of a base-zoom pixel, one number or one
                per image. ``None`` takes the modality's own, as in training: 1 for ``sar`` and
                ``lores``, 0.5 for ``hires_4x``.
            gsd_m: metres on the ground per pixel, in place of ``gsd_ratio``, one number or one
                per image; of a georeferenced raster, see :func:`salibi_model.data.pixel_size.pixel_m`.
            units: units of the values, converted by the modality's scale and offset as a raster's
                are in :func:`salibi_model.embed`; NaN becomes nodata. ``stored``; ``uint8`` for
                pixels for display, 0..255; ``reflectance``, 0..1; ``dn``, Sentinel-2's numbers
                without their offset, 10,000 times the reflectance; ``db`` or ``power`` of radar.
                ``None``: as stored, NaN refused.
            check_values: whether to refuse values that cannot be in these units, by a sample of
                pixels: 0..1, z-scores, dB or numbers beyond 255 given as stored. Nothing is checked
                while PyTorch compiles or exports the call.

        Returns:
            Tokens (B, N, D), row-major, and the embedding (B, D). It describes an image; to
            compare modalities, :meth:`project` it first.

        Raises:
            UsageError: no such modality, images or distances that do not fit it, or values that
                are not in the units.

        Example:
            >>> model = salibi_model.load(run_path)
            >>> decibel = torch.full((1, 2, 64, 64), -12.0)
            >>> tokens, embedding = model.encode(decibel, "sar", units="db")
            >>> model.encode(decibel, "sar")
            Traceback (most recent call last):
            ...
            salibi_data.store.errors.UsageError: images of 'sar' are float32 from -12 to -12; ...
        """
        spec = self.config[modality]
        highest = highest_value(self.config, spec)
        images = self._check_shape(images, spec)
        if units is not None:
            images = images_to_stored(images, spec, units, highest=highest, check=check_values)
        if not _is_traced():
            check_finite(images, spec)
            if check_values:
                check_stored(images, spec, highest)
        if images.is_floating_point():
            # Integers stay as they are: normalising converts them, and nodata is compared exactly.
            images = images.to(next(self.parameters()).dtype)
        if gsd_m is not None:
            if gsd_ratio is not None:
                raise UsageError("give gsd_ratio or gsd_m, not both.")
            gsd_ratio = self.config.ground_ratio(_read_positive("gsd_m", gsd_m, len(images)))
        ratio = spec.gsd_ratio if gsd_ratio is None else gsd_ratio
        ratio = _read_positive("gsd_ratio", ratio, len(images))
        return self._encode_whole(images, modality, ratio)

    def project(
        self, embedding: Float[Tensor, "batch dim"], modality: str
    ) -> Float[Tensor, "batch dim"]:
        """Map embeddings to unit vectors that can be compared across modalities.

        Retrieval uses this: the contrastive loss aligns these vectors, and nothing else, between
        modalities. A model without that loss gives the embedding's direction.
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

    def centres(
        self, grid: tuple[int, int], gsd_ratio: GsdRatio, device: torch.device
    ) -> Float[Tensor, "#batch tokens 2"]:
        """Compute the centres of an image's patches, in base-zoom patches on the ground.

        Without ``gsd_scaling`` distances are in the image's own patches: the ratio counts as 1.
        """
        ratio = gsd_ratio if self.config.gsd_scaling else 1.0
        return patch_centres(grid, ratio, device=device).reshape(-1, grid[0] * grid[1], 2)

    def _scaled_gsd_ratio(self, modality: str, gsd_scale: Tensor | None) -> GsdRatio:
        """Give a modality's own GSD ratio, or one per sample where images were cropped."""
        ratio = self.config[modality].gsd_ratio
        return ratio if gsd_scale is None else ratio * gsd_scale

    def _check_shape(self, images: object, spec: Modality) -> Tensor:
        """Refuse images that do not fit the modality; give arrays as tensors."""
        tensor = as_tensor(images, next(self.parameters()).device)
        fits = tensor is not None and tensor.ndim == 4 and tensor.numel() > 0  # noqa: PLR2004
        if tensor is None or not fits or tensor.shape[1] != len(spec.bands):
            actual = type(images).__name__ if tensor is None else tuple(tensor.shape)
            raise UsageError(
                f"modality {spec.name!r} has the bands {', '.join(spec.bands)}: expected a tensor "
                f"(batch, {len(spec.bands)}, height, width), got {actual}."
            )
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise UsageError(f"images are {tensor.dtype}; expected numbers 0..255 as stored.")
        return tensor

    @abstractmethod
    def _encode_whole(
        self, images: Tensor, modality: str, gsd_ratio: GsdRatio
    ) -> tuple[Tensor, Tensor]:
        """Compute tokens (B, N, D) and embedding (B, D) of checked images."""


def _is_traced() -> bool:
    """Whether PyTorch compiles, exports or traces the call: a branch on values would break its graph."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _read_positive(name: str, value: Any, batch: int) -> GsdRatio:
    """Read a ratio or distance: one finite number above 0, or one for each image."""
    try:
        values = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        # NaN fails the check below, so that all bad values get one message.
        values = torch.tensor(torch.nan)
    if values.shape not in ((), (batch,)) or not bool(((values > 0) & values.isfinite()).all()):
        raise UsageError(
            f"{name} is {value!r}; expected a finite number above 0, or one for each of the {batch} "
            "images."
        )
    return values if values.ndim > 0 else float(value)


def zero_loss(module: nn.Module) -> Float[Tensor, ""]:
    """Compute zero as a function of all the module's parameters.

    Added to a loss, it gives gradients of zero to parts that a batch did not use.
    DistributedDataParallel waits for a gradient of every parameter; see ``find_unused_parameters``,
    https://pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
    """
    return torch.stack([0.0 * parameter.sum() for parameter in module.parameters()]).sum()
