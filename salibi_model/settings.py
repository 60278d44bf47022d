"""How a run is set up: options, the defaults of each size, and agreement with an earlier run."""

import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from salibi_model.attention import BACKENDS
from salibi_model.checkpoints import RunFolder
from salibi_model.config import MISTAKES, OBJECTIVES, SIZES, TRI_ENCODER, ModelConfig
from salibi_model.errors import UsageError
from salibi_model.store import SampleStore, mean_gsd_m, shared_modalities

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
    ``original:1,4`` with these alone, as :mod:`salibi_model.original` numbers them."""
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
    """Samples of all processes together; by default the size's, or all that there are."""
    mask_ratio: float = 0.75
    """Share of patches REMOVED, per modality."""
    lr: float = 0.0
    """Peak learning rate."""
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    """Share of the steps in which the rate rises."""
    clip_norm: float = 1.0
    """Upper bound of the gradient's norm."""
    precision: str = "float32"
    """``float32``, or ``bf16`` for autocast."""
    attention: str = "auto"
    """Backend of the attention; it changes no result: see :mod:`salibi_model.attention`."""
    seed: int = 0
    checkpoint_every: int = 0
    """Steps between checkpoints."""
    store_digests: tuple[str, ...] = ()
    """Plan digests of the stores; filled in."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, field.type, getattr(self, field.name))
        _check_one_of("size", self.size, SIZES)
        _check_one_of("precision", self.precision, ("float32", "bf16"))
        _check_one_of("model", self.model, MODELS)
        _check_one_of("attention backend", self.attention, BACKENDS)
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                limits = f"from {low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
                raise UsageError(f"{name} is {getattr(self, name)}; expected {limits}.")
        if self.steps and self.epochs:
            raise UsageError("give --steps or --epochs, not both.")
        if not self.stores:
            raise UsageError("give at least one store.")
        self._check_mode()

    def _check_mode(self) -> None:
        _mistakes(self.compat)
        if self.compat and self.model != "scale-alibi":
            raise UsageError(f"compat {self.compat!r} is a mode of scale-alibi, not {self.model}.")
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
        """Fill in everything that was left open, from the stores and the size's defaults."""
        defaults = DEFAULTS[self.size]
        num_train = sum(len(store.split_indices("train")) for store in stores)
        batch_size = self.batch_size or _fitting_batch(defaults.batch_size, num_train, world_size)
        steps_per_epoch = max(1, num_train // batch_size)
        steps = self.steps or self.epochs * steps_per_epoch
        steps = steps or max(defaults.min_steps, defaults.epochs * steps_per_epoch)
        return replace(
            self,
            modalities=self.modalities or _default_modalities(self.model, stores),
            objectives=self.objectives or _default_objectives(self.model),
            gsd_scaling=self.gsd_scaling and self.model != "croma",
            steps=steps,
            epochs=0,
            batch_size=batch_size,
            lr=self.lr or defaults.lr,
            checkpoint_every=self.checkpoint_every or max(1, min(500, steps // 4)),
            store_digests=tuple(store.attributes.plan_digest for store in stores),
        )

    def model_config(self, stores: Sequence[SampleStore]) -> ModelConfig:
        """Describe the model of this resolved configuration.

        Raises:
            UsageError: the stores lack a modality, or the choices do not fit together.
        """
        return ModelConfig(
            architecture="original" if self.compat else self.model,
            size=SIZES[self.size],
            modalities=shared_modalities(stores, self.modalities),
            patch_px=self.patch_px,
            objectives=self.objectives,
            pairs=tuple(_pair(text) for text in self.pairs),
            gsd_scaling=self.gsd_scaling,
            fusion=self.fusion,
            fine_target=self.fine_target,
            normalise_patches=self.normalise_patches,
            depths=tuple(_depth(text) for text in self.depths),
            mistakes=_mistakes(self.compat),
            base_gsd_m=mean_gsd_m(stores),
        )


def resumed_config(out: str | Path, **changes: Any) -> TrainingConfig:
    """Read the configuration of the run in ``out``, with ``changes``.

    Raises:
        CheckpointError: there is no run.
    """
    config = TrainingConfig.from_mapping(RunFolder(out).read_config(), where=str(out))
    if "epochs" in changes:
        config = replace(config, steps=0)
    return replace(config, **changes)


def check_same_run(config: TrainingConfig, folder: RunFolder, *, resume: bool) -> None:
    """Refuse to go on with a run that was set up in another way.

    Raises:
        CheckpointError: there is no run to ``resume``.
        UsageError: the run in ``folder`` has another configuration.
    """
    if not (resume or folder.exists()):
        return
    before = TrainingConfig.from_mapping(folder.read_config(), where=str(folder.path))
    free = {"steps", "epochs", "checkpoint_every", "stores", "attention"}
    changed = [
        f"{name} {getattr(before, name)!r} -> {getattr(config, name)!r}"
        for name in (field.name for field in fields(config))
        if name not in free and getattr(before, name) != getattr(config, name)
    ]
    if changed:
        raise UsageError(
            f"{folder.path} holds a run of another configuration ({'; '.join(changed)}). Give "
            "another --out, or --resume alone to go on with its own configuration."
        )


def _fitting_batch(wanted: int, num_train: int, world_size: int) -> int:
    """The default batch, or the largest that the split fills and the ranks divide."""
    return max(min(wanted, num_train) // world_size, 1) * world_size


def _check_type(name: str, kind: Any, value: Any) -> None:
    """Refuse a value that a TOML file gives another type than the field has."""
    expected = {
        bool: ("true or false", isinstance(value, bool)),
        int: ("a whole number", isinstance(value, int) and not isinstance(value, bool)),
        float: (
            "a finite number",
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
        ),
        str: ("a text", isinstance(value, str)),
    }
    names = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    meaning, fits = expected.get(kind, ('a list of names, as ["sar", "lores"]', names))
    if not fits:
        raise UsageError(f"{name} is {value!r}; expected {meaning}.")


def _default_modalities(model: str, stores: Sequence[SampleStore]) -> tuple[str, ...]:
    """Those of the model's own that all stores have."""
    there = [store.attributes.modalities for store in stores]
    return tuple(name for name in MODELS[model] if all(name in names for names in there))


def _default_objectives(model: str) -> tuple[str, ...]:
    return ("reconstruction",) if model == "scale-mae" else OBJECTIVES


def _pair(text: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not (left and colon and right):
        raise UsageError(f"{text!r} is no pair of modalities; write one as sar:lores.")
    return left, right


def _mistakes(compat: str) -> tuple[int, ...]:
    """Read ``original`` (all mistakes) or ``original:1,4`` (these); without text there are none."""
    if compat in ("", "original"):
        return MISTAKES if compat else ()
    name, _, listed = compat.partition(":")
    chosen = tuple(number for number in MISTAKES if str(number) in listed.split(","))
    if name != "original" or not chosen or listed != ",".join(map(str, chosen)):
        raise UsageError(
            f"no compatibility {compat!r}; write original, or original:1,4 for some of its "
            f"mistakes ({', '.join(map(str, MISTAKES))}), in order."
        )
    return chosen


def _depth(text: str) -> tuple[str, int]:
    name, _, depth = text.partition(":")
    if not (name and depth.isdecimal()):
        raise UsageError(f"{text!r} is no depth of an encoder; write one as sar:6.")
    return name, int(depth)


def _check_one_of(what: str, given: str, known: Collection[str]) -> None:
    if given not in known:
        raise UsageError(f"no {what} {given!r}; take one of {', '.join(filter(None, known))}.")
