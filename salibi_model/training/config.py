"""How a run is set up: options, the defaults of each size, and agreement with an earlier run."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from salibi_data.store.errors import UsageError
from salibi_model.data.crops import Crop
from salibi_model.data.store import SampleStore, mean_gsd_m, shared_modalities
from salibi_model.models.config import OBJECTIVES, SIZES, TRI_ENCODER, ModelConfig
from salibi_model.nn.attention import BACKENDS
from salibi_model.training.option_texts import (
    check_one_of,
    check_range,
    check_type,
    read_depth,
    read_factor,
    read_mistakes,
    read_pair,
)
from salibi_model.training.tracking.trackers import TRACKERS

DEFAULT_STORE = "data/micro.zarr"

MODELS: Mapping[str, tuple[str, ...]] = {
    "scale-alibi": TRI_ENCODER,
    "croma": ("sar", "lores"),
    "scale-mae": ("lores", "hires_4x"),
}
"""What can be trained, and the modalities it takes by default."""


@dataclass(frozen=True, kw_only=True)
class SizeDefaults:
    """What a size trains with when nothing else is asked for."""

    epochs: int
    min_steps: int
    batch_size: int
    lr: float


DEFAULTS: Mapping[str, SizeDefaults] = {
    "tiny": SizeDefaults(epochs=15, min_steps=240, batch_size=16, lr=1e-3),
    "small": SizeDefaults(epochs=100, min_steps=1000, batch_size=32, lr=5e-4),
    "base": SizeDefaults(epochs=300, min_steps=1000, batch_size=32, lr=1.5e-4),
    "large": SizeDefaults(epochs=300, min_steps=1000, batch_size=32, lr=1e-4),
}


_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("steps", "epochs", "batch_size", "checkpoint_every", "lr"), (0, math.inf)),
    **dict.fromkeys(("validate_every", "probe_every", "probe_gsd_m", "crop_px"), (0, math.inf)),
    **dict.fromkeys(("accumulate", "workers", "keep_checkpoints"), (1, math.inf)),
    "validation_samples": (0, math.inf),
    "ema": (0, 0.99999999),
    "patch_px": (2, math.inf),
    "hide_share": (0, 0.9),
    "mask_ratio": (0, 1),
    "weight_decay": (0, math.inf),
    "warmup_share": (0, 1),
    "clip_norm": (1e-9, math.inf),
    "seed": (0, 2**31 - 1),
}
"""Least and greatest value of each number."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train. Fields that are 0 or empty are filled in by :meth:`resolve`.

    A TOML file (``--config``) has the same names.
    """

    stores: tuple[str, ...] = (DEFAULT_STORE,)
    """Paths or URLs of stores, read as one."""
    model: str = "scale-alibi"
    """One of :data:`MODELS`; a baseline has the same trainer and the same budget."""
    compat: str = ""
    """``original`` trains Scale-ALiBi with the mistakes of its authors' code, to measure them;
    ``original:1,4`` with these alone, as :mod:`salibi_model.models.original` numbers them."""
    size: str = "tiny"
    modalities: tuple[str, ...] = ()
    """Names of arrays, the anchor first; empty: those of the model that all stores have."""
    patch_px: int = 16
    objectives: tuple[str, ...] = ()
    """``contrastive``, ``reconstruction``; empty: both, for scale-mae the latter."""
    pairs: tuple[str, ...] = ()
    """Pairs of the contrastive loss, such as ``sar:lores``; empty: all."""
    gsd_scaling: bool = True
    """Whether attention counts distance on the ground; otherwise in each image's own patches.
    CROMA never does."""
    fusion: str = "shared"
    """``shared`` or ``separate`` blocks for the steps of the joint encoder."""
    fine_target: str = "native"
    """Resolution at which finer modalities are reconstructed: their own, or ``base``."""
    normalise_patches: bool = True
    """Whether targets are relative to each patch's own mean and deviation."""
    depths: tuple[str, ...] = ()
    """Depths of encoders that are not the default, such as ``sar:6``."""
    hide_share: float = 0.0
    """Chance of each modality to be hidden whole in a batch, and predicted from the others. One is
    always seen: where all would be hidden, the one drawn last is not."""
    steps: int = 0
    epochs: int = 0
    """Passes over the training split, in place of ``steps``."""
    batch_size: int = 0
    """Samples of all processes together; by default the size's, or all that there are. The
    contrastive loss compares all of them, however they are divided, and needs two."""
    accumulate: int = 1
    """Parts in which each process takes its share of a batch, one after the other, where it does
    not fit into memory as a whole. The loss is that of the whole batch."""
    weights: tuple[float, ...] = ()
    """Share of each store in the samples, where there are several; empty: each sample once."""
    crop_px: int = 0
    """Edge, in base-zoom pixels, to which a random square of each sample is brought; 0: whole
    tiles. Ground sample distances follow."""
    crop_share: tuple[float, ...] = (0.25, 1.0)
    """Smallest and largest edge of that square, as a share of the tile's."""
    workers: int = 2
    """Threads that read ahead, per process; they change no result."""
    mask_ratio: float = 0.75
    """Share of patches REMOVED, per modality."""
    lr: float = 0.0
    """Peak learning rate."""
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    """Share of the steps in which the rate rises."""
    clip_norm: float = 1.0
    """Upper bound of the gradient's norm."""
    lr_scales: tuple[str, ...] = ()
    """Factors on the learning rate of parts of the model, such as ``decoder:2``, by the
    beginning of their parameters' names."""
    ema: float = 0.0
    """Decay per step of the moving average of the weights that is then kept as the model and
    validated, such as 0.999; 0: the weights themselves."""
    precision: str = "float32"
    """``float32``, or ``bf16`` for autocast."""
    compile: bool = False
    """Whether ``torch.compile`` makes kernels of the model first."""
    attention: str = "auto"
    """Backend of the attention; it changes no result: see :mod:`salibi_model.nn.attention`."""
    seed: int = 0
    checkpoint_every: int = 0
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """How many of the newest are kept."""
    validate_every: int = 0
    """Steps between validations; by default as for checkpoints."""
    validation_samples: int = 256
    """Samples of the validation split to validate on, at most; 0: no validation, and no watch for
    collapse."""
    probe: str = ""
    """Labelled images (a GEO-Bench task, or a folder per class) to classify by nearest
    neighbours while training."""
    probe_every: int = 0
    """Steps between probes; by default as for validations."""
    probe_gsd_m: float = 0.0
    """Metres per pixel of the labelled images, where they do not say."""
    stop_on_collapse: bool = True
    """Whether to stop where all samples have come to the same embedding. Four samples must be
    validated on for that; a run that has fewer says so as it starts."""
    trackers: tuple[str, ...] = ()
    """Where metrics go besides ``metrics.csv`` and TensorBoard: ``wandb``, ``mlflow``."""
    store_digests: tuple[str, ...] = ()
    """Plan digests of the stores; filled in."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_type(field.name, field.type, getattr(self, field.name))
        self._check_values()
        if self.steps and self.epochs:
            raise UsageError("give --steps or --epochs, not both.")
        if not self.stores:
            raise UsageError("give at least one store.")
        if len(set(self.stores)) < len(self.stores):
            raise UsageError("a store is named twice; name each once, and give --weights instead.")
        if self.weights and len(self.weights) != len(self.stores):
            raise UsageError(
                f"there are {len(self.weights)} weights for {len(self.stores)} stores; give one each."
            )
        if len(self.crop_share) != 2:  # noqa: PLR2004
            raise UsageError(
                f"crop_share is {', '.join(map(str, self.crop_share))}; expected the smallest and the "
                "largest share of the edge, as 0.25,1."
            )
        if self.crop_px:
            self.crop  # noqa: B018 - it checks itself
        self._check_mode()

    def _check_values(self) -> None:
        check_one_of("size", self.size, SIZES)
        check_one_of("precision", self.precision, ("float32", "bf16"))
        check_one_of("model", self.model, MODELS)
        check_one_of("attention backend", self.attention, BACKENDS)
        for name, (low, high) in _RANGES.items():
            check_range(name, getattr(self, name), low, high)
        for weight in self.weights:
            check_range("a weight of a store", weight, 1e-9, math.inf)
        for text in self.lr_scales:
            read_factor(text)
        for tracker in self.trackers:
            check_one_of("tracker", tracker, TRACKERS)

    def _check_mode(self) -> None:
        read_mistakes(self.compat)
        if self.compat and self.model != "scale-alibi":
            raise UsageError(f"compat {self.compat!r} is a mode of scale-alibi, not {self.model}.")
        if self.compat and (self.accumulate > 1 or self.crop_px):
            raise UsageError(
                "the original model takes whole tiles in undivided batches: leave out accumulate and "
                "crop_px with compat."
            )
        predicts = "reconstruction" in (self.objectives or OBJECTIVES)
        if self.hide_share and (self.compat or self.model == "scale-mae" or not predicts):
            raise UsageError(
                "hide_share is for models that predict one modality from the others: scale-alibi or "
                "croma, with reconstruction, and not with compat."
            )

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], *, where: str) -> "TrainingConfig":
        """Make a configuration from a TOML table.

        Raises:
            UsageError: it has a field of another name, or values that do not fit.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(content) - set(names))
        if unknown:
            raise UsageError(
                f"{where} has unknown fields: {', '.join(unknown)}; known: {', '.join(names)}."
            )
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        try:
            return cls(**values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error

    @classmethod
    def from_toml(cls, path: str | Path) -> "TrainingConfig":
        """Read a configuration file.

        Raises:
            UsageError: it is missing, no TOML, or holds something else.
        """
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} cannot be read as TOML: {error}.") from error
        return cls.from_mapping(content, where=str(path))

    def resolve(self, stores: Sequence[SampleStore], *, world_size: int = 1) -> "TrainingConfig":
        """Fill in everything that was left open, from the stores and the size's defaults.

        Raises:
            UsageError: the batch does not divide among processes and parts, or is one sample,
                which the contrastive loss has nothing to compare with.
        """
        defaults = DEFAULTS[self.size]
        parts = world_size * self.accumulate
        num_train = sum(len(store.split_indices("train")) for store in stores)
        batch_size = self.batch_size or _fitting_batch(defaults.batch_size, num_train, parts)
        if batch_size % parts:
            raise UsageError(
                f"batch size {batch_size} does not divide among {world_size} processes of "
                f"{self.accumulate} parts each; it counts the samples of all together."
            )
        objectives = self.objectives or _default_objectives(self.model)
        if batch_size == 1 and "contrastive" in objectives:
            raise UsageError(
                f"a batch of one sample of {num_train} leaves the contrastive loss nothing to compare "
                "it with: it is 0 and teaches nothing. Give --batch-size 2 or more (of all processes "
                "and parts together), samples to fill it, or --objectives reconstruction."
            )
        steps_per_epoch = max(1, num_train // batch_size)
        steps = self.steps or self.epochs * steps_per_epoch
        steps = steps or max(defaults.min_steps, defaults.epochs * steps_per_epoch)
        every = self.checkpoint_every or max(1, min(500, steps // 4))
        return replace(
            self,
            modalities=self.modalities or _default_modalities(self.model, stores),
            objectives=objectives,
            gsd_scaling=self.gsd_scaling and self.model != "croma",
            steps=steps,
            epochs=0,
            batch_size=batch_size,
            lr=self.lr or defaults.lr,
            checkpoint_every=every,
            validate_every=self.validate_every or every,
            probe_every=self.probe_every or self.validate_every or every,
            store_digests=tuple(store.attributes.plan_digest for store in stores),
        )

    @property
    def crop(self) -> Crop | None:
        """The random squares to train on; ``None``: whole tiles."""
        if not self.crop_px:
            return None
        smallest, largest = self.crop_share
        return Crop(min_share=smallest, max_share=largest, size_px=self.crop_px)

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises, of a resolved configuration."""
        return max(1, round(self.warmup_share * self.steps))

    def model_config(self, stores: Sequence[SampleStore]) -> ModelConfig:
        """Describe the model of this resolved configuration.

        Raises:
            UsageError: the stores lack a modality, or the choices do not fit together.
        """
        return ModelConfig(
            architecture="original" if self.compat else self.model,
            size=SIZES[self.size],
            modalities=shared_modalities(stores, self.modalities, self.weights),
            patch_px=self.patch_px,
            objectives=self.objectives,
            pairs=tuple(read_pair(text) for text in self.pairs),
            gsd_scaling=self.gsd_scaling,
            fusion=self.fusion,
            fine_target=self.fine_target,
            normalise_patches=self.normalise_patches,
            depths=tuple(read_depth(text) for text in self.depths),
            mistakes=read_mistakes(self.compat),
            base_gsd_m=mean_gsd_m(stores, self.weights),
        )


def _fitting_batch(wanted: int, num_train: int, parts: int) -> int:
    """The default batch, or the largest that the split fills and its parts divide."""
    return max(min(wanted, num_train) // parts, 1) * parts


def _default_modalities(model: str, stores: Sequence[SampleStore]) -> tuple[str, ...]:
    """Those of the model's own that all stores have."""
    there = [store.attributes.modalities for store in stores]
    return tuple(name for name in MODELS[model] if all(name in names for names in there))


def _default_objectives(model: str) -> tuple[str, ...]:
    return ("reconstruction",) if model == "scale-mae" else OBJECTIVES
