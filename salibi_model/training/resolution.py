"""Fill in what a training configuration leaves open, from the stores and the size's defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from salibi_data.store.errors import UsageError
from salibi_model.data.crops import Crop
from salibi_model.data.modalities import mean_gsd_m, shared_modalities
from salibi_model.data.store import SampleStore
from salibi_model.models.config import OBJECTIVES, SIZES, ModelConfig
from salibi_model.training.config import MODELS, TrainingConfig
from salibi_model.training.option_syntax import read_depth, read_mistakes, read_pair

_MAX_BETWEEN_CHECKPOINTS: Final = 500
"""Steps between checkpoints of a long run."""


@dataclass(frozen=True, kw_only=True)
class SizeDefaults:
    """Budget of a size where none is asked for."""

    epochs: int
    min_steps: int
    batch_size: int
    lr: float


DEFAULTS: Final[Mapping[str, SizeDefaults]] = {
    "tiny": SizeDefaults(epochs=15, min_steps=240, batch_size=16, lr=1e-3),
    "small": SizeDefaults(epochs=100, min_steps=1000, batch_size=32, lr=5e-4),
    "base": SizeDefaults(epochs=300, min_steps=1000, batch_size=32, lr=1.5e-4),
    "large": SizeDefaults(epochs=300, min_steps=1000, batch_size=32, lr=1e-4),
}


def resolve(
    config: TrainingConfig, stores: Sequence[SampleStore], *, world_size: int = 1
) -> TrainingConfig:
    """Fill in everything that was left open, from the stores and the size's defaults.

    Args:
        config: options as they were given.
        stores: those of the configuration, opened.
        world_size: processes that train together.

    Raises:
        UsageError: the batch does not divide among processes and parts, or is one sample, which
            the contrastive loss has nothing to compare with.
    """
    defaults = DEFAULTS[config.size]
    parts = world_size * config.accumulate
    num_train = sum(len(store.split_indices("train")) for store in stores)
    batch_size = config.batch_size or _fitting_batch(defaults.batch_size, num_train, parts)
    if batch_size % parts:
        raise UsageError(
            f"batch size {batch_size} does not divide among {world_size} processes of "
            f"{config.accumulate} parts each; it counts the samples of all together."
        )
    objectives = config.objectives or _default_objectives(config.model)
    if batch_size == 1 and "contrastive" in objectives:
        raise UsageError(
            f"a batch of one sample of {num_train} leaves the contrastive loss nothing to compare "
            "it with: it is 0 and teaches nothing. Give --batch-size 2 or more (of all processes "
            "and parts together), samples to fill it, or --objectives reconstruction."
        )
    steps_per_epoch = max(1, num_train // batch_size)
    steps = config.steps or config.epochs * steps_per_epoch
    steps = steps or max(defaults.min_steps, defaults.epochs * steps_per_epoch)
    every = config.checkpoint_every or max(1, min(_MAX_BETWEEN_CHECKPOINTS, steps // 4))
    return replace(
        config,
        modalities=config.modalities or _default_modalities(config.model, stores),
        objectives=objectives,
        gsd_scaling=config.gsd_scaling and config.model != "croma",
        steps=steps,
        epochs=0,
        batch_size=batch_size,
        lr=config.lr or defaults.lr,
        checkpoint_every=every,
        validate_every=config.validate_every or every,
        probe_every=config.probe_every or config.validate_every or every,
        store_digests=tuple(store.attributes.plan_digest for store in stores),
    )


def describe_model(config: TrainingConfig, stores: Sequence[SampleStore]) -> ModelConfig:
    """Describe the model of a resolved configuration.

    Raises:
        UsageError: the stores lack a modality, or the choices do not fit together.
    """
    return ModelConfig(
        architecture="original" if config.compat else config.model,
        size=SIZES[config.size],
        modalities=shared_modalities(stores, config.modalities, config.weights),
        patch_px=config.patch_px,
        objectives=config.objectives,
        pairs=tuple(read_pair(text) for text in config.pairs),
        gsd_scaling=config.gsd_scaling,
        fusion=config.fusion,
        fine_target=config.fine_target,
        normalise_patches=config.normalise_patches,
        depths=tuple(read_depth(text) for text in config.depths),
        mistakes=read_mistakes(config.compat),
        base_gsd_m=mean_gsd_m(stores, config.weights),
    )


def crop(config: TrainingConfig) -> Crop | None:
    """Give the random squares to train on; ``None``: whole tiles."""
    if not config.crop_px:
        return None
    smallest, largest = config.crop_share
    return Crop(min_share=smallest, max_share=largest, size_px=config.crop_px)


def _fitting_batch(default: int, num_train: int, parts: int) -> int:
    """The default batch, or the largest that the split fills and its parts divide."""
    return max(min(default, num_train) // parts, 1) * parts


def _default_modalities(model: str, stores: Sequence[SampleStore]) -> tuple[str, ...]:
    """The model's own modalities that all stores have."""
    held = [store.attributes.modalities for store in stores]
    return tuple(name for name in MODELS[model] if all(name in names for names in held))


def _default_objectives(model: str) -> tuple[str, ...]:
    return ("reconstruction",) if model == "scale-mae" else OBJECTIVES
