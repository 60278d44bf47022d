"""The comparison: several models, trained alike and measured alike, and what lies between them.

Source of the table's form: Kage & Andreadis 2024 (arXiv 2604.10347), where Scale-ALiBi stands
beside a CROMA that was trained identically, in k-NN accuracy on GEO-Bench tasks.
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
from salibi_model.evals.evaluate import Showing, check_task, evaluate
from salibi_model.evals.metrics import Score
from salibi_model.evals.probes import Options
from salibi_model.evals.results import Results
from salibi_model.models.registry import build_model
from salibi_model.training.config import TrainingConfig, options_with
from salibi_model.training.resolution import describe_model, resolve
from salibi_model.training.resume import check_same_run
from salibi_model.training.trainer import TrainingProgress, TrainingResult, train

ENTRANTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
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
"""What can be compared: the models, and Scale-ALiBi with one thing changed."""

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
"""Settings that two rows of one method may differ in, apart from what the model is."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row of results less another, on the same test images."""

    dataset: str
    method: str
    metric: str
    gsd_m: float
    reference: str
    """Model and encoder."""
    other: str
    value: float
    """In favour of the reference where it is above 0."""
    low: float
    high: float
    """``low`` and ``high``: bootstrap 95 % interval over test images, drawn for both together."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison came to."""

    runs: Mapping[str, TrainingResult]
    """By model, in the order asked for; the first one is the reference."""
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    """Of the reference from all others, at the images' own scale."""

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
    methods: Sequence[Options],
    out: str | Path,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    on_step: Callable[[str, int, int, Mapping[str, float]], None] | None = None,
    on_progress: StageProgress = lambda _done, _total, _note: None,
    on_skip: Callable[[str], None] = lambda _why: None,
) -> Comparison:
    """Train models with one budget on one order of samples, and measure all by the same methods.

    Steps, batch size, learning rate, schedule, seeds and the samples of every batch are the same
    for all; each takes the modalities that are its own. Masks have the same seeds: they agree
    where models divide an image into the same patches, which Scale-MAE does not. Random weights of the first model
    and mean colours are measured as floors.

    Args:
        config: what the models share. The number of steps that it comes to for the first model
            is that of all.
        models: names of :data:`ENTRANTS`, the reference first; or TOML files of options in which
            a model differs from ``config``, each named for its file.
        data: labelled images.
        methods: of evaluation, and their options.
        out: a folder with a run for each model, and the results. Runs that are there go on, or
            are measured as they are; rows of results that are there are not computed again.
        scales: at which images are shown, see :class:`~salibi_model.evals.evaluate.Showing`.
        device: where to compute.
        on_step: called with (model, steps done, steps in all, the step's metrics).
        on_progress: progress of the evaluation.
        on_skip: told in words what was not measured, and why.

    Raises:
        UsageError: a model is not known or named twice, a run in ``out`` was trained otherwise,
            or nothing can be measured.
    """
    if read_launch().world_size > 1:
        raise UsageError(
            "compare runs in one process. Train the models with torchrun and `salibi-model train`, "
            f"each into its folder below {out}; compare then measures them."
        )
    folder = Path(out)
    entrants = shared_budget(config, models)
    pairs = _fitting(methods, data)
    _check_all(entrants, folder)
    runs = {}
    for name, entrant in entrants.items():
        runs[name] = train(
            entrant,
            out=folder / name,
            device=device,
            on_step=None if on_step is None else _with_name(on_step, name),
        )
    results = Results(folder)
    scores: list[Score] = []
    for number, name in enumerate(entrants):
        for options, fitting in pairs:
            scores += evaluate(
                folder / name,
                fitting,
                options,
                name=name,
                showing=Showing(scales=tuple(scales), floors=number == 0, seed=config.seed),
                results=results,
                device=device,
                on_progress=on_progress,
                on_skip=on_skip,
            )
    return Comparison(
        runs=runs,
        scores=tuple(scores),
        differences=tuple(_differences(scores, next(iter(entrants)), results)),
    )


def shared_budget(config: TrainingConfig, models: Sequence[str]) -> dict[str, TrainingConfig]:
    """Give each model its configuration, with the steps and batch size of the first one.

    Raises:
        UsageError: there is no such model, or one is named twice.
    """
    names = [_name(model) for model in models]
    if not models or len(set(names)) < len(names):
        raise UsageError(
            f"got the models {', '.join(names) or '(none)'}; give each once, the reference first."
        )
    entrants = {_name(model): _entrant(config, model) for model in models}
    stores = [SampleStore(location) for location in config.stores]
    first = resolve(next(iter(entrants.values())), stores)
    return {
        name: replace(
            entrant, steps=first.steps, epochs=0, batch_size=first.batch_size, lr=first.lr
        )
        for name, entrant in entrants.items()
    }


def _fitting(
    methods: Sequence[Options], data: Sequence[LabelledImages]
) -> list[tuple[Options, list[LabelledImages]]]:
    """Give each method the data that it can measure on.

    Raises:
        UsageError: none can measure on any.
    """
    pairs = [(options, [one for one in data if _fits(options, one)]) for options in methods]
    pairs = [(options, fitting) for options, fitting in pairs if fitting]
    if not pairs:
        tasks = ", ".join(f"{one.name} ({one.task})" for one in data) or "no data"
        raise UsageError(
            f"none of the methods measures on {tasks}; take knn or linear for classification, "
            "segment for segmentation."
        )
    return pairs


def _fits(options: Options, data: LabelledImages) -> bool:
    try:
        check_task(options, data)
    except UnfitError:
        return False
    return True


def _entrant(config: TrainingConfig, model: str) -> TrainingConfig:
    changes = dict(ENTRANTS[model]) if model in ENTRANTS else _from_file(model)
    if changes.get("model", config.model) != config.model:
        plain = TrainingConfig()
        changes = {name: getattr(plain, name) for name in options_with(compared="own")} | changes
    return replace(config, **changes)


def _from_file(model: str) -> dict[str, Any]:
    """Read the options in which a model differs from the others.

    Raises:
        UsageError: it is no file of options, or sets what all models share.
    """
    if not model.endswith(".toml"):
        raise UsageError(
            f"no model {model!r} to compare; take some of {', '.join(ENTRANTS)}, or TOML files of "
            "options as for `salibi-model train --config`."
        )
    own = asdict(TrainingConfig.from_toml(model))
    with Path(model).open("rb") as file:
        named = tomllib.load(file)
    if shared := sorted(set(options_with(compared="shared")) & set(named)):
        raise UsageError(
            f"{model} sets {', '.join(shared)}, which all models share; leave it out there, and "
            "give it to `compare`, by an option or --config."
        )
    return {name: own[name] for name in named}


def _check_all(entrants: Mapping[str, TrainingConfig], folder: Path) -> None:
    """Find out before the first model is trained whether the last one can be.

    Raises:
        UsageError: a model cannot be built from the stores, or its run was trained otherwise.
    """
    for name, entrant in entrants.items():
        stores = [SampleStore(location) for location in entrant.stores]
        resolved = resolve(entrant, stores)
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
    """Compare each row of the reference with the others' of the same images and method.

    With another model's row by the same encoder; where it has no such encoder, with all it has.
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
    alike = ("dataset", "method", "metric", "gsd_m", "data_digest")
    asked = {name: row.settings[name] for name in _METHOD_SETTINGS if name in row.settings}
    others: dict[str, list[Score]] = {}
    for other in scores:
        same = all(getattr(row, name) == getattr(other, name) for name in alike)
        same = same and all(other.settings[name] == value for name, value in asked.items())
        if same and other.model != row.model:
            others.setdefault(other.model, []).append(other)
    found = []
    for rows in others.values():
        by_same_encoder = [other for other in rows if other.encoder == row.encoder]
        found += by_same_encoder or rows
    return found
