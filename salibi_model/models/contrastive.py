"""Encoders of several modalities, their embeddings, and the contrastive loss between them.

Source: Kage & Andreadis 2024 (arXiv 2604.10347); CROMA (Fuller et al., NeurIPS 2023), equation 1.
"""

import math
from collections.abc import Container, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_model import distributed
from salibi_model.models.base import ContrastiveVectors, GsdRatio, PretrainModel
from salibi_model.models.config import ModelConfig
from salibi_model.nn.encoders import Encoder, Head
from salibi_model.nn.losses import info_nce
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid, patchify, take

MAX_SCALE = 100.0
"""Upper bound of the inverse temperature (CLIP, Radford et al. 2021; CROMA)."""


class ContrastiveEncoders(PretrainModel):
    """An encoder per modality; a head and a projection for each modality of a contrastive pair."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size = config.size
        self.encoders = nn.ModuleDict(
            {
                modality.name: Encoder(
                    modality,
                    patch_px=config.patch_px,
                    dim=size.dim,
                    depth=config.depth(modality),
                    num_heads=size.num_heads,
                )
                for modality in config.modalities
            }
        )
        paired = [n for n in config.names if any(n in pair for pair in config.contrastive_pairs)]
        self.heads = nn.ModuleDict({name: Head(size.dim) for name in paired})
        projected = [] if "projections" in config.absent else paired
        self.projections = nn.ModuleDict({n: nn.Linear(size.dim, size.dim) for n in projected})
        if projected:
            # Initial temperature 0.07, as in CLIP (Radford et al. 2021, section 2.5).
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most :data:`MAX_SCALE`."""
        return self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()

    @torch.no_grad()
    def _bound_scale(self) -> None:
        """Move a scale beyond the bound back to it: beyond it, ``clamp`` has no gradient."""
        if self.training and self.config.contrastive_pairs:
            self.log_scale.clamp_(max=math.log(MAX_SCALE))

    def extra_metrics(self) -> dict[str, Float[Tensor, ""]]:
        """Give the inverse temperature, where there is one."""
        return {"scale": self.scale} if self.config.contrastive_pairs else {}

    def encoder(self, modality: str) -> Encoder:
        """Give a modality's encoder.

        Raises:
            UsageError: the model has no such modality.
        """
        return cast("Encoder", self.encoders[self.config[modality].name])

    def project(
        self, embedding: Float[Tensor, "batch dim"], modality: str
    ) -> Float[Tensor, "batch dim"]:
        """Map embeddings to unit vectors that can be compared across modalities.

        Retrieval uses this: the contrastive loss aligns these vectors, and nothing else, between
        modalities. A modality without contrastive pairs gives the embedding's direction.

        Raises:
            UsageError: no such modality, or the model was converted from a file that does not
                hold the projections.
        """
        name = self.config[modality].name
        if "projections" in self.config.absent:
            raise UsageError(
                "this model's contrastive projections are not in the file that it was converted "
                "from, so its modalities cannot be compared; use its embeddings, of one modality."
            )
        if name in self.projections:
            embedding = self.projections[name](embedding)
        # float32: in bf16, cosines of close vectors would be equal.
        return F.normalize(embedding.float(), dim=-1)

    def _encode_whole(
        self, images: Tensor, modality: str, gsd_ratio: GsdRatio
    ) -> tuple[Tensor, Tensor]:
        grid = patch_grid(images, self.config.patch_px)
        encoder = self.encoder(modality)
        values, _ = encoder.normalise(patchify(images, self.config.patch_px))
        tokens: Tensor = encoder(values, self.centres(grid, gsd_ratio, values.device))
        return tokens, self._embed(tokens, modality)

    def _embed(self, tokens: Tensor, modality: str) -> Tensor:
        """Apply the modality's head; take the mean over tokens where no loss trained a head."""
        if modality not in self.heads:
            return tokens.mean(dim=1)
        embedding: Tensor = self.heads[modality](tokens)
        return embedding

    def _encode_kept(
        self,
        images: Mapping[str, Tensor],
        patches: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        gsd_scale: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encode each modality's kept patches; also give their centres in the ground frame.

        A modality without kept patches is in neither result.
        """
        tokens: dict[str, Tensor] = {}
        centres: dict[str, Tensor] = {}
        for name in patches:
            kept = masks[name].kept
            if kept.shape[1] == 0:
                continue
            grid = patch_grid(images[name], self.config.patch_px)
            all_centres = self.centres(grid, self._scaled_gsd_ratio(name, gsd_scale), kept.device)
            centres[name] = (
                take(all_centres, kept) if len(all_centres) == len(kept) else all_centres[0][kept]
            )
            encoder = self.encoder(name)
            values, _ = encoder.normalise(take(patches[name], kept))
            tokens[name] = encoder(values, centres[name])
        if not tokens:
            raise UsageError("no patch of any modality is kept; the model has nothing to see.")
        return tokens, centres

    def contrastive_vectors(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, ContrastiveVectors]:
        """Compute the vectors that the contrastive loss compares, per modality of its pairs."""
        if not self.config.contrastive_pairs:
            return {}
        self._bound_scale()
        names = [name for name in self.config.names if name in images]
        patches = {name: patchify(images[name], self.config.patch_px) for name in names}
        tokens, _ = self._encode_kept(images, patches, masks, gsd_scale)
        return self._vectors(tokens, patches, masks)

    def _vectors(
        self,
        tokens: Mapping[str, Tensor],
        patches: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
    ) -> dict[str, ContrastiveVectors]:
        """Project the embeddings of modalities that have a partner in the batch."""
        return {
            name: ContrastiveVectors(
                vectors=self.project(self._embed(tokens[name], name), name),
                observed=self._observed(name, patches[name], masks[name]),
            )
            for name in tokens
            if any(name in pair for pair in self._pairs(tokens))
        }

    def contrastive_losses(
        self, vectors: Mapping[str, ContrastiveVectors]
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute InfoNCE of each pair of modalities over the vectors of all processes."""
        # All ranks call the collectives in the order of ``vectors``; another order would deadlock.
        gathered = {name: distributed.gather_rows(own.vectors) for name, own in vectors.items()}
        with torch.no_grad():
            observed = {
                name: distributed.gather_rows(own.observed.float()).bool()
                for name, own in vectors.items()
            }
        return {
            f"contrastive_{left}_{right}": info_nce(
                vectors[left].vectors,
                vectors[right].vectors,
                all_left=gathered[left],
                all_right=gathered[right],
                scale=self.scale,
                offset=distributed.rank() * len(vectors[left].vectors),
                all_compared=observed[left] & observed[right],
            )
            for left, right in self._pairs(vectors)
        }

    def _pairs(self, present: Container[str]) -> list[tuple[str, str]]:
        """Give the contrastive pairs of which both modalities are present."""
        return [
            pair for pair in self.config.contrastive_pairs if all(name in present for name in pair)
        ]

    def _observed(self, name: str, patches: Tensor, mask: Mask) -> Tensor:
        """Find the samples of which the encoder saw anything but nodata."""
        not_nodata = (patches != self.config[name].nodata).any(dim=2)
        return not_nodata.gather(1, mask.kept).any(dim=1)
