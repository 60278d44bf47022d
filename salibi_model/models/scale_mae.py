"""Scale-MAE, a baseline: one encoder that learns scale by reconstructing a sharper image.

Source: Reed et al., "Scale-MAE: A Scale-Aware Masked Autoencoder for Multiscale Geospatial
Representation Learning", ICCV 2023 (arXiv 2212.14532), section 3. The image is seen at half its
resolution with three quarters of its patches removed; the decoder predicts its low frequencies
at that resolution and its high ones at full resolution (:mod:`salibi_model.nn.laplacian`).

Departures, apart from the decoder's:

- Several optical modalities share the encoder, each normalised with its own statistics. The
  paper has one source of images, at many ground sample distances (GSDs).
- The reference GSD of equations 3 and 4 is that of the base zoom, not 1 m, and positions are
  patch centres, ``index + 0.5``: the ground frame that all models of this package share.
- No class token: an image is described by the mean over its tokens. The paper's k-NN takes the
  class token (released code).
- The whole image is used, where the paper takes random crops.
- Query, key and value are without additive terms, as in this package's other encoders.
"""

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.base import GsdRatio, PretrainModel
from salibi_model.models.config import ModelConfig
from salibi_model.nn.decoder import sincos_positions
from salibi_model.nn.laplacian import (
    Frequencies,
    LaplacianDecoder,
    frequency_targets,
    masked_l1,
)
from salibi_model.nn.layers import TransformerBlock, initialise
from salibi_model.nn.losses import masked_mse
from salibi_model.nn.masking import Mask
from salibi_model.nn.patches import patch_grid, patchify, take
from salibi_model.nn.targets import shrink

INPUT_FACTOR: Final = 2
"""Pixels of the image per pixel of the encoder's input along an edge (448 and 224 px in section 4)."""


class ScaleMae(PretrainModel):
    """Scale-MAE for the optical modalities of a store.

    It uses size, modalities, patch and ``gsd_scaling`` of the configuration; its encoder has the
    size's depth. It has no contrastive loss, fusion or anchor.

    Raises:
        UsageError: the modalities differ in their number of bands, or the patch does not divide
            by four.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size, patch_px, num_bands = config.size, config.patch_px, _shared_bands(config)
        _check_no_ablation(config)
        if patch_px % 4:
            raise UsageError(
                f"scale-mae enlarges by four before it reaches pixels, so its patches are "
                f"multiples of 4 px; got {patch_px}."
            )
        self.pixels = nn.ModuleDict({m.name: Normaliser(m) for m in config.modalities})
        self.embed = nn.Linear(num_bands * patch_px**2, size.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(size.dim, size.num_heads) for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.dim)
        self.decoder = LaplacianDecoder(
            dim=size.dim,
            decoder_dim=size.decoder_dim,
            num_heads=size.decoder_heads,
            num_bands=num_bands,
            patch_px=patch_px,
        )
        self.apply(initialise)
        nn.init.normal_(self.decoder.mask_token, std=0.02)

    def num_tokens(self, images: Mapping[str, Tensor]) -> dict[str, int]:
        """Count the patches of each modality's input, which is the image at half resolution."""
        grids = {
            name: self._input_grid(images[name]) for name in self.config.names if name in images
        }
        return {name: rows * cols for name, (rows, cols) in grids.items()}

    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the pre-training loss and its parts.

        Low frequencies have a squared error, high ones an absolute error (section 3,
        "Reconstruction"), in units of the modality's deviation. Both cover the observed pixels of
        removed patches: the mean over their values in a sample, then over samples.

        The paper does not say which pixels count. In MAE, on which it builds, and in its released
        code the pixels of removed patches count, as here; that code sums over bands and averages
        over the pixels of a batch, where samples weigh the same here.

        Args:
            images: per modality (B, C, H, W) in the store's units (0..255, 0 = nodata); edges
                are multiples of twice the patch. A batch may lack modalities, but not all.
            masks: kept and removed patches of the encoder's input, per modality of the batch.
            gsd_scale: factor on the GSD ratios per sample, as for :meth:`PretrainModel.forward`.

        Returns:
            ``loss`` = ``reconstruction``, the sum of ``reconstruction_low_lores``,
            ``reconstruction_high_lores``, ... of the batch's modalities.

        Raises:
            UsageError: the batch has none of the model's modalities.
        """
        parts: dict[str, Tensor] = {}
        for name in self._present(images):
            values, valid = self.pixels[name](images[name])
            encoder_input, input_valid = shrink(values, valid, INPUT_FACTOR)
            predicted = self._predict(name, encoder_input, masks[name], gsd_scale)
            target = frequency_targets(values, valid, self.config.patch_px)
            low, high = self._losses(
                predicted, target, Frequencies(input_valid, valid), masks[name].removed
            )
            parts |= {f"reconstruction_low_{name}": low, f"reconstruction_high_{name}": high}
        total = torch.stack(list(parts.values())).sum()
        return {"loss": total, "reconstruction": total, **parts}

    def predict_images(
        self, images: Mapping[str, Shaped[Tensor, "batch _ _ _"]], masks: Mapping[str, Mask]
    ) -> dict[str, Frequencies]:
        """Predict each modality's low and high frequency image from its kept patches.

        Values are in units of the normalised image (mean 0 and deviation 1 over the training
        split). Only those at removed patches were trained.

        Raises:
            UsageError: the batch has none of the model's modalities.
        """
        predicted = {}
        for name in self._present(images):
            values, valid = self.pixels[name](images[name])
            encoder_input, _ = shrink(values, valid, INPUT_FACTOR)
            predicted[name] = self._predict(name, encoder_input, masks[name])
        return predicted

    def _encode_whole(
        self, images: Shaped[Tensor, "batch bands rows cols"], modality: str, gsd_ratio: GsdRatio
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch dim"]]:
        """Encode images at their own resolution, unmasked; the embedding is the tokens' mean."""
        values, _ = self.pixels[modality](images)
        grid = patch_grid(values, self.config.patch_px)
        patches = patchify(values, self.config.patch_px)
        tokens = self._encode(patches, self.centres(grid, gsd_ratio, values.device))
        return tokens, tokens.mean(dim=1)

    def _encode(
        self, patches: Float[Tensor, "batch tokens values"], xy: Float[Tensor, "#batch tokens 2"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Encode normalised patches that lie at ``xy``.

        Positions are added to embedded patches: ``sin`` and ``cos`` of ``position * g / G /
        10000 ** (2 i / D)``, with g the image's GSD, G the reference GSD, and D half of the width,
        one half for each axis (equations 3, 4).
        """
        x = self.embed(patches)
        x = x + sincos_positions(xy, x.shape[2])
        for block in self.blocks:
            x = block(x, None)
        tokens: Tensor = self.norm(x)
        return tokens

    def _predict(
        self,
        name: str,
        encoder_input: Float[Tensor, "batch bands rows cols"],
        mask: Mask,
        gsd_scale: Float[Tensor, " batch"] | None = None,
    ) -> Frequencies:
        """Predict both frequency images from a modality's normalised input."""
        grid = patch_grid(encoder_input, self.config.patch_px)
        ratio = INPUT_FACTOR * self._scaled_gsd_ratio(name, gsd_scale)
        xy = self.centres(grid, ratio, encoder_input.device)
        kept = take(patchify(encoder_input, self.config.patch_px), mask.kept)
        predicted: Frequencies = self.decoder(
            self._encode(kept, take(xy.expand(len(kept), -1, -1), mask.kept)), mask.kept, grid, xy
        )
        return predicted

    def _losses(
        self,
        predicted: Frequencies,
        target: Frequencies,
        valid: Frequencies,
        removed: Int64[Tensor, "batch removed"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Compare frequency images within removed patches, which are twice as large in ``high``."""
        patch_px = self.config.patch_px
        # Under autocast predictions are bf16, too coarse for sums over an image.
        predicted = Frequencies(predicted.low.float(), predicted.high.float())
        low = [take(patchify(x.low, patch_px), removed) for x in (predicted, target, valid)]
        high = [
            take(patchify(x.high, INPUT_FACTOR * patch_px), removed)
            for x in (predicted, target, valid)
        ]
        return masked_mse(*low), masked_l1(*high)

    def _input_grid(self, images: Shaped[Tensor, "batch bands rows cols"]) -> tuple[int, int]:
        """Compute the (rows, cols) of patches of the encoder's input for these images."""
        return patch_grid(images, INPUT_FACTOR * self.config.patch_px)

    def _present(self, images: Mapping[str, Tensor]) -> list[str]:
        present = [name for name in self.config.names if name in images]
        if not present:
            raise UsageError(
                f"the batch has {', '.join(images) or 'no images'}, but the model was built for "
                f"{', '.join(self.config.names)}; give one of these at least."
            )
        for name in present:
            self._input_grid(images[name])
        return present


class Normaliser(nn.Module):
    """Normalises stored values to mean 0 and deviation 1 over the training split."""

    mean: Tensor
    std: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.nodata = modality.nodata
        per_band = torch.tensor([modality.mean, modality.std])[:, :, None, None]
        self.register_buffer("mean", per_band[0], persistent=False)
        self.register_buffer("std", per_band[1], persistent=False)

    def forward(
        self, images: Shaped[Tensor, "batch bands rows cols"]
    ) -> tuple[Float[Tensor, "batch bands rows cols"], Bool[Tensor, "batch bands rows cols"]]:
        """Give normalised values, 0 at nodata, and True where they are valid (not nodata)."""
        valid = images != self.nodata
        # The difference is a new tensor: dividing it in place spares a copy.
        values = (images - self.mean).div_(self.std)
        return values.masked_fill_(~valid, 0.0), valid


def _check_no_ablation(config: ModelConfig) -> None:
    """Refuse options without effect here: the checkpoint would record an ablation that was not done.

    Raises:
        UsageError: the configuration sets an option of Scale-ALiBi.
    """
    default = ModelConfig(
        architecture="scale-mae",
        size=config.size,
        modalities=config.modalities,
        objectives=("reconstruction",),
    )
    fields = ("objectives", "pairs", "fusion", "fine_target", "normalise_patches", "depths")
    if changed := [name for name in fields if getattr(config, name) != getattr(default, name)]:
        raise UsageError(
            f"scale-mae reconstructs images of each modality alone; it has no {', '.join(changed)} "
            "to choose. Leave these out, or take scale-alibi."
        )


def _shared_bands(config: ModelConfig) -> int:
    """Give the number of bands that all modalities have.

    Raises:
        UsageError: the modalities differ in their number of bands.
    """
    counts = {modality.name: len(modality.bands) for modality in config.modalities}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise UsageError(
            f"scale-mae has one encoder for all modalities, so all need as many bands: {listed}. "
            "Name those that agree with --modalities."
        )
    return next(iter(counts.values()))
