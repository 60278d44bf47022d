"""Scale-ALiBi: the tri-encoder, its configuration, and its pre-training loss.

Source: Kage & Andreadis 2024 (arXiv 2604.10347): CROMA (Fuller et al., NeurIPS 2023) with a third
encoder for high-resolution images and attention biases from ground distance. The loss is
``L_contrastive + L_reconstruction``, unweighted; each is a sum over pairs or modalities.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from salibi_data.schema import Modality
from salibi_model import distributed
from salibi_model.alibi import patch_centres
from salibi_model.decoder import Decoder
from salibi_model.encoders import Encoder, Head, JointEncoder
from salibi_model.errors import UsageError
from salibi_model.layers import initialise
from salibi_model.losses import info_nce, masked_mse, normalised_target
from salibi_model.masking import Mask
from salibi_model.patches import patch_grid, patchify, take

TRI_ENCODER = ("sar", "lores", "hires_4x")
"""Modalities of the tri-encoder, in the order in which the joint encoder takes them."""

MAX_SCALE = 100.0
"""Upper bound of the inverse temperature (CLIP, Radford et al. 2021; CROMA)."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths of a model; the SAR and the joint encoder have half the depth."""

    dim: int
    depth: int
    num_heads: int
    decoder_dim: int
    decoder_depth: int = 1
    decoder_heads: int = 8


SIZES: Mapping[str, Size] = {
    "tiny": Size(dim=128, depth=2, num_heads=8, decoder_dim=96, decoder_heads=4),
    "small": Size(dim=384, depth=12, num_heads=8, decoder_dim=256),
    "base": Size(dim=768, depth=12, num_heads=16, decoder_dim=512),
    "large": Size(dim=1024, depth=24, num_heads=16, decoder_dim=512),
}
"""``base`` is that of the paper; ``tiny`` trains on two CPU cores in minutes."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything needed to build a model: its size, and its modalities with their statistics."""

    size: Size
    modalities: tuple[Modality, ...]
    """The first one is the anchor, at whose positions the others are fused."""
    patch_px: int = 16

    def __post_init__(self) -> None:
        names = ", ".join(modality.name for modality in self.modalities) or "none"
        if len(self.modalities) < 2:  # noqa: PLR2004
            raise UsageError(
                f"contrastive training needs two modalities or more of {', '.join(TRI_ENCODER)}; "
                f"got {names}. Take a store that has them, or name two with --modalities."
            )
        anchor = self.modalities[0]
        for modality in self.modalities:
            if not (len(modality.mean) == len(modality.std) == len(modality.bands)):
                raise UsageError(
                    f"modality {modality.name!r} has no statistics (mean, std per band); "
                    "finish the store with `salibi-data build`."
                )
            if anchor.gsd_ratio % modality.gsd_ratio:
                raise UsageError(
                    f"modality {modality.name!r} (GSD ratio {modality.gsd_ratio}) is coarser than "
                    f"the first one, {anchor.name!r} ({anchor.gsd_ratio}); name it first."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of the contrastive loss: neighbours in order first, then the others."""
        adjacent = tuple(pairwise(self.names))
        return adjacent + tuple(
            pair for pair in combinations(self.names, 2) if pair not in adjacent
        )

    def __getitem__(self, name: str) -> Modality:
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise UsageError(
            f"the model has no modality {name!r}; it has {', '.join(map(repr, self.names))}."
        )

    def depth(self, modality: Modality) -> int:
        """Depth of a modality's encoder: half for SAR, whose bands hold less."""
        return self.half_depth if modality.sensor == "sentinel-1" else self.size.depth

    @property
    def half_depth(self) -> int:
        """Depth of the SAR encoder and of the joint encoder."""
        return max(1, self.size.depth // 2)


class ScaleAlibi(nn.Module):
    """One encoder and head per modality, the joint encoder, the decoder, and the loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size, patch_px = config.size, config.patch_px
        self.encoders = nn.ModuleDict(
            {
                modality.name: Encoder(
                    modality,
                    patch_px=patch_px,
                    dim=size.dim,
                    depth=config.depth(modality),
                    num_heads=size.num_heads,
                )
                for modality in config.modalities
            }
        )
        self.heads = nn.ModuleDict({name: Head(size.dim) for name in config.names})
        self.projections = nn.ModuleDict(
            {name: nn.Linear(size.dim, size.dim) for name in config.names}
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.joint = JointEncoder(dim=size.dim, depth=config.half_depth, num_heads=size.num_heads)
        anchor = config.modalities[0]
        self.decoder = Decoder(
            dim=size.dim,
            decoder_dim=size.decoder_dim,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
            patch_values={m.name: len(m.bands) * patch_px**2 for m in config.modalities},
            fineness={m.name: round(anchor.gsd_ratio / m.gsd_ratio) for m in config.modalities},
        )
        self.apply(initialise)
        nn.init.normal_(self.decoder.mask_token, std=0.02)

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most :data:`MAX_SCALE`."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def encoder(self, modality: str) -> Encoder:
        """Give a modality's encoder.

        Raises:
            UsageError: the model has no such modality.
        """
        return cast("Encoder", self.encoders[self.config[modality].name])

    def num_tokens(self, images: Mapping[str, Tensor]) -> dict[str, int]:
        """Count the patches of each modality, in the model's order."""
        grids = {name: patch_grid(images[name], self.config.patch_px) for name in self.config.names}
        return {name: rows * cols for name, (rows, cols) in grids.items()}

    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
    ) -> dict[str, Float[Tensor, ""]]:
        """Give the pre-training loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units (0..255, 0 = nodata).
            masks: per modality, the patches kept and removed.

        Returns:
            ``loss`` (the sum to minimise), ``contrastive``, ``reconstruction``, and their parts
            ``contrastive_sar_lores``, ..., ``reconstruction_sar``, ...
        """
        patch_px, names = self.config.patch_px, self.config.names
        patches = {name: patchify(images[name], patch_px) for name in names}
        tokens, centres = self._encode_kept(images, patches, masks)
        contrastive = self._contrastive(tokens)
        wanted = {name: masks[name].removed for name in names}
        predicted = self._decode(images, tokens, centres, masks, wanted)
        reconstruction = {
            f"reconstruction_{name}": self._reconstruction(
                name, patches[name], predicted[name], masks[name]
            )
            for name in names
        }
        totals = {
            "contrastive": torch.stack(list(contrastive.values())).sum(),
            "reconstruction": torch.stack(list(reconstruction.values())).sum(),
        }
        loss = totals["contrastive"] + totals["reconstruction"]
        return {"loss": loss, **totals, **contrastive, **reconstruction}

    def predict_patches(
        self, images: Mapping[str, Shaped[Tensor, "batch _ _ _"]], masks: Mapping[str, Mask]
    ) -> dict[str, Float[Tensor, "batch _ _"]]:
        """Predict every patch of every modality from the kept ones, row-major.

        Values are relative to the patch's own mean and deviation, in units of the normalised
        image: the quantity the reconstruction loss compares.
        """
        patches = {name: patchify(images[name], self.config.patch_px) for name in masks}
        tokens, centres = self._encode_kept(images, patches, masks)
        wanted = {name: torch.cat(mask, dim=1).sort(dim=1).values for name, mask in masks.items()}
        return self._decode(images, tokens, centres, masks, wanted)

    def encode(
        self,
        images: Shaped[Tensor, "batch bands height width"],
        modality: str,
        gsd_ratio: float | Float[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch dim"]]:
        """Encode whole images of one modality, of any size and ground sample distance.

        Args:
            images: values in the store's units (0..255, 0 = nodata); they are normalised here
                with the checkpoint's statistics. Edges are multiples of the patch (16 px).
            modality: name of the array: ``sar``, ``lores``, ``hires_4x``.
            gsd_ratio: ground size of a pixel over that of a base-zoom pixel, one number or one
                per image. ``None`` takes the modality's own, as in training: 1 for ``sar`` and
                ``lores``, 0.5 for ``hires_4x``.

        Returns:
            Tokens (B, N, D), row-major, and the embedding (B, D): the output of the modality's
            head. It describes an image; to compare modalities, :meth:`project` it first.

        Raises:
            UsageError: no such modality, or images that do not fit it.
        """
        spec = self.config[modality]
        if images.shape[1] != len(spec.bands):
            raise UsageError(
                f"modality {modality!r} has the bands {', '.join(spec.bands)}; got images of "
                f"{images.shape[1]} bands."
            )
        grid = patch_grid(images, self.config.patch_px)
        encoder = self.encoder(modality)
        values, _ = encoder.normalise(patchify(images, self.config.patch_px))
        xy = patch_centres(grid, spec.gsd_ratio if gsd_ratio is None else gsd_ratio)
        xy = xy.to(values.device).reshape(-1, grid[0] * grid[1], 2)
        tokens: Tensor = encoder(values, xy)
        return tokens, self.heads[modality](tokens)

    def project(
        self, embedding: Float[Tensor, "batch dim"], modality: str
    ) -> Float[Tensor, "batch dim"]:
        """Bring a head's output to the unit sphere where modalities are comparable.

        Retrieval uses this projection: the contrastive loss aligns it, and only it, between
        modalities.
        """
        projection = self.projections[self.config[modality].name]
        return F.normalize(projection(embedding).float(), dim=-1)

    def _encode_kept(
        self,
        images: Mapping[str, Tensor],
        patches: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode each modality's kept patches; also give their centres in the ground frame."""
        tokens: dict[str, Tensor] = {}
        centres: dict[str, Tensor] = {}
        for modality in self.config.modalities:
            name = modality.name
            grid = patch_grid(images[name], self.config.patch_px)
            kept = masks[name].kept
            centres[name] = patch_centres(grid, modality.gsd_ratio).to(kept.device)[kept]
            encoder = self.encoder(name)
            values, _ = encoder.normalise(take(patches[name], kept))
            tokens[name] = encoder(values, centres[name])
        return tokens, centres

    def _contrastive(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {name: self.project(self.heads[name](tokens[name]), name) for name in tokens}
        everyone = {name: distributed.gather_rows(rows) for name, rows in own.items()}
        return {
            f"contrastive_{left}_{right}": info_nce(
                own[left],
                own[right],
                all_left=everyone[left],
                all_right=everyone[right],
                scale=self.scale,
                offset=distributed.rank() * len(own[left]),
            )
            for left, right in self.config.pairs
        }

    def _decode(
        self,
        images: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        wanted: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        anchor = self.config.modalities[0]
        fused = self.joint(list(tokens.values()), list(centres.values()))
        grid = patch_grid(images[anchor.name], self.config.patch_px)
        predicted: dict[str, Tensor] = self.decoder(
            fused, masks[anchor.name].kept, grid, wanted=wanted, gsd_ratio=anchor.gsd_ratio
        )
        return predicted

    def _reconstruction(self, name: str, patches: Tensor, predicted: Tensor, mask: Mask) -> Tensor:
        values, valid = self.encoder(name).normalise(take(patches, mask.removed))
        target = normalised_target(values, valid)
        return masked_mse(predicted.float(), target, valid)
