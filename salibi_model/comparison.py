"""Trains several models alike, evaluates them alike, and measures their differences.

The table has the form of Kage & Andreadis 2024 (arXiv 2604.10347), who compare Scale-ALiBi with a
CROMA that was trained identically, by k-NN accuracy on GEO-Bench tasks.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from salibi_data.store.errors import UsageError
from salibi_data.store.progress import StageProgress
from salibi_model.checkpoints.files import RunFolder
from salibi_model.data.store import SampleStore
from salibi_model.distributed import read_launch
from salibi_model.evals.datasets.inputs import UnfitError
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.evals.evaluate import check_task, evaluate
from salibi_model.evals.metrics import Score
from salibi_model.evals.options import InputOptions
from salibi_model.evals.probes import ProbeOptions
from salibi_model.evals.results import Results
from salibi_model.models.registry import build_model
from salibi_model.training.config import TrainingConfig, options_with
from salibi_model.training.resolution import describe_model, resolve
from salibi_model.training.resume import check_same_run
from salibi_model.training.trainer import TrainingProgress, TrainingResult, train

COMPARED_MODELS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "scale-alibi": {},
        "croma": {"model": "croma"},
        "scale-mae": {"model": "scale-mae"},
        "no-gsd-scaling": {"gsd_scaling": False},
        "no-contrast": {"objectives": ("reconstruction",)},
        "no-reconstruction": {"objectives": ("contrastive",)},
        "no-hires": {"modalities": ("sar", "lores")},
        "separate-fusion": {"fusion": "separate"},
        "original": {"compat": "original"},
    }
)
"""Options of each model that can be compared: the models, and Scale-ALiBi with one change."""

PUBLISHED: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "m-pv4ger": {"SA-high": 0.9239, "SA-low": 0.9189, "CROMA": 0.9229},
        "m-forestnet": {"SA-high": 0.3826, "SA-low": 0.3726, "CROMA": 0.3544},
        "m-eurosat": {"SA-high": 0.5870, "SA-low": 0.6440, "CROMA": 0.6630},
        "m-brick-kiln": {"SA-high": 0.7537, "SA-low": 0.7497, "CROMA": 0.7647},
    }
)
"""k-NN accuracy on the slides of Kage & Andreadis 2024, per task: Scale-ALiBi's encoders of high
and of low resolution, and CROMA trained identically. No intervals were given."""

_METHOD_SETTINGS: Final = ("k", "distance", "temperature")
"""Settings of a method that must be equal in two rows for the rows to be compared."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row of results minus another, on the same test images."""

    dataset: str
    method: str
    metric: str
    gsd_m: float
    """Metres per pixel of the images after resizing."""
    reference: str
    """Model and encoder of the first row."""
    other: str
    """Model and encoder of the second row."""
    value: float
    """Difference of the two values; above 0 where the reference is better."""
    low: float
    """Lower end of the bootstrap 95 % interval over test images, drawn for both together."""
    high: float
    """Upper end of the same interval."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Training runs, scores and differences of several models."""

    runs: Mapping[str, TrainingResult]
    """Training runs by model, in the order asked for; the first one is the reference."""
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    """Differences of the reference from all others, at the images' own scale."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "models": list(self.runs),
            "scores": [score.to_dict() for score in self.scores],
            "differences": [{**asdict(d), "is_clear": d.is_clear} for d in self.differences],
            "published": {task: dict(row) for task, row in PUBLISHED.items()},
        }


def compare(
    config: TrainingConfig,
    *,
    models: Sequence[str],
    data: Sequence[LabelledImages],
    methods: Sequence[ProbeOptions],
    out: str | Path,
    scales: Sequence[float] = InputOptions.scales,
    device: str = "auto",
    on_step: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
    on_progress: StageProgress = lambda _done, _total, _note: None,
    on_skip: Callable[[str], None] = lambda _reason: None,
) -> Comparison:
    """Train models with one budget on one order of samples, and evaluate all by the same methods.

    Steps, batch size, learning rate, schedule, seeds and the samples of every batch are the same
    for all models; each uses its own modalities. Masks have the same seeds: they agree where
    models divide an image into the same patches, which Scale-MAE does not. Random weights of the
    first model and mean colours are evaluated as baselines.

    Args:
        config: options that the models share. The number of steps that results for the first
            model is that of all.
        models: names of :data:`COMPARED_MODELS`, the reference first; or TOML files of the options
            in which a model differs from ``config``; the file's name is the model's.
        data: labelled images.
        methods: options of the methods of evaluation.
        out: folder with a run for each model, and the results. Existing runs are resumed, or
            evaluated if complete; existing rows of results are not computed again.
        scales: factors on the ground sample distance of the images, see
            :class:`~salibi_model.evals.evaluate.InputOptions`.
        device: device to compute on.
        on_step: called with (model, steps done, steps in all, the step's metrics).
        on_progress: progress of the evaluation.
        on_skip: called with the reason why something was not evaluated.

    Raises:
        UsageError: a model is not known or named twice, a run in ``out`` was trained with other
            options, or nothing can be evaluated.
        StoreError, TrainingError: as :func:`~salibi_model.training.trainer.train`.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from salibi_model.evals.datasets.open import open_labelled
        >>> from salibi_model.evals.options import KnnOptions
        >>> rng = np.random.default_rng(0)
        >>> for name, colour in (("forest", (40, 80, 30)), ("water", (20, 50, 120))):
        ...     (folder / "images" / name).mkdir(parents=True)
        ...     for number in range(5):
        ...         pixels = rng.normal(colour, 4, (64, 64, 3)).astype(np.uint8)
        ...         Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
        >>> config = TrainingConfig(
        ...     stores=(str(store_path),), modalities=("sar", "lores"), crop_px=64, steps=1,
        ...     batch_size=2, validation_samples=0,
        ... )
        >>> comparison = compare(
        ...     config,
        ...     models=["scale-alibi", "no-reconstruction"],
        ...     data=[open_labelled(folder / "images", gsd_m=10.0)],
        ...     methods=[KnnOptions(k=1)],
        ...     out=folder / "comparison",
        ...     device="cpu",
        ... )
        >>> list(comparison.runs), {score.metric for score in comparison.scores}
        (['scale-alibi', 'no-reconstruction'], {'accuracy'})
        >>> difference = comparison.differences[-1]
        >>> difference.reference, difference.other
        ('scale-alibi (lores)', 'no-reconstruction (lores)')
    """
    if read_launch().world_size > 1:
        raise UsageError(
            "compare runs in one process. Train the models with torchrun and `salibi-model train`, "
            f"each into its folder below {out}; compare then measures them."
        )
    folder = Path(out)
    configs = shared_budget(config, models)
    pairs = _fitting_data(methods, data)
    _check_all(configs, folder)
    runs = {}
    for name, model_config in configs.items():
        runs[name] = train(
            model_config,
            out=folder / name,
            device=device,
            on_step=None if on_step is None else _with_name(on_step, name),
        )
    results = Results(folder)
    scores: list[Score] = []
    for number, name in enumerate(configs):
        for options, fitting in pairs:
            scores += evaluate(
                folder / name,
                fitting,
                options,
                name=name,
                inputs=_inputs(scales, floors=number == 0, seed=config.seed),
                results=results,
                device=device,
                on_progress=on_progress,
                on_skip=on_skip,
            )
    return Comparison(
        runs=runs,
        scores=tuple(scores),
        differences=tuple(_differences(scores, next(iter(configs)), results)),
    )


def _inputs(scales: Sequence[float], *, floors: bool, seed: int) -> InputOptions:
    """Inputs of one model; random weights, which have a seed, are measured for the first."""
    if not floors:
        return InputOptions(scales=tuple(scales))
    return InputOptions(scales=tuple(scales), floors=True, seed=seed)


def shared_budget(config: TrainingConfig, models: Sequence[str]) -> dict[str, TrainingConfig]:
    """Return each model's configuration, with the steps and batch size of the first one.

    Raises:
        UsageError: a model is not known, or named twice.
    """
    names = [_name(model) for model in models]
    if not models or len(set(names)) < len(names):
        raise UsageError(
            f"got the models {', '.join(names) or '(none)'}; give each once, the reference first."
        )
    configs = {_name(model): _model_config(config, model) for model in models}
    stores = [SampleStore(location) for location in config.stores]
    first = resolve(next(iter(configs.values())), stores)
    return {
        # With digests, as resolved ones are: of compared models one may not use what another does.
        name: replace(
            model_config,
            steps=first.steps,
            epochs=0,
            batch_size=first.batch_size,
            lr=first.lr,
            store_digests=first.store_digests,
        )
        for name, model_config in configs.items()
    }


def _fitting_data(
    methods: Sequence[ProbeOptions], data: Sequence[LabelledImages]
) -> list[tuple[ProbeOptions, list[LabelledImages]]]:
    """Return each method with the data sets whose task it predicts.

    Raises:
        UsageError: no method fits any data set.
    """
    pairs = [(options, [each for each in data if _fits(options, each)]) for options in methods]
    pairs = [(options, fitting) for options, fitting in pairs if fitting]
    if not pairs:
        tasks = ", ".join(f"{each.name} ({each.task})" for each in data) or "no data"
        raise UsageError(
            f"none of the methods measures on {tasks}; take knn or linear for classification, "
            "segment for segmentation."
        )
    return pairs


def _fits(options: ProbeOptions, data: LabelledImages) -> bool:
    try:
        check_task(options, data)
    except UnfitError:
        return False
    return True


def _model_config(config: TrainingConfig, model: str) -> TrainingConfig:
    changes = dict(COMPARED_MODELS[model]) if model in COMPARED_MODELS else _from_file(model)
    if changes.get("model", config.model) != config.model:
        # Another kind of model starts from the defaults of the options that are its own.
        defaults = TrainingConfig()
        changes = {name: getattr(defaults, name) for name in options_with(compared="own")} | changes
    return replace(config, **changes)


def _from_file(model: str) -> dict[str, Any]:
    """Read the options in which a model differs from the others.

    Raises:
        UsageError: ``model`` is no file of options, or sets an option that all models share.
    """
    if not model.endswith(".toml"):
        raise UsageError(
            f"no model {model!r} to compare; take some of {', '.join(COMPARED_MODELS)}, or TOML files of "
            "options as for `salibi-model train --config`."
        )
    options = asdict(TrainingConfig.from_toml(model))
    with Path(model).open("rb") as file:
        names = list(tomllib.load(file))
    if shared := sorted(set(options_with(compared="shared")) & set(names)):
        raise UsageError(
            f"{model} sets {', '.join(shared)}, which all models share; leave it out there, and "
            "give it to `compare`, by an option or --config."
        )
    return {name: options[name] for name in names}


def _check_all(configs: Mapping[str, TrainingConfig], folder: Path) -> None:
    """Check, before the first model is trained, that all can be.

    Raises:
        UsageError: a model cannot be built from the stores, or its run was trained with other
            options.
    """
    for name, config in configs.items():
        stores = [SampleStore(location) for location in config.stores]
        resolved = resolve(config, stores)
        try:
            with torch.device("meta"):
                build_model(describe_model(resolved, stores))
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error
        check_same_run(resolved, RunFolder(folder / name), resume=False)


def _name(model: str) -> str:
    return Path(model).stem if model.endswith(".toml") else model


def _with_name(
    on_step: Callable[[str, int, int, Mapping[str, float]], None], name: str
) -> TrainingProgress:
    return lambda done, total, metrics: on_step(name, done, total, metrics)


def _differences(scores: Sequence[Score], reference: str, results: Results) -> Iterator[Difference]:
    """Yield the differences between the reference's rows and the others' on the same images.

    A row is compared with another model's row by the same encoder; if that model has no such
    encoder, with all its rows.
    """
    for row in scores:
        if row.model != reference or row.settings["scale"] != 1:
            continue
        for other in _counterparts(row, scores):
            value, low, high = results.paired_difference(row, other)
            yield Difference(
                dataset=row.dataset,
                method=row.method,
                metric=row.metric,
                gsd_m=row.gsd_m,
                reference=f"{row.model} ({row.encoder})",
                other=f"{other.model} ({other.encoder})",
                value=value,
                low=low,
                high=high,
            )


def _counterparts(row: Score, scores: Sequence[Score]) -> list[Score]:
    """Return the other models' rows that a row of the reference is compared with."""
    fields = ("dataset", "method", "metric", "gsd_m", "data_digest")
    settings = {name: row.settings[name] for name in _METHOD_SETTINGS if name in row.settings}
    others: dict[str, list[Score]] = {}
    for other in scores:
        same = all(getattr(row, name) == getattr(other, name) for name in fields)
        same = same and all(other.settings[name] == value for name, value in settings.items())
        if same and other.model != row.model:
            others.setdefault(other.model, []).append(other)
    counterparts = []
    for rows in others.values():
        by_same_encoder = [other for other in rows if other.encoder == row.encoder]
        counterparts += by_same_encoder or rows
    return counterparts
