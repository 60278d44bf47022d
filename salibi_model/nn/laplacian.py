"""Decoder of Scale-MAE and its targets: a low and a high frequency image.

Source: Reed et al., Scale-MAE (ICCV 2023, arXiv 2212.14532), section 3, "Input" and "Scale-MAE
decoder", and section 4 for sizes. There, the encoder sees a 448 px image at 224 px, in 14x14
patches of 16 px. The low frequency target is the image reduced to 14 px and enlarged to 224 px;
the high frequency target is the image minus the image reduced to 56 px and enlarged again. In
patches: one value per patch of the input, and 4x4 values. Neither target holds the frequencies
between the two.

Departures: averages and interpolation leave out nodata; the Laplacian blocks follow the roles
that the paper gives their three parts, not the layers of its supplement, and are half as wide as
the decoder.
"""

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_model.nn.decoder import sincos_positions
from salibi_model.nn.layers import TransformerBlock
from salibi_model.nn.targets import shrink

DEPTH: Final = 3
"""Number of transformer blocks of the decoder (section 3, "Decoding")."""
NUM_RESIDUAL: Final = 2
"""Residual convolutions of a Laplacian block before it enlarges (default of the released code)."""


class Frequencies(NamedTuple):
    """Two images of the same ground."""

    low: Shaped[Tensor, "batch bands input_rows input_cols"]
    """Low frequencies, at the resolution of the encoder's input."""
    high: Shaped[Tensor, "batch bands rows cols"]
    """High frequencies, at the resolution of the whole image, twice as fine."""


def enlarge(
    images: Float[Tensor, "batch bands _ _"],
    valid: Bool[Tensor, "batch bands _ _"],
    size: tuple[int, int],
) -> Float[Tensor, "batch bands {size[0]} {size[1]}"]:
    """Interpolate valid pixels bilinearly to (rows, cols); 0 where no valid pixel is near."""
    values = F.interpolate(images.masked_fill(~valid, 0.0), size, mode="bilinear")
    weight = F.interpolate(valid.to(images.dtype), size, mode="bilinear")
    # Without valid neighbours both are 0; the clamp gives 0 there instead of NaN.
    return values / weight.clamp(min=1e-6)


@torch.no_grad()
def frequency_targets(
    images: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
    patch_px: int,
) -> Frequencies:
    """Compute the targets of the decoder from normalised images.

    ``low = up(down(image, 2 patch_px))``, at half the image's resolution, and ``high = image -
    up(down(image, patch_px / 2))``: a level of a Laplacian pyramid. ``down`` averages, ``up`` is
    bilinear, as in the released code.

    Args:
        images: whole images, twice as fine as the encoder's input.
        valid: True where there was an observation; other values do not matter.
        patch_px: edge of a patch, in pixels of the input.

    Returns:
        Low frequencies (B, C, H / 2, W / 2) and high ones (B, C, H, W), 0 where not valid.

    Source: Reed et al. 2023, sections 3 ("Input") and 4. The released code takes the input
    itself as low frequency target and one value per patch (or half of that) for the high one,
    according to its options; this function follows the paper.
    """
    rows, cols = images.shape[-2:]
    low = enlarge(*shrink(images, valid, 2 * patch_px), (rows // 2, cols // 2))
    blurred = enlarge(*shrink(images, valid, patch_px // 2), (rows, cols))
    return Frequencies(low, (images - blurred).masked_fill_(~valid, 0.0))


def masked_l1(
    predicted: Float[Tensor, "batch removed values"],
    target: Float[Tensor, "batch removed values"],
    valid: Bool[Tensor, "batch removed values"],
) -> Float[Tensor, ""]:
    """Compute the mean absolute error over the valid values of removed patches.

    The mean over a sample comes first, then the mean over samples, as in
    :func:`salibi_model.nn.losses.masked_mse`.
    """
    error = (predicted - target).abs().masked_fill(~valid, 0.0)
    return (error.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)).mean()


class LaplacianDecoder(nn.Module):
    """Predicts both frequency images from the tokens of kept patches.

    Mask tokens at removed patches, positions and transformer blocks come first. Deconvolutions,
    with a norm and GELU between them, then double the map of tokens twice, and one Laplacian block
    reads each of the two maps (section 3, "Decoding", "Upsampling", "Reconstruction").
    """

    def __init__(
        self, *, dim: int, decoder_dim: int, num_heads: int, num_bands: int, patch_px: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        self.blocks = nn.ModuleList(TransformerBlock(decoder_dim, num_heads) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(decoder_dim)
        self.twice = nn.ConvTranspose2d(decoder_dim, decoder_dim, 2, stride=2)
        self.twice_norm = ChannelNorm(decoder_dim)
        self.four_times = nn.ConvTranspose2d(decoder_dim, decoder_dim, 2, stride=2)
        # From 2x the grid to the input's pixels, and from 4x to the whole image's: the same step.
        self.low = LaplacianBlock(decoder_dim, num_bands, patch_px // 2)
        self.high = LaplacianBlock(decoder_dim, num_bands, patch_px // 2)

    def forward(
        self,
        tokens: Float[Tensor, "batch kept dim"],
        kept: Int64[Tensor, "batch kept"],
        grid: tuple[int, int],
        xy: Float[Tensor, "#batch {grid[0]*grid[1]} 2"],
    ) -> Frequencies:
        """Predict the two images.

        Args:
            tokens: tokens of the encoder.
            kept: indices of their patches on the input's grid.
            grid: (rows, cols) of the input's patches.
            xy: centres of all patches in the ground frame (base-zoom patches); one row where all
                samples share them.
        """
        embedded = self.embed(tokens)
        # scatter needs one dtype, and autocast gives bf16 tokens beside a float32 parameter.
        x = self.mask_token.to(embedded.dtype).expand(len(embedded), grid[0] * grid[1], -1)
        x = x.scatter(1, kept[:, :, None].expand_as(embedded), embedded)
        x = x + sincos_positions(xy, x.shape[2])
        for block in self.blocks:
            x = block(x, None)
        twice = self.twice(self.norm(x).transpose(1, 2).unflatten(2, grid))
        four_times = self.four_times(F.gelu(self.twice_norm(twice)))
        return Frequencies(self.low(twice), self.high(four_times))


class LaplacianBlock(nn.Sequential):
    """Feature mapping, upsampling, reconstruction: from a map of features to an image.

    Two deconvolutions make the image ``factor`` times as large as the map; ``factor`` is even.

    Source: Reed et al. 2023, section 3, "Reconstruction".
    """

    def __init__(self, dim: int, num_bands: int, factor: int) -> None:
        wide, narrow, step = dim // 2, dim // 4, factor // 2
        super().__init__(
            nn.Conv2d(dim, wide, 1),
            *(ResidualConvolution(wide) for _ in range(NUM_RESIDUAL)),
            ChannelNorm(wide),
            nn.ConvTranspose2d(wide, narrow, step, stride=step),
            ResidualConvolution(narrow),
            nn.ConvTranspose2d(narrow, num_bands, 2, stride=2),
        )


class ResidualConvolution(nn.Module):
    """Residual of a 3x3 convolution within each channel, GELU, and a 1x1 one across channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.within = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.across = nn.Conv2d(dim, dim, 1)

    def forward(
        self, x: Float[Tensor, "batch dim rows cols"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Transform a map of features."""
        updated: Tensor = x + self.across(F.gelu(self.within(x)))
        return updated


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(
        self, x: Float[Tensor, "batch dim rows cols"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Normalise a map of features."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
