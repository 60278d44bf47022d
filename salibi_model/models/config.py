"""Configuration of a model: its size, its modalities, and its training objectives.

Every ablation is a field here: a baseline differs from Scale-ALiBi in configuration, not in code.
``config.json`` of a checkpoint has the same fields. The module needs no PyTorch, so that
``--help`` can list what it defines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Protocol, runtime_checkable

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_data.store.validation import option

TRI_ENCODER = ("sar", "lores", "hires_4x")
"""Modalities of the tri-encoder, in the order in which the joint encoder takes them."""

ARCHITECTURES = ("scale-alibi", "croma", "scale-mae", "original")
"""``original`` is Scale-ALiBi with the mistakes of its authors' code (``--compat original``)."""

OBJECTIVES = ("contrastive", "reconstruction")
FUSIONS = ("shared", "separate")
FINE_TARGETS = ("native", "base")
PARTS = ("projections", "decoder")
"""Parts that a converted checkpoint may lack."""

MISTAKES = (1, 2, 3, 4, 5, 6)
"""Numbers of the mistakes of the authors' code, as in :mod:`salibi_model.models.original`."""


_POSITIVE = {"above": 0}
"""Bound of sizes without a default, for the reader of ``config.json``."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths of a model; the SAR and the joint encoder have half the depth."""

    dim: int = field(metadata=_POSITIVE)
    """Width of the encoders' tokens."""
    depth: int = field(metadata=_POSITIVE)
    """Number of blocks of an encoder."""
    num_heads: int = field(metadata=_POSITIVE)
    decoder_dim: int = field(metadata=_POSITIVE)
    """Width of the decoder, a multiple of four."""
    decoder_depth: int = option(1, above=0)
    decoder_heads: int = option(8, above=0)


SIZES: Mapping[str, Size] = {
    "tiny": Size(dim=128, depth=2, num_heads=8, decoder_dim=96, decoder_heads=4),
    "small": Size(dim=384, depth=12, num_heads=8, decoder_dim=256),
    "base": Size(dim=768, depth=12, num_heads=16, decoder_dim=512),
    "large": Size(dim=1024, depth=24, num_heads=16, decoder_dim=512),
}
"""Sizes by name: ``base`` is the paper's; ``tiny`` trains on two CPU cores in minutes."""


@runtime_checkable
class Divisible(Protocol):
    """A number or a tensor."""

    def __truediv__(self, other: float, /) -> Any:
        """Divide each value."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Description from which a model is built; modalities carry their statistics.

    Raises:
        UsageError: the fields do not fit together.

    Example:
        >>> modalities = salibi_model.SampleStore(store_path).attributes.modalities
        >>> config = salibi_model.ModelConfig(
        ...     size=SIZES["tiny"], modalities=(modalities["sar"], modalities["lores"])
        ... )
        >>> config.patch_px, config.objectives
        (16, ('contrastive', 'reconstruction'))
    """

    size: Size
    modalities: tuple[Modality, ...]
    """Modalities; the first one is the anchor, at whose positions the others are fused."""
    patch_px: int = option(16, above=0)
    """Edge of a patch, in pixels."""
    architecture: str = "scale-alibi"
    """Architecture of the model: an entry of :data:`ARCHITECTURES`."""
    objectives: tuple[str, ...] = OBJECTIVES
    """Losses that are summed; parts that serve none of them are not built."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of the contrastive loss; empty: all pairs of modalities."""
    gsd_scaling: bool = True
    """Whether distances are on the ground; otherwise they are in each image's own patches."""
    fusion: str = "shared"
    """Blocks of the joint encoder: the same for each fusion step (``shared``), or a stack for each
    (``separate``)."""
    fine_target: str = "native"
    """Resolution at which finer modalities are reconstructed: their own (``native``), or averaged
    to the anchor's (``base``)."""
    normalise_patches: bool = True
    """Whether a patch's target is relative to its own mean and deviation, as in MAE and CROMA.
    Otherwise predictions are absolute values, as inpainting of unknown pixels needs them."""
    depths: tuple[tuple[str, int], ...] = ()
    """Pairs of a modality and the depth of its encoder, where it is not the default."""
    absent: tuple[str, ...] = ()
    """Parts (entries of :data:`PARTS`) that a converted checkpoint lacks; the model refuses to use them."""
    mistakes: tuple[int, ...] = ()
    """Mistakes (entries of :data:`MISTAKES`) of a model of the architecture ``original``, one or
    more in order; empty for other architectures."""
    base_gsd_m: float | None = option(None, above=0)
    """Metres per pixel at the base zoom, the mean over the training samples; for images whose
    ground sample distance is known in metres. ``None``: not known."""

    def __post_init__(self) -> None:
        self._check_modalities()
        self._check_choices()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def anchor(self) -> Modality:
        """The modality at whose positions the others are fused."""
        return self.modalities[0]

    @property
    def contrastive_pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of the contrastive loss: neighbours in order first, then the others."""
        if "contrastive" not in self.objectives:
            return ()
        if self.pairs:
            return self.pairs
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
        """Give the depth of a modality's encoder; by default SAR has half of the size's depth."""
        default = self.half_depth if modality.sensor == "sentinel-1" else self.size.depth
        return dict(self.depths).get(modality.name, default)

    @property
    def half_depth(self) -> int:
        """Depth of the SAR encoder and of the joint encoder."""
        return max(1, self.size.depth // 2)

    def ground_ratio(self, gsd_m: Divisible) -> Any:
        """Compute the GSD ratio of images of ``gsd_m`` metres per pixel.

        Args:
            gsd_m: one number, or a tensor (B,) with one per image.

        Returns:
            ``gsd_m`` divided by the metres per pixel of the training samples at the base zoom.

        Raises:
            UsageError: the ground sample distance of the training samples is not known.
        """
        if not self.base_gsd_m:
            raise UsageError(
                "this model does not know the metres per pixel of its training images (a converted "
                "file does not hold them); give gsd_ratio instead of gsd_m."
            )
        return gsd_m / self.base_gsd_m

    def _check_modalities(self) -> None:
        names = ", ".join(self.names) or "none"
        min_count = 1 if self.architecture == "scale-mae" else 2
        if len(self.modalities) < min_count:
            raise UsageError(
                f"{self.architecture} needs two modalities or more of {', '.join(TRI_ENCODER)}; "
                f"got {names}. Take a store that has them, or name two with --modalities."
                if min_count > 1
                else "scale-mae needs one optical modality or more; got none."
            )
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"each modality is named once; got {names}.")
        for modality in self.modalities:
            if not (len(modality.mean) == len(modality.std) == len(modality.bands)):
                raise UsageError(
                    f"modality {modality.name!r} has no statistics (mean, std per band); "
                    "finish the store with `salibi-data build`."
                )
            if self.architecture != "scale-mae" and self.anchor.gsd_ratio % modality.gsd_ratio:
                raise UsageError(
                    f"modality {modality.name!r} (GSD ratio {modality.gsd_ratio}) is coarser than "
                    f"the first one, {self.anchor.name!r} ({self.anchor.gsd_ratio}); name it first."
                )

    def _check_choices(self) -> None:
        _check_one_of("architecture", [self.architecture], ARCHITECTURES)
        _check_one_of("objective", self.objectives, OBJECTIVES)
        _check_one_of("part", self.absent, PARTS)
        _check_one_of("fusion", [self.fusion], FUSIONS)
        _check_one_of("target of finer modalities", [self.fine_target], FINE_TARGETS)
        for pair in self.pairs:
            _check_one_of("modality of a pair", pair, self.names)
            if len(pair) != 2 or pair[0] == pair[1]:  # noqa: PLR2004
                raise UsageError(f"{pair} is no pair; give two different modalities, as sar:lores.")
        if len({frozenset(pair) for pair in self.pairs}) < len(self.pairs):
            raise UsageError("each pair is named once, in either order.")
        _check_one_of("modality of a depth", [name for name, _ in self.depths], self.names)
        if any(depth < 1 for _, depth in self.depths):
            raise UsageError("an encoder's depth is one block or more.")
        for modality in self.modalities:
            fineness = self.anchor.gsd_ratio / modality.gsd_ratio
            if self.fine_target == "base" and self.patch_px % fineness:
                raise UsageError(
                    f"{modality.name!r} has {fineness:g} pixels for one of {self.anchor.name!r}, "
                    f"which do not divide patches of {self.patch_px}; reconstruct it natively."
                )
        self._check_mistakes()
        self._check_all_train()

    def _check_mistakes(self) -> None:
        if self.architecture != "original" and self.mistakes:
            raise UsageError(
                f"{self.architecture} has none of the authors' mistakes; got "
                f"{', '.join(map(str, self.mistakes))}. Only the architecture original has them."
            )
        known = tuple(number for number in MISTAKES if number in self.mistakes)
        if self.architecture == "original" and (not known or known != self.mistakes):
            raise UsageError(
                f"the architecture original has one or more of the mistakes "
                f"{', '.join(map(str, MISTAKES))}, each once, in order; got "
                f"{', '.join(map(str, self.mistakes)) or 'none, which is scale-alibi'}."
            )

    def _check_all_train(self) -> None:
        if not self.objectives:
            raise UsageError(f"give at least one objective of {', '.join(OBJECTIVES)}.")
        for name in self.names if "reconstruction" not in self.objectives else ():
            if not any(name in pair for pair in self.contrastive_pairs):
                raise UsageError(
                    f"modality {name!r} takes part in no loss; leave it out of --modalities, or name a "
                    "pair with it."
                )


def _check_one_of(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"no {kind} {name!r}; take one of {', '.join(known)}.")
