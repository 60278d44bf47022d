"""``--compat original``: Scale-ALiBi with the six mistakes of its authors' model code.

For comparison only: to approach the published figures, and to measure the effect of each mistake.
All of it is in this module and :mod:`salibi_model.models.original_parts`. A configuration has all
mistakes, or some of them (``--compat original:1,4``):

1. High-resolution features are matched with themselves, so the contrastive loss does not train
   that encoder. Included: gradients reach one side only, the temperature has no bound, and the
   loss is the mean of its parts.
2. The optical head serves the high-resolution encoder; its own head is never used.
3. The bias between the two grids is sliced by four, then indexed with rows of another length.
4. The joint encoder's self attention has the bias between SAR and optical patches, and its second
   step queries from optical positions, although its tokens lie at SAR positions.
5. The high-resolution target is decimated, and its mask max-pooled. Included: the error is a mean
   over the patches of the batch, so samples weigh unequally.
6. Inputs are raw values 0..255, nodata included, and targets are normalised across sensors.

Parts without their mistake are those of Scale-ALiBi with ``fine_target="base"``: without any, the
losses would be the same. The layout of the decoder is always the original's.

Mistake 4 pairs the n-th kept SAR patch with the n-th optical patch; sorted masks would make the two
neighbours. Masks are in random order here, as the authors' are: see
:func:`salibi_model.nn.masking.random_masks`.

Source: the public code of Kage & Andreadis 2024 (arXiv 2604.10347). Departures: none of the
mistakes outside the model (data, optimiser, process groups) is repeated; the decoder's loss
includes the high-resolution sensor, whose target the published revision prepares but whose
prediction it leaves out.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_model import distributed
from salibi_model.models.base import ContrastiveVectors, zero_loss
from salibi_model.models.config import ModelConfig
from salibi_model.models.original_parts import (
    GSD_RATIOS,
    NUM_BANDS,
    Mistake,
    StackedDecoder,
    decimate,
    misread_bias,
    normalise_across,
    original_config,
    pool_mask,
)
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.attention import Bias, GroundBias
from salibi_model.nn.losses import masked_mse, normalised_target
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patchify
from salibi_model.nn.targets import hidden_pixels, shrink_patches

MATCHED_PAIRS = (("lores", "sar"), ("sar", "lores"), ("hires_4x", "hires_4x"))
"""Queries and keys (rows and columns) of the original's three matrices of logits."""


class OriginalScaleAlibi(ScaleAlibi):
    """The tri-encoder as in its authors' code, with all or some of the mistakes.

    Raises:
        UsageError: modalities or ablations that the original does not have.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(original_config(config))
        self.mistakes = frozenset(config.mistakes)

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss; mistake 1: without an upper bound."""
        return self.log_scale.exp() if Mistake.SELF_MATCHES in self.mistakes else super().scale

    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the original's loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units; all three.
            masks: kept and removed patches per modality; with mistake 4 the order of the kept
                ones matters.
            gsd_scale: must be left out; the original takes whole tiles only.

        Returns:
            ``loss`` (the sum to minimise), ``contrastive``, ``reconstruction`` (the sum of
            ``reconstruction_lores``, ``reconstruction_sar``, ``reconstruction_hires_4x``), and
            the parts of both. With mistake 1 ``contrastive`` is the mean of its three parts
            ``contrastive_lores_sar``, ``contrastive_sar_lores``,
            ``contrastive_hires_4x_hires_4x``; otherwise the sum of Scale-ALiBi's.

        Raises:
            UsageError: a modality is missing, or shows other ground than the others; or
                ``gsd_scale`` was given.
        """
        if gsd_scale is not None:
            raise _unsupported_batch()
        unseen = [n for n in self.config.names if n not in images or not masks[n].kept.shape[1]]
        if unseen:
            raise UsageError(
                f"the original model sees all three modalities in every batch; "
                f"{', '.join(unseen)} is missing or hidden. Take scale-alibi for such samples."
            )
        if Mistake.SELF_MATCHES not in self.mistakes:
            self._bound_scale()
        grid = self.anchor_grid(images)
        patches = {name: patchify(images[name], self.config.patch_px) for name in self.config.names}
        tokens, _ = self._encode_kept(images, patches, masks)
        kept = {name: mask.kept for name, mask in masks.items()}
        contrastive = self.contrastive_losses(self._vectors(tokens, patches, masks))
        predicted = cast("StackedDecoder", self.decoder).predict_all(
            self.fuse(tokens, kept, grid), kept["sar"], grid
        )
        reconstruction = self._reconstructions(patches, predicted, masks, grid)
        parts = torch.stack(list(contrastive.values()))
        totals = {
            "contrastive": parts.mean() if Mistake.SELF_MATCHES in self.mistakes else parts.sum(),
            "reconstruction": torch.stack(list(reconstruction.values())).sum(),
        }
        loss = totals["contrastive"] + totals["reconstruction"]
        if Mistake.OPTICAL_HEAD in self.mistakes:
            # This head is never used, and processes of a group need a gradient of every parameter.
            loss = loss + zero_loss(self.heads["hires_4x"])
        return {"loss": loss, **totals, **contrastive, **reconstruction}

    def separate_losses(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, ""]], dict[str, ContrastiveVectors]]:
        """Refuse: the original compares the samples of an undivided batch.

        Raises:
            UsageError: always.
        """
        del images, masks, gsd_scale
        raise _unsupported_batch()

    def predict_patches(self, *_: object, **__: object) -> dict[str, Tensor]:
        """Refuse: the original's predictions cannot be shown as images of the store.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the original model predicts all sensors as bands of one image, decimated and relative "
            "to one mean; reconstruct with a scale-alibi model."
        )

    def fuse(
        self,
        tokens: Mapping[str, Float[Tensor, "batch _ dim"]],
        kept: Mapping[str, Int64[Tensor, "batch _"]],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch anchors dim"]:
        """Fuse tokens at SAR positions: SAR queries optical, the result high resolution.

        Args:
            tokens: tokens of the kept patches per modality, in the order of ``kept``.
            kept: indices of those patches on each modality's own grid.
            grid: (rows, cols) of the base-zoom patches.

        Raises:
            UsageError: SAR and optical differ in how many patches they keep, with mistake 4.
        """
        self_bias = self._self_bias(kept, grid)
        cross_biases = {
            "lores": self._ground_bias("sar", "lores", kept, grid),
            "hires_4x": self._cross_scale_bias(kept, grid),
        }
        joint = self.joint
        fused = tokens["sar"]
        for name, cross_bias in cross_biases.items():
            for block in cast("nn.ModuleList", joint.stacks["shared"]):
                fused = block(fused, tokens[name], self_bias, cross_bias)
            fused = joint.norm(fused)
        return fused

    def reconstruction_target(
        self,
        name: str,
        patches: Shaped[Tensor, "batch fine values"],
        removed: Int64[Tensor, "batch removed"],
        grid: tuple[int, int],
    ) -> tuple[
        Float[Tensor, "batch tokens values"],
        Bool[Tensor, "batch tokens values"],
        Bool[Tensor, "batch tokens values"],
    ]:
        """Compute the target of the decoder for a whole image, always on the base grid.

        Mistake 5: every second pixel of the high-resolution image, and a max-pooled mask. Mistake
        6: raw values, all of them valid. Arguments and results are those of
        :meth:`ScaleAlibi.reconstruction_target`.
        """
        fineness, patch_px = self.fineness(name), self.config.patch_px
        by_patch = fineness == 1 or Mistake.DECIMATED_TARGET in self.mistakes
        if by_patch:
            patches = decimate(patches, grid, fineness, patch_px)
        values, valid = self.encoder(name).normalise(patches)
        if Mistake.RAW_VALUES in self.mistakes:
            valid = torch.ones_like(valid)
        if by_patch:
            hidden = pool_mask(removed, grid, fineness)
            return values, valid, hidden[:, :, None].expand_as(valid)
        values, valid = shrink_patches(values, valid, grid, fineness, patch_px)
        pixels = hidden_pixels(removed, grid, fineness, patch_px)
        return values, valid, pixels.repeat(1, 1, NUM_BANDS[name])

    def _observed(self, name: str, patches: Tensor, mask: Mask) -> Tensor:
        """Mistakes 1 and 6: all samples are compared, as nodata counts as a value."""
        if self.mistakes & {Mistake.SELF_MATCHES, Mistake.RAW_VALUES}:
            return torch.ones(len(patches), dtype=torch.bool, device=patches.device)
        return super()._observed(name, patches, mask)

    def contrastive_losses(
        self, vectors: Mapping[str, ContrastiveVectors]
    ) -> dict[str, Float[Tensor, ""]]:
        """Mistake 1: match optical with SAR, SAR with optical, high resolution with itself.

        Gradients reach the queries (rows of the logits) only, not the keys (columns).
        """
        if Mistake.SELF_MATCHES not in self.mistakes:
            return super().contrastive_losses(vectors)
        own = {name: modality.vectors for name, modality in vectors.items()}
        gathered = {name: distributed.gather_rows(each.detach()) for name, each in own.items()}
        first = distributed.rank() * len(own["sar"])
        labels = first + torch.arange(len(own["sar"]), device=own["sar"].device)
        with torch.autocast(labels.device.type, enabled=False):
            return {
                f"contrastive_{query}_{key}": F.cross_entropy(
                    self.scale * own[query] @ gathered[key].T, labels
                )
                for query, key in MATCHED_PAIRS
            }

    def _embed(self, tokens: Tensor, modality: str) -> Tensor:
        """Mistake 2: the optical head serves high-resolution images, too."""
        takes_optical_head = modality == "hires_4x" and Mistake.OPTICAL_HEAD in self.mistakes
        return super()._embed(tokens, "lores" if takes_optical_head else modality)

    def _cross_scale_bias(self, kept: Mapping[str, Tensor], grid: tuple[int, int]) -> Bias:
        """Give the bias of the second step, between base-zoom and high-resolution patches.

        Mistake 3: read at the wrong positions. Mistake 4: for queries at optical positions.
        """
        query = "lores" if Mistake.OPTICAL_PLACES in self.mistakes else "sar"
        if Mistake.MISREAD_BIAS not in self.mistakes:
            return self._ground_bias(query, "hires_4x", kept, grid)
        return misread_bias(kept[query], kept["hires_4x"], grid, self.config.size.num_heads)

    def _self_bias(self, kept: Mapping[str, Tensor], grid: tuple[int, int]) -> GroundBias:
        """Give the bias of self attention; mistake 4: over distances from SAR to optical."""
        if Mistake.OPTICAL_PLACES not in self.mistakes:
            return self._ground_bias("sar", "sar", kept, grid)
        if kept["sar"].shape != kept["lores"].shape:
            raise UsageError(
                f"the original model keeps as many patches of SAR as of optical images; got "
                f"{kept['sar'].shape[1]} and {kept['lores'].shape[1]}."
            )
        return self._ground_bias("sar", "lores", kept, grid)

    def _ground_bias(
        self, query: str, key: str, kept: Mapping[str, Tensor], grid: tuple[int, int]
    ) -> GroundBias:
        """Give the bias between the kept patches of two modalities, from ground distance."""
        kept_xy = []
        for name in (query, key):
            own_grid = (grid[0] * self.fineness(name), grid[1] * self.fineness(name))
            xy = self.centres(own_grid, GSD_RATIOS[name], kept[name].device)
            kept_xy.append(xy[0][kept[name]])
        query_xy, key_xy = kept_xy
        return GroundBias(query_xy=query_xy, key_xy=key_xy, num_heads=self.config.size.num_heads)

    def _new_decoder(self) -> StackedDecoder:
        size = self.config.size
        return StackedDecoder(
            dim=size.dim,
            decoder_dim=size.decoder_dim,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
            patch_px=self.config.patch_px,
        )

    def _reconstructions(
        self,
        patches: Mapping[str, Tensor],
        predicted: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Compute the mean squared error per sensor on the values that count as removed."""
        unnormalised = {
            name: self.reconstruction_target(name, patches[name], masks[name].removed, grid)
            for name in NUM_BANDS
        }
        targets = self._normalise_targets(unnormalised)
        losses = {}
        for name, (_, valid, hidden) in unnormalised.items():
            parts = [predicted[name].float(), targets[name], valid & hidden]
            if Mistake.DECIMATED_TARGET in self.mistakes and self.fineness(name) > 1:
                # The mean over the batch: samples with more pooled patches weigh more.
                parts = [part.flatten(0, 1)[None] for part in parts]
            losses[f"reconstruction_{name}"] = masked_mse(*parts)
        return losses

    def _normalise_targets(
        self, targets: Mapping[str, tuple[Tensor, Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """Normalise each patch of each sensor; mistake 6: by one mean over the three."""
        if Mistake.RAW_VALUES in self.mistakes:
            return normalise_across({name: values for name, (values, _, _) in targets.items()})
        return {
            name: normalised_target(values, valid) for name, (values, valid, _) in targets.items()
        }


def _unsupported_batch() -> UsageError:
    return UsageError(
        "the original model takes whole tiles of one variant, in undivided batches; leave "
        "out crops, stores of other zooms and accumulation, or take scale-alibi."
    )
