"""Options of a training run: each is one field, with its default, range, unit and help text.

The command ``salibi-model train``, its ``--help``, the TOML reader, the table of options in
``docs/training.md``, resuming and comparing read what a field says of itself. The module needs no
PyTorch. What is left open is filled in by :mod:`salibi_model.training.resolution`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.validation import RecordError, check_options, option, read_record
from salibi_model.models.config import FINE_TARGETS, FUSIONS, OBJECTIVES, SIZES, TRI_ENCODER
from salibi_model.nn.backends import BACKENDS
from salibi_model.training.option_syntax import read_factor, read_mistakes

DEFAULT_STORE: Final = "data/micro.zarr"

MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    "scale-alibi": TRI_ENCODER,
    "croma": ("sar", "lores"),
    "scale-mae": ("lores", "hires_4x"),
}
"""Models that can be trained, and the modalities each takes by default."""

PRECISIONS: Final = ("float32", "bf16")

TRACKERS: Final = ("wandb", "mlflow")
"""Names of the trackers, of their packages, and of the extras that install them."""

CONTRAST: Final = "the contrastive loss"
PREDICTIONS: Final = "predictions between modalities"
GROUND_DISTANCES: Final = "models that measure distances on the ground"
SEVERAL_STORES: Final = "several stores"
CROPS: Final = "crops"
PROBES: Final = "a probe"
PROBED_FOLDERS: Final = "a probe with a folder of images"
"""What an option applies to; see :mod:`salibi_model.training.applicability`."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of training. Those that are 0 or empty are filled in when the run starts.

    A TOML file (``--config``) has the same names.

    Metadata of a field, besides those of :mod:`salibi_data.store.validation`:

    * ``resume``: whether it may change when a run goes on, as it has no part in what is learned;
    * ``compared``: ``shared`` where all compared models have the same value, ``own`` where a value
      belongs to the model that the configuration was made for;
    * ``absent``: what happens at the default, in words;
    * ``flag``, ``negated``, ``metavar``: how the command line spells it;
    * ``argument``: true where it is an argument of the command, not an option;
    * ``command``: false where the command line does not offer it.

    Raises:
        UsageError: an option is of another type, out of its range, or does not fit another one.

    Example:
        >>> salibi_model.TrainingConfig(stores=("data/full.zarr",), size="base", steps=1000)
        TrainingConfig(stores=('data/full.zarr',), size='base', steps=1000)
    """

    stores: tuple[str, ...] = option(
        (DEFAULT_STORE,),
        argument=True,
        help="Stores: folders or URLs, read as one.",
        resume=True,
        compared="shared",
    )
    model: str = option(
        "scale-alibi",
        choices=MODELS,
        help="scale-alibi, croma, scale-mae: the same trainer and the same budget.",
    )
    compat: str = option(
        "",
        help="original: train with the mistakes of the authors' code; original:1,4: with these, as "
        "`docs/originals.md` numbers them.",
    )
    size: str = option("tiny", choices=SIZES, compared="shared", help="tiny, small, base, large.")
    modalities: tuple[str, ...] = option(
        (),
        compared="own",
        absent="the model's that all stores have",
        help="Arrays to train on, the first is the anchor: sar,lores",
    )
    patch_px: int = option(16, minimum=2, unit="pixels", help="Edge of a patch.")
    objectives: tuple[str, ...] = option(
        (),
        choices=OBJECTIVES,
        compared="own",
        absent="both; of scale-mae the latter",
        help="contrastive,reconstruction, or one of them.",
    )
    pairs: tuple[str, ...] = option(
        (),
        compared="own",
        absent="all",
        help="Pairs of the contrastive loss: sar:lores,lores:hires_4x",
        applies_to=CONTRAST,
    )
    gsd_scaling: bool = option(
        True,
        help="Measure distances on the ground, or in each image's own patches (as croma does).",
        applies_to=GROUND_DISTANCES,
    )
    fusion: str = option(
        "shared",
        choices=FUSIONS,
        compared="own",
        help="shared or separate blocks of the joint encoder's steps.",
        applies_to=PREDICTIONS,
    )
    fine_target: str = option(
        "native",
        choices=FINE_TARGETS,
        compared="own",
        help="Reconstruct finer modalities at native or base resolution.",
        applies_to=PREDICTIONS,
    )
    normalise_patches: bool = option(
        True,
        flag="--absolute-targets/--relative-targets",
        negated=True,
        help="Targets as they are, or relative to each patch's own mean and deviation.",
        applies_to=PREDICTIONS,
    )
    depths: tuple[str, ...] = option(
        (), compared="own", help="Depths of encoders that differ: sar:6,s2:4"
    )
    hide_share: float = option(
        0.0,
        minimum=0,
        maximum=0.9,
        help="Chance of a modality to be hidden whole in a batch, and predicted from the others. One "
        "is always seen.",
    )
    steps: int = option(
        0,
        minimum=1,
        resume=True,
        compared="shared",
        absent="by size",
        help="Training steps.",
    )
    epochs: int = option(
        0,
        minimum=1,
        resume=True,
        compared="shared",
        help="Passes over the training split, not --steps.",
    )
    batch_size: int = option(
        0,
        minimum=1,
        compared="shared",
        absent="by size, or all samples",
        help="Samples per step, of all processes together. The contrastive loss compares all of them "
        "and needs two.",
    )
    accumulate: int = option(
        1,
        minimum=1,
        resume=True,
        help="Parts per step and process, to save memory. The loss is that of the whole batch.",
    )
    weights: tuple[float, ...] = option(
        (),
        above=0,
        compared="shared",
        absent="each sample once",
        help="Share of each store in the samples: 2,1",
        applies_to=SEVERAL_STORES,
    )
    crop_px: int = option(
        0,
        minimum=0,
        unit="pixels at the base zoom",
        compared="shared",
        absent="whole tiles",
        help="Train on random squares brought to this edge.",
    )
    crop_share: tuple[float, ...] = option(
        (0.25, 1.0),
        compared="shared",
        help="Smallest and largest such square, as a share of the tile's edge.",
        applies_to=CROPS,
    )
    workers: int = option(
        2,
        minimum=1,
        resume=True,
        help="Threads per process that read ahead; they change no result.",
    )
    mask_ratio: float = option(
        0.75,
        minimum=0,
        maximum=1,
        compared="shared",
        help="Share of patches removed, per modality.",
    )
    lr: float = option(
        0.0, above=0, compared="shared", absent="by size", help="Peak learning rate."
    )
    weight_decay: float = option(
        0.01, minimum=0, compared="shared", help="AdamW's, on matrices only."
    )
    warmup_share: float = option(
        0.05,
        minimum=0,
        maximum=1,
        compared="shared",
        command=False,
        help="Share of the steps in which the rate rises.",
    )
    clip_norm: float = option(
        1.0, above=0, command=False, help="Upper bound of the gradient's norm."
    )
    lr_scales: tuple[str, ...] = option(
        (),
        help="Factors on the rate of parts, by the beginning of their parameters' names: "
        "decoder:2,encoders.sar:0.5",
    )
    ema: float = option(
        0.0,
        minimum=0,
        below=1,
        compared="shared",
        absent="the weights themselves",
        help="Decay per step of the averaged weights kept as model, as 0.999.",
    )
    precision: str = option("float32", choices=PRECISIONS, help="float32, or bf16 for autocast.")
    compile: bool = option(False, resume=True, help="torch.compile the model.")
    attention: str = option(
        "auto", choices=BACKENDS, resume=True, help="auto, dense, flex: the same results."
    )
    seed: int = option(0, minimum=0, maximum=2**31 - 1, compared="shared", help="Random seed.")
    checkpoint_every: int = option(
        0,
        minimum=1,
        unit="steps",
        resume=True,
        absent="a quarter of the run, 500 at most",
        help="Steps between checkpoints.",
    )
    keep_checkpoints: int = option(
        3, minimum=1, resume=True, help="How many of the newest to keep."
    )
    validate_every: int = option(
        0,
        minimum=1,
        unit="steps",
        resume=True,
        absent="as for checkpoints",
        help="Steps between validations.",
    )
    validation_samples: int = option(
        256,
        minimum=0,
        resume=True,
        help="Samples to validate on, at most; 0: no validation, and no watch for collapse.",
    )
    probe: str = option(
        "",
        resume=True,
        help="Labelled images to classify while training: a GEO-Bench task, or a folder per class.",
    )
    probe_every: int = option(
        0,
        minimum=1,
        unit="steps",
        resume=True,
        absent="as for validations",
        help="Steps between probes.",
        applies_to=PROBES,
    )
    probe_gsd_m: float = option(
        0.0,
        above=0,
        unit="m",
        resume=True,
        help="Metres per pixel of these, where they do not say.",
        applies_to=PROBED_FOLDERS,
    )
    stop_on_collapse: bool = option(
        True,
        resume=True,
        help="Stop where embeddings are all alike; needs four validation samples.",
    )
    trackers: tuple[str, ...] = option(
        (),
        choices=TRACKERS,
        resume=True,
        help="wandb,mlflow: besides metrics.csv and TensorBoard.",
    )
    store_digests: tuple[str, ...] = option(
        (), command=False, help="Plan digests of the stores; filled in."
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.steps and self.epochs:
            raise UsageError("give --steps or --epochs, not both.")
        self._check_stores()
        self._check_crops()
        for text in self.lr_scales:
            read_factor(text)
        self._check_mode()

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"TrainingConfig({', '.join(changed)})"

    def _check_stores(self) -> None:
        if not self.stores:
            raise UsageError("give at least one store.")
        if len(set(self.stores)) < len(self.stores):
            raise UsageError("a store is named twice; name each once, and give --weights instead.")
        if self.weights and len(self.weights) != len(self.stores):
            raise UsageError(
                f"there are {len(self.weights)} weights for {len(self.stores)} stores; give one each."
            )

    def _check_crops(self) -> None:
        if len(self.crop_share) != 2:  # noqa: PLR2004
            raise UsageError(
                f"crop_share is {', '.join(map(str, self.crop_share))}; expected the smallest and the "
                "largest share of the edge, as 0.25,1."
            )
        smallest, largest = self.crop_share
        if self.crop_px and not 0 < smallest <= largest <= 1:
            raise UsageError(
                f"crop_share is {smallest:g}, {largest:g}; expected shares above 0 and up to 1, the "
                "smaller one first."
            )

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
        try:
            return read_record(cls, content)
        except RecordError as error:
            raise UsageError(f"{where}: {str(error).rstrip('.')}.") from error

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

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises, of a resolved configuration."""
        return max(1, round(self.warmup_share * self.steps))


def options_with(**metadata: Any) -> tuple[str, ...]:
    """Names of the options whose metadata has these values, in order."""
    return tuple(
        field.name
        for field in fields(TrainingConfig)
        if all(field.metadata.get(key) == value for key, value in metadata.items())
    )
