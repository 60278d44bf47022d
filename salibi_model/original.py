"""``--compat original``: Scale-ALiBi with the six mistakes of its authors' model code.

For comparison only: to approach the published figures, and to measure what each mistake costs.
All of it is in this module. The mistakes, numbered as in the tests:

1. High-resolution features are matched with themselves, so no pair teaches that encoder.
2. The optical head serves the high-resolution encoder; its own is never used.
3. The bias between the two grids is sliced by four, then indexed with rows of another length.
4. The joint encoder's self attention has the bias between SAR and optical patches, and its second
   step asks from optical positions, though its tokens sit at SAR positions.
5. The high-resolution target is decimated, and its mask max-pooled.
6. Inputs are raw values 0..255, and targets are normalised across sensors.

Kept patches are in random order here, as in the authors' masks, because mistake 4 pairs the n-th
SAR patch with the n-th optical patch: sorted masks would make the two nearly neighbours.

Source: the public code of Kage & Andreadis 2024 (arXiv 2604.10347). Departures: none of the
mistakes outside the model (data, optimiser, process groups) is repeated; the decoder's loss
includes the high-resolution sensor, for which the published revision prepares the target but
whose prediction it then leaves out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from salibi_model import distributed
from salibi_model.alibi import patch_centres, slopes
from salibi_model.attention import GroundBias
from salibi_model.config import OBJECTIVES, TRI_ENCODER, ModelConfig
from salibi_model.decoder import Decoder, sincos_positions
from salibi_model.errors import UsageError
from salibi_model.interface import untouched
from salibi_model.masking import Mask
from salibi_model.patches import patchify
from salibi_model.pretrain import ScaleAlibi

NUM_BANDS = {"lores": 3, "sar": 2, "hires_4x": 3}
"""Sensors in the order in which the original stacks them as one image, and their bands."""

GSD_RATIOS = {"sar": 1.0, "lores": 1.0, "hires_4x": 0.5}

MATCHED = (("lores", "sar"), ("sar", "lores"), ("hires_4x", "hires_4x"))
"""Rows and columns of the original's three tables of logits."""


class OriginalScaleAlibi(ScaleAlibi):
    """The tri-encoder as its authors' code has it.

    Raises:
        UsageError: modalities or ablations that the original does not have.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(_original_config(config))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, without an upper bound."""
        return self.log_scale.exp()

    def forward(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
    ) -> dict[str, Float[Tensor, ""]]:
        """Give the original's loss and its parts.

        Args:
            images: per modality (B, C, H, W) in the store's units; all three.
            masks: per modality, the patches kept and removed. Kept ones are put in random order,
                drawn per sample from torch's CPU generator.

        Returns:
            ``loss`` (the sum to minimise), ``contrastive`` (the mean of its three parts
            ``contrastive_lores_sar``, ``contrastive_sar_lores``,
            ``contrastive_hires_4x_hires_4x``) and ``reconstruction`` (the sum of
            ``reconstruction_lores``, ``reconstruction_sar``, ``reconstruction_hires_4x``).

        Raises:
            UsageError: a modality is missing, or shows other ground than the others.
        """
        unseen = [n for n in self.config.names if n not in images or not masks[n].kept.shape[1]]
        if unseen:
            raise UsageError(
                f"the original model sees all three modalities in every batch; "
                f"{', '.join(unseen)} is missing or hidden. Take scale-alibi for such samples."
            )
        return self.ordered_losses(
            images, {name: in_random_order(mask) for name, mask in masks.items()}
        )

    def ordered_losses(
        self,
        images: Mapping[str, Shaped[Tensor, "batch _ _ _"]],
        masks: Mapping[str, Mask],
    ) -> dict[str, Float[Tensor, ""]]:
        """Give what :meth:`forward` gives, for kept patches in the order given."""
        grid = self.anchor_grid(images)
        patches = {name: patchify(images[name], self.config.patch_px) for name in self.config.names}
        tokens, _ = self._encode_kept(images, patches, masks)
        kept = {name: mask.kept for name, mask in masks.items()}
        contrastive = self._contrastive(tokens)
        predicted = cast("StackedDecoder", self.decoder).stacked(
            self.fuse(tokens, kept, grid), kept["sar"], grid
        )
        reconstruction = self._reconstructions(images, predicted.float(), masks, grid)
        totals = {
            "contrastive": torch.stack(list(contrastive.values())).mean(),
            "reconstruction": torch.stack(list(reconstruction.values())).sum(),
        }
        # Processes of a group expect a gradient of every parameter: mistake 2 gives this head none.
        loss = totals["contrastive"] + totals["reconstruction"] + untouched(self.heads["hires_4x"])
        return {"loss": loss, **totals, **contrastive, **reconstruction}

    def predict_patches(self, *_: object, **__: object) -> dict[str, Tensor]:
        """Refuse: the original predicts no image that could be shown beside the store's.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the original model predicts the high-resolution image decimated, and all sensors "
            "relative to one mean over the three; reconstruct with a scale-alibi model."
        )

    def fuse(
        self,
        tokens: Mapping[str, Float[Tensor, "batch _ dim"]],
        kept: Mapping[str, Int64[Tensor, "batch _"]],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch anchors dim"]:
        """Fuse tokens at SAR positions: SAR asks optical, the result asks high resolution.

        Args:
            tokens: per modality, of the kept patches in the order of ``kept``.
            kept: their indices on each modality's own grid.
            grid: (rows, cols) of the base-zoom patches.

        Raises:
            UsageError: SAR and optical differ in how many patches they keep.
        """
        self_bias = self._self_bias(kept, grid)
        cross_biases = {"lores": self_bias, "hires_4x": self._cross_scale_bias(kept, grid)}
        joint = self.joint
        fused = tokens["sar"]
        for name, cross_bias in cross_biases.items():
            for block in cast("nn.ModuleList", joint.stacks["shared"]):
                fused = block(fused, tokens[name], self_bias, cross_bias)
            fused = joint.norm(fused)
        return fused

    def _contrastive(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mistake 1: optical with SAR, SAR with optical, and high resolution with itself.

        No gradient reaches what the rows are compared with.
        """
        own = {name: self.project(self._represent(tokens[name], name), name) for name in tokens}
        everyone = {name: distributed.gather_rows(rows.detach()) for name, rows in own.items()}
        first = distributed.rank() * len(own["sar"])
        labels = first + torch.arange(len(own["sar"]), device=own["sar"].device)
        with torch.autocast(labels.device.type, enabled=False):
            return {
                f"contrastive_{row}_{column}": F.cross_entropy(
                    self.scale * own[row] @ everyone[column].T, labels
                )
                for row, column in MATCHED
            }

    def _represent(self, tokens: Tensor, modality: str) -> Tensor:
        """Mistake 2: the optical head represents high-resolution images, too."""
        return super()._represent(tokens, "lores" if modality == "hires_4x" else modality)

    def _cross_scale_bias(self, kept: Mapping[str, Tensor], grid: tuple[int, int]) -> Tensor:
        """Mistakes 3 and 4: the bias between grids, read at the wrong places.

        Of the (4N, 4N) table of the fine grid every fourth column is kept; the (4N, N) rest is
        flattened and read at ``q * N + k``, as if its rows were those of the N base patches. For
        base patch q and fine patch k that is row ``q + k // N`` and column ``4 * (k % N)`` of the
        full table. The queries are optical patches, though the tokens sit at SAR positions.
        """
        num_base = grid[0] * grid[1]
        centres = patch_centres((2 * grid[0], 2 * grid[1]), GSD_RATIOS["hires_4x"])
        centres = centres.to(kept["lores"].device)
        query, key = kept["lores"][:, :, None], kept["hires_4x"][:, None, :]
        row = query + key // num_base
        column = (4 * (key % num_base)).expand_as(row)
        distance = torch.linalg.vector_norm(centres[row] - centres[column], dim=-1)
        slope = slopes(self.config.size.num_heads).to(distance)
        bias: Tensor = -slope[:, None, None] * distance[:, None]
        return bias

    def _self_bias(self, kept: Mapping[str, Tensor], grid: tuple[int, int]) -> GroundBias:
        """Mistake 4: SAR tokens attend to each other over SAR to optical distances."""
        if kept["sar"].shape != kept["lores"].shape:
            raise UsageError(
                f"the original model keeps as many patches of SAR as of optical images; got "
                f"{kept['sar'].shape[1]} and {kept['lores'].shape[1]}."
            )
        centres = patch_centres(grid, 1.0).to(kept["sar"].device)
        return GroundBias(
            query_xy=centres[kept["sar"]],
            key_xy=centres[kept["lores"]],
            num_heads=self.config.size.num_heads,
        )

    def _new_decoder(self) -> "StackedDecoder":
        size = self.config.size
        return StackedDecoder(
            dim=size.dim,
            decoder_dim=size.decoder_dim,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
            num_values=sum(NUM_BANDS.values()) * self.config.patch_px**2,
        )

    def _reconstructions(
        self,
        images: Mapping[str, Tensor],
        predicted: Tensor,
        masks: Mapping[str, Mask],
        grid: tuple[int, int],
    ) -> dict[str, Tensor]:
        """Mean squared error per sensor: the mean over all removed patches of the batch."""
        target = stacked_target(images, self.config.patch_px)
        sizes = [bands * self.config.patch_px**2 for bands in NUM_BANDS.values()]
        errors = torch.split((predicted - target).square(), sizes, dim=2)
        losses = {}
        for name, error in zip(NUM_BANDS, errors, strict=True):
            removed = pooled_mask(masks[name].removed, grid, self.fineness(name))
            losses[f"reconstruction_{name}"] = error.mean(dim=2)[removed].mean()
        return losses


class StackedDecoder(Decoder):
    """Predicts all sensors by one linear layer, as bands of one image at the base zoom.

    Positions are integer indices of the grid, not centres in the ground frame.
    """

    def __init__(
        self, *, dim: int, decoder_dim: int, depth: int, num_heads: int, num_values: int
    ) -> None:
        super().__init__(
            dim=dim,
            decoder_dim=decoder_dim,
            depth=depth,
            num_heads=num_heads,
            patch_values={},
            fineness={},
        )
        self.output = nn.Linear(decoder_dim, num_values)

    def stacked(
        self,
        fused: Float[Tensor, "batch kept dim"],
        cells: Int64[Tensor, "batch kept"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch tokens values"]:
        """Predict every patch of the grid; values run low-res optical, SAR, high resolution."""
        x = self._on_grid(self.embed(fused), cells, grid[0] * grid[1])
        indices = patch_centres(grid, 1.0).to(fused.device) - 0.5
        x = x + sincos_positions(indices, x.shape[2])
        for block in self.blocks:
            x = block(x, None)
        predicted: Tensor = self.output(self.norm(x))
        return predicted


def in_random_order(mask: Mask) -> Mask:
    """Put each sample's kept patches in random order, by torch's CPU generator."""
    batch, num_kept = mask.kept.shape
    order = torch.stack([torch.randperm(num_kept) for _ in range(batch)])
    return Mask(mask.kept.gather(1, order.to(mask.kept.device)), mask.removed)


@torch.no_grad()
def stacked_target(
    images: Mapping[str, Shaped[Tensor, "batch _ _ _"]], patch_px: int
) -> Float[Tensor, "batch tokens values"]:
    """Mistakes 5 and 6: every second pixel of high resolution, normalised across sensors.

    A patch's mean and (unbiased) variance are those of all sensors' raw values together, nodata
    included.
    """
    fine = images["hires_4x"][:, :, ::2, ::2]
    patches = patchify(torch.cat([images["lores"], images["sar"], fine], dim=1).float(), patch_px)
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) * torch.rsqrt(variance + 1e-6)


def pooled_mask(
    removed: Int64[Tensor, "batch removed"], grid: tuple[int, int], fineness: int
) -> Bool[Tensor, "batch tokens"]:
    """Mistake 5: a base patch counts as removed where any of its finer patches is.

    Args:
        removed: indices on the finer grid, row-major.
        grid: (rows, cols) of the base patches.
        fineness: finer patches per base patch along an edge; 1 changes nothing.
    """
    rows, cols = grid
    flags = torch.zeros(
        len(removed), rows * cols * fineness**2, dtype=torch.bool, device=removed.device
    )
    flags = flags.scatter(1, removed, True)
    return flags.reshape(-1, rows, fineness, cols, fineness).any(dim=4).any(dim=2).flatten(1)


def _original_config(config: ModelConfig) -> ModelConfig:
    """Check that ``config`` asks for nothing else, and make its inputs raw (mistake 6)."""
    found = tuple((m.name, len(m.bands), m.gsd_ratio) for m in config.modalities)
    wanted = tuple((name, NUM_BANDS[name], GSD_RATIOS[name]) for name in TRI_ENCODER)
    if found != wanted:
        raise UsageError(
            "the original model takes sar (2 bands), lores (3) and hires_4x (3, GSD ratio 0.5), "
            f"in this order; got {', '.join(f'{name} ({bands})' for name, bands, _ in found)}."
        )
    whole = set(config.objectives) == set(OBJECTIVES) and not config.pairs
    usual = config.gsd_scaling and config.fusion == "shared" and config.normalise_patches
    if not (whole and usual):
        raise UsageError(
            "the original model has no ablations: leave objectives, pairs, fusion, GSD scaling and "
            "the normalising of patches at their defaults, or take scale-alibi."
        )
    raw = tuple(
        replace(m, mean=(0.0,) * len(m.bands), std=(1.0,) * len(m.bands), nodata=0)
        for m in config.modalities
    )
    return replace(config, modalities=raw, fine_target="base")
