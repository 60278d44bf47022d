"""Scale-ALiBi: encoders of any number of modalities, and their pre-training loss.

Source: Kage & Andreadis 2024 (arXiv 2604.10347): CROMA (Fuller et al., NeurIPS 2023) with a third
encoder for high-resolution images and attention biases from ground distance. The loss is
``L_contrastive + L_reconstruction``, unweighted; each is a sum over pairs or modalities. CROMA
itself is this model on two modalities without GSD scaling.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_model.models.base import ContrastiveVectors, zero_loss
from salibi_model.models.config import ModelConfig
from salibi_model.models.contrastive import ContrastiveEncoders
from salibi_model.nn.decoder import Decoder, anchor_cells
from salibi_model.nn.encoders import JointEncoder
from salibi_model.nn.layers import initialise
from salibi_model.nn.losses import masked_mse, normalised_target
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid, patchify, take
from salibi_model.nn.targets import hidden_pixels, shrink_patches


class ScaleAlibi(ContrastiveEncoders):
    """One encoder per modality, heads, the joint encoder, the decoder, and the loss.

    Parts that serve no objective of the configuration are not built: heads and projections belong to
    modalities of contrastive pairs, joint encoder and decoder to reconstruction.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size = config.size
        if "reconstruction" in config.objectives:
            self.joint = JointEncoder(
                config.names,
                dim=size.dim,
                depth=config.half_depth,
                num_heads=size.num_heads,
                shared=config.fusion == "shared",
            )
        if self.has_decoder:
            self.decoder = self._new_decoder()
        self.apply(initialise)
        if self.has_decoder:
            nn.init.normal_(self.decoder.mask_token, std=0.02)

    @property
    def has_decoder(self) -> bool:
        """Whether the model can predict patches."""
        config = self.config
        return "reconstruction" in config.objectives and "decoder" not in config.absent

    def fineness(self, modality: str) -> int:
        """Count a modality's patches per anchor patch along an edge: 2 for ``hires_4x``."""
        return round(self.config.anchor.gsd_ratio / self.config[modality].gsd_ratio)

    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the pre-training loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units (0..255, 0 = nodata). A batch
                may lack modalities: they have no part in the loss.
            masks: kept and removed patches per modality of the batch. A modality without kept
                patches is not seen by any encoder, and is reconstructed from the others.
            gsd_scale: factor on the GSD ratios per sample, as for :meth:`~salibi_model.models.base.PretrainModel.forward`.

        Returns:
            ``loss`` (the sum to minimise), ``contrastive``, ``reconstruction``, and their parts
            ``contrastive_sar_lores``, ..., ``reconstruction_sar``, ...

        Raises:
            UsageError: the images do not show the same ground, or there is nothing to learn from.
        """
        reconstruction, vectors = self._reconstruct(images, masks, gsd_scale)
        return self._with_totals(self.contrastive_losses(vectors), reconstruction, images, masks)

    def separate_losses(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, ""]], dict[str, ContrastiveVectors]]:
        """Compute the losses of :meth:`forward` but the contrastive one, and the vectors of that.

        ``contrastive`` is 0. Arguments and errors are those of :meth:`forward`.
        """
        reconstruction, vectors = self._reconstruct(images, masks, gsd_scale)
        losses = self._with_totals({}, reconstruction, images, masks)
        if self.config.contrastive_pairs:
            # The temperature, too, needs a gradient in every pass: see zero_loss.
            losses["loss"] = losses["loss"] + 0.0 * self.log_scale
        return losses, vectors

    def _reconstruct(
        self,
        images: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        gsd_scale: Tensor | None,
    ) -> tuple[dict[str, Tensor], dict[str, ContrastiveVectors]]:
        """Encode a batch; give the parts of the reconstruction loss, and vectors to compare."""
        if self.config.absent:
            raise UsageError(
                f"a converted model without {' and '.join(self.config.absent)} cannot be trained."
            )
        self._bound_scale()
        names = [name for name in self.config.names if name in images]
        patches = {name: patchify(images[name], self.config.patch_px) for name in names}
        tokens, centres = self._encode_kept(images, patches, masks, gsd_scale)
        vectors = self._vectors(tokens, patches, masks)
        losses = {}
        if "reconstruction" in self.config.objectives:
            grid = self.anchor_grid(images)
            predicted = self._predict_for_loss(tokens, centres, masks, grid, names)
            losses = {
                f"reconstruction_{name}": self._reconstruction(
                    name, patches[name], predicted[name], masks[name], grid
                )
                for name in names
            }
        if not (vectors or losses):
            raise UsageError(
                f"a batch of {', '.join(names) or 'no modality'} has no pair to contrast, and "
                "nothing is reconstructed; give images of both modalities of a pair."
            )
        return losses, vectors

    def _with_totals(
        self,
        contrastive: Mapping[str, Tensor],
        reconstruction: Mapping[str, Tensor],
        images: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
    ) -> dict[str, Tensor]:
        """Add ``loss`` and the total of each objective to the parts of the losses."""
        losses = [*contrastive.values(), *reconstruction.values()]
        loss = torch.stack(losses).sum() if losses else self.log_scale.new_zeros(())
        if not all(name in images and masks[name].kept.shape[1] for name in self.config.names):
            loss = loss + zero_loss(self)
        totals = {}
        if self.config.contrastive_pairs:
            totals["contrastive"] = _sum(contrastive, like=loss)
        if "reconstruction" in self.config.objectives:
            totals["reconstruction"] = _sum(reconstruction, like=loss)
        return {"loss": loss, **totals, **contrastive, **reconstruction}

    def predict_patches(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        names: Sequence[str] | None = None,
    ) -> dict[str, Float[Tensor, "batch _ _"]]:
        """Predict every patch of modalities from the kept patches of ``images``, row-major.

        Args:
            images: what the encoders see, of one modality or more, as for :meth:`forward`.
            masks: kept and removed patches of each modality of ``images``.
            names: modalities to predict, also those that are not in ``images``; by default all modalities.

        Returns:
            Per modality (B, tokens, values), in units of the normalised image, relative to a patch's own mean and deviation
            where the configuration has ``normalise_patches``: the values that the loss compares.

        Raises:
            UsageError: the model was not trained to reconstruct.
        """
        if not self.has_decoder:
            raise UsageError(
                "this model has no decoder: it was trained without reconstruction, or converted "
                "from a file that holds none; train one with the objective reconstruction."
            )
        present = [name for name in self.config.names if name in images]
        patches = {name: patchify(images[name], self.config.patch_px) for name in present}
        tokens, centres = self._encode_kept(images, patches, masks)
        grid = self.anchor_grid(images)
        return self._decode(tokens, centres, masks, grid, self._all_indices(tokens, grid, names))

    def _new_decoder(self) -> Decoder:
        config, size = self.config, self.config.size
        native = config.fine_target == "native"
        return Decoder(
            dim=size.dim,
            decoder_dim=size.decoder_dim,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
            patch_values={m.name: len(m.bands) * config.patch_px**2 for m in config.modalities},
            fineness={name: self.fineness(name) if native else 1 for name in config.names},
        )

    def anchor_grid(self, images: Mapping[str, Tensor]) -> tuple[int, int]:
        """Compute the (rows, cols) of the anchor's patches from the images of a batch.

        Raises:
            UsageError: the images of the batch do not agree on them.
        """
        grids = {}
        for name in self.config.names:
            if name in images:
                own_grid = patch_grid(images[name], self.config.patch_px)
                grids[name] = tuple(edge / self.fineness(name) for edge in own_grid)
        if len(set(grids.values())) > 1 or any(edge % 1 for edge in next(iter(grids.values()))):
            sizes = ", ".join(f"{name} {tuple(images[name].shape[-2:])} px" for name in grids)
            raise UsageError(
                f"the images do not show the same whole patches of ground: {sizes}; crop all "
                "modalities to the same ground."
            )
        rows, cols = next(iter(grids.values()))
        return int(rows), int(cols)

    def _predict_for_loss(
        self,
        tokens: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
        names: Sequence[str],
    ) -> dict[str, Tensor]:
        """Predict the patches that the loss compares.

        These are the removed ones; all of them where a finer image is averaged to the anchor's
        grid, as an averaged patch may be removed in part.
        """
        indices = self._all_indices(tokens, grid, names)
        if self.config.fine_target == "native":
            indices = {name: masks[name].removed for name in names}
        else:
            indices |= {name: masks[name].removed for name in names if self.fineness(name) == 1}
        return self._decode(tokens, centres, masks, grid, indices)

    def _decode(
        self,
        tokens: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
        indices: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Fuse tokens, and predict the patches of ``indices`` on each modality's grid."""
        fused = self.joint(tokens, centres)
        # Fused tokens lie at the kept patches of the first modality that was seen.
        first = next(iter(tokens))
        cells = anchor_cells(grid, self.fineness(first)).to(fused.device)[masks[first].kept]
        predicted: dict[str, Tensor] = self.decoder(
            fused, cells, grid, indices=indices, gsd_ratio=self.config.anchor.gsd_ratio
        )
        return predicted

    def _all_indices(
        self, tokens: Mapping[str, Tensor], grid: tuple[int, int], names: Sequence[str] | None
    ) -> dict[str, Tensor]:
        """List all patches that the decoder predicts, per modality (B, patches)."""
        first = next(iter(tokens.values()))
        indices = {}
        for name in self.config.names if names is None else names:
            count = grid[0] * grid[1] * self.decoder.fineness[self.config[name].name] ** 2
            indices[name] = torch.arange(count, device=first.device).expand(len(first), -1)
        return indices

    def _reconstruction(
        self,
        name: str,
        patches: Tensor,
        predicted: Tensor,
        mask: Mask,
        grid: tuple[int, int],
    ) -> Tensor:
        """Compute the mean squared error on removed patches; 0 where none was removed."""
        if self.decoder.fineness[name] == self.fineness(name):
            values, valid = self.encoder(name).normalise(take(patches, mask.removed))
            compared = valid
        else:
            values, valid, hidden = self.reconstruction_target(name, patches, mask.removed, grid)
            compared = valid & hidden
        target = normalised_target(values, valid) if self.config.normalise_patches else values
        return masked_mse(predicted.float(), target, compared)

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
        """Compute the target of the decoder for a whole image, at the decoder's resolution.

        Args:
            name: name of the modality.
            patches: all patches of its image, in the store's units.
            removed: indices of the patches that the encoder did not see.
            grid: (rows, cols) of the anchor's patches.

        Returns:
            Normalised values, 0 where not valid; True where they are valid; True where they were
            removed.
        """
        values, valid = self.encoder(name).normalise(patches)
        fineness, patch_px = self.fineness(name), self.config.patch_px
        if self.decoder.fineness[name] == fineness:
            hidden = removed.new_zeros(values.shape[:2]).scatter(1, removed, 1).bool()
            return values, valid, hidden[:, :, None].expand_as(valid)
        values, valid = shrink_patches(values, valid, grid, fineness, patch_px)
        pixels = hidden_pixels(removed, grid, fineness, patch_px)
        return values, valid, pixels.repeat(1, 1, values.shape[2] // pixels.shape[2])


def _sum(group: Mapping[str, Tensor], *, like: Tensor) -> Tensor:
    return torch.stack(list(group.values())).sum() if group else torch.zeros_like(like)
