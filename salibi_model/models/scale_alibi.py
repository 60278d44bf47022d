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
from salibi_model.models.base import untouched
from salibi_model.models.config import ModelConfig
from salibi_model.models.contrastive import ContrastedEncoders
from salibi_model.nn.decoder import Decoder, anchor_cells
from salibi_model.nn.encoders import JointEncoder
from salibi_model.nn.layers import initialise
from salibi_model.nn.losses import masked_mse, normalised_target
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid, patchify, take
from salibi_model.nn.targets import hidden_pixels, shrink_patches


class ScaleAlibi(ContrastedEncoders):
    """One encoder per modality, heads, the joint encoder, the decoder, and the loss.

    What serves no objective of the configuration is not built: heads and projections belong to
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
        """Give a modality's patches per anchor patch along an edge: 2 for ``hires_4x``."""
        return round(self.config.anchor.gsd_ratio / self.config[modality].gsd_ratio)

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
                may lack modalities: they have no part in the loss.
            masks: per modality of the batch, the patches kept and removed. One without kept
                patches is not seen by any encoder, and is reconstructed from the others.
            gsd_scale: per sample, as for :meth:`PretrainModel.forward`.
            row_gradients: of a larger contrastive batch, as for :meth:`PretrainModel.forward`.

        Returns:
            ``loss`` (the sum to minimise), ``contrastive``, ``reconstruction``, and their parts
            ``contrastive_sar_lores``, ..., ``reconstruction_sar``, ...

        Raises:
            UsageError: the images do not show the same ground, or there is nothing to learn from.
        """
        if self.config.absent:
            raise UsageError(
                f"a converted model without {' and '.join(self.config.absent)} cannot be trained."
            )
        self._bound_scale()
        names = [name for name in self.config.names if name in images]
        patches = {name: patchify(images[name], self.config.patch_px) for name in names}
        tokens, centres = self._encode_kept(images, patches, masks, gsd_scale)
        parts: dict[str, dict[str, Tensor]] = {}
        rows = self._rows(tokens, patches, masks)
        if self.config.contrasted:
            parts["contrastive"] = self.contrast(rows) if row_gradients is None else {}
        if "reconstruction" in self.config.objectives:
            grid = self.anchor_grid(images)
            fused = self._decode_wanted(tokens, centres, masks, grid, names)
            parts["reconstruction"] = {
                f"reconstruction_{name}": self._reconstruction(
                    name, patches[name], fused[name], masks[name], grid
                )
                for name in names
            }
        losses = [loss for group in parts.values() for loss in group.values()]
        stand_in = {}
        if row_gradients:
            stand_in["surrogate"] = self._surrogate(rows, row_gradients)
        elif not losses:
            raise UsageError(
                f"a batch of {', '.join(names) or 'no modality'} has no pair to contrast, and "
                "nothing is reconstructed; give images of both modalities of a pair."
            )
        loss = torch.stack(losses).sum() if losses else self.log_scale.new_zeros(())
        if set(tokens) != set(self.config.names):
            loss = loss + untouched(self)
        totals = {kind: _sum(group, like=loss) for kind, group in parts.items()}
        named = {name: value for group in parts.values() for name, value in group.items()}
        return {"loss": loss, **totals, **named, **stand_in}

    def predict_patches(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        names: Sequence[str] | None = None,
    ) -> dict[str, Float[Tensor, "batch _ _"]]:
        """Predict every patch of modalities from the kept patches of ``images``, row-major.

        Args:
            images: what there is to see; of one modality or more.
            masks: of each of those.
            names: what to predict, also what is not in ``images``; by default all modalities.

        Returns:
            Values in units of the normalised image, relative to a patch's own mean and deviation
            where the configuration has ``normalise_patches``: what the loss compares.

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
        return self._decode(tokens, centres, masks, grid, self._all_cells(tokens, grid, names))

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
        """Give the (rows, cols) of the anchor's patches.

        Raises:
            UsageError: the images of the batch do not agree on them.
        """
        grids = {}
        for name in self.config.names:
            if name in images:
                fine = patch_grid(images[name], self.config.patch_px)
                grids[name] = tuple(edge / self.fineness(name) for edge in fine)
        if len(set(grids.values())) > 1 or any(edge % 1 for edge in next(iter(grids.values()))):
            shown = ", ".join(f"{name} {tuple(images[name].shape[-2:])} px" for name in grids)
            raise UsageError(
                f"the images do not show the same whole patches of ground: {shown}; crop all "
                "modalities alike, finer ones to as many pixels more."
            )
        rows, cols = next(iter(grids.values()))
        return int(rows), int(cols)

    def _decode_wanted(
        self,
        tokens: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
        names: Sequence[str],
    ) -> dict[str, Tensor]:
        """Predict what the loss compares: removed patches, or all of them on the anchor's grid."""
        wanted = self._all_cells(tokens, grid, names)
        if self.config.fine_target == "native":
            wanted = {name: masks[name].removed for name in names}
        else:
            wanted |= {name: masks[name].removed for name in names if self.fineness(name) == 1}
        return self._decode(tokens, centres, masks, grid, wanted)

    def _decode(
        self,
        tokens: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
        wanted: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        fused = self.joint(tokens, centres)
        placed = next(iter(tokens))
        cells = anchor_cells(grid, self.fineness(placed)).to(fused.device)[masks[placed].kept]
        predicted: dict[str, Tensor] = self.decoder(
            fused, cells, grid, wanted=wanted, gsd_ratio=self.config.anchor.gsd_ratio
        )
        return predicted

    def _all_cells(
        self, tokens: Mapping[str, Tensor], grid: tuple[int, int], names: Sequence[str] | None
    ) -> dict[str, Tensor]:
        """Indices of all the patches that the decoder predicts, per modality."""
        some = next(iter(tokens.values()))
        index = {}
        for name in self.config.names if names is None else names:
            count = grid[0] * grid[1] * self.decoder.fineness[self.config[name].name] ** 2
            index[name] = torch.arange(count, device=some.device).expand(len(some), -1)
        return index

    def _reconstruction(
        self,
        name: str,
        patches: Tensor,
        predicted: Tensor,
        mask: Mask,
        grid: tuple[int, int],
    ) -> Tensor:
        """Mean squared error on what was removed; nothing removed is no error."""
        if self.decoder.fineness[name] == self.fineness(name):
            values, valid = self.encoder(name).normalise(take(patches, mask.removed))
            counted = valid
        else:
            values, valid, hidden = self.truth(name, patches, mask.removed, grid)
            counted = valid & hidden
        target = normalised_target(values, valid) if self.config.normalise_patches else values
        return masked_mse(predicted.float(), target, counted)

    def truth(
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
        """Give what the decoder is to predict of a whole image, at the decoder's resolution.

        Args:
            name: the modality.
            patches: of its image, in the store's units.
            removed: which of them the encoder did not see.
            grid: (rows, cols) of the anchor's patches.

        Returns:
            Normalised values, 0 where not valid; where they are valid; where they were removed.
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
