"""How good frozen features are: each data set, encoder and scale gives rows of results.

Retrieval has its own module, :mod:`salibi_model.evals.retrieval`.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.progress import StageProgress
from salibi_data.store.redaction import redact
from salibi_model.checkpoints.load import load
from salibi_model.evals.datasets.inputs import UnfitError, bands_for, modalities_for
from salibi_model.evals.datasets.labelled import LabelledImages, open_all
from salibi_model.evals.features import Frozen, FrozenModel, MeanColour, untrained
from salibi_model.evals.knn import KnnOptions
from salibi_model.evals.metrics import Score, interval, key, measure
from salibi_model.evals.probes import Options, method_of, outcomes_of
from salibi_model.evals.results import Results
from salibi_model.evals.segmentation import SegmentOptions
from salibi_model.models.base import PretrainModel
from salibi_model.models.compatibility import gsd_mismatch

METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multilabel": ("f1-micro", "f1-macro"),
    "segmentation": ("miou",),
}
"""What is measured, by the task's kind."""


class UnusualImagesWarning(UserWarning):
    """Images are measured that a model was not made for: far GSDs, or less than a patch."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """How images are shown, and to what.

    Raises:
        UsageError: there is no scale.
    """

    modality: str | None = None
    """Whose encoder sees them; ``None``: every modality of the model whose bands the data has."""
    scales: tuple[float, ...] = (1.0,)
    """How much coarser than they are: 2 halves the edge and doubles the ground sample distance."""
    image_px: int | None = None
    """Longer edge to which images are brought before that; ``None``: their own."""
    floors: bool = False
    """Whether to measure, too, what needs no training: mean colours, and random weights."""
    seed: int = 0
    """Of the random weights."""

    def __post_init__(self) -> None:
        if not self.scales:
            raise UsageError("give one scale or more, such as 1,2,4.")


def evaluate(
    checkpoint: str | Path | PretrainModel,
    data: Sequence[LabelledImages],
    options: Options,
    *,
    name: str,
    showing: Showing | None = None,
    results: Results | None = None,
    recorded: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    on_progress: StageProgress = lambda _done, _total, _note: None,
    on_skip: Callable[[str], None] = lambda _why: None,
) -> list[Score]:
    """Measure a model's frozen features by one method.

    Images far from the ground sample distances of the training are measured all the same, as
    published tables do, and those of less than a patch enlarged; both are warned of once.

    Args:
        checkpoint: a run's or model's folder, or a model.
        data: labelled images; where there are several, those that do not fit are skipped.
        options: of the method, and which method it is.
        name: of the model, in the rows.
        showing: how images are shown, and to which encoders.
        results: where rows go, and are taken from if they are there already.
        recorded: what else is to be written among a row's settings.
        device: where to compute, for a checkpoint's folder.
        batch_size: images encoded at a time.
        on_progress: told about images encoded and steps of training.
        on_skip: told in words what was skipped, and why.

    Returns:
        The rows asked for, new or not.

    Raises:
        UsageError: nothing fits, or images of a split are of one class alone.
        CheckpointError: there is no model, or its features are not finite.
        StoreError: a split is empty, or an image cannot be read.
    """
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = load(model, device=device)
    showing = showing or Showing()
    run = _Run(model, options, name, showing, results, dict(recorded or {}), batch_size)
    found: list[Score] = []
    told: set[str] = set()
    several = len(data) * len(showing.scales) > 1
    for one in data:
        try:
            check_task(options, one)
            sources = list(run.sources(one, on_skip))
        except UnfitError as error:
            if not several:
                raise
            on_skip(str(error))
            continue
        for label, frozen, scale in sources:
            try:
                shown = frozen.at(scale=scale, image_px=showing.image_px)
            except UnfitError as error:
                if not several:
                    raise
                on_skip(str(error))
            else:
                _warn_of_unusual(shown, told)
                found += run.rows(label, shown, scale, on_progress, on_skip)
    if not found:
        raise UsageError(
            f"none of {', '.join(one.name for one in data) or 'no data'} fits {method_of(options)} "
            "and the model; take other data, another modality or scale."
        )
    return found


def open_data(
    paths: Sequence[str], *, gsd_m: float | None = None, partition: str = "default"
) -> list[LabelledImages]:
    """Open labelled data: GEO-Bench tasks or roots of them, and folders of images per class.

    Raises:
        UsageError: one is a Salibi store, which has no labels, or no labelled data at all.
        StoreError: one is damaged.
    """
    found: list[LabelledImages] = []
    for path in paths:
        if "://" in path or (Path(path) / "zarr.json").is_file():
            raise UsageError(
                f"{redact(path)} is a store: its samples have no labels. Give a GEO-Bench folder or one "
                "with a folder of images per class, or take `salibi-model eval retrieval`."
            )
        found += open_all(path, gsd_m=gsd_m, partition=partition)
    return found


def check_task(options: Options, data: LabelledImages) -> None:
    """Refuse data whose labels are not of the kind that the method predicts, or all the same.

    Raises:
        UnfitError: they are of another kind.
        UsageError: the training or the test images are of one class alone.
        StoreError: a label cannot be read.
    """
    segments = isinstance(options, SegmentOptions)
    if segments != (data.task == "segmentation"):
        fitting = "eval knn or eval linear" if segments else "eval segment"
        raise UnfitError(
            f"{data.name} is a {data.task} task, which {method_of(options)} does not measure; take "
            f"`salibi-model {fitting}`."
        )
    if not segments:
        data.check_classes("train")
        data.check_classes("test")


def _warn_of_unusual(shown: Frozen, told: set[str]) -> None:
    """Say what a model was not made for, what is in ``told`` not again; floors see the same images."""
    if not isinstance(shown, FrozenModel):
        return
    name, notes = shown.data.name, []
    if far := gsd_mismatch(shown.model.config, shown.encoder, shown.gsd_m):
        notes.append(f"{name}: {far} for figures that the training speaks for.")
    if small := shown.enlarged_from:
        was, now = (f"{rows} x {cols} px" for rows, cols in (small, shown.shape))
        notes.append(
            f"{name}: images of {was} are less than a patch of {shown.patch_px} px and are enlarged "
            f"to {now}, which adds no detail."
        )
    for note in notes:
        if note not in told:
            told.add(note)
            warnings.warn(note, UnusualImagesWarning, stacklevel=3)


@dataclass(frozen=True)
class _Run:
    """What all rows of one evaluation share."""

    model: PretrainModel
    options: Options
    name: str
    showing: Showing
    results: Results | None
    recorded: Mapping[str, Any]
    batch_size: int

    def sources(
        self, data: LabelledImages, on_skip: Callable[[str], None]
    ) -> Iterator[tuple[str, Frozen, float]]:
        """Give what sees the images, by the model's name in the rows, at each scale."""
        config = self.model.config
        if self.showing.modality is None:
            chosen = modalities_for(config, data)
            for name in config.names:
                if name not in chosen:
                    on_skip(f"{data.name} lacks bands that modality {name!r} sees")
        else:
            chosen = (self.showing.modality,)
        # Once for all of them.
        statistics = functools.cache(data.statistics)
        shown = {name: bands_for(config, name, data) for name in chosen}
        found: list[tuple[str, Frozen]] = [
            (self.name, FrozenModel(self.model, data, name, statistics=statistics))
            for name in chosen
        ]
        if self.showing.floors:
            floor = untrained(self.model, seed=self.showing.seed)
            found += [
                (f"{self.name}, untrained", FrozenModel(floor, data, name, statistics=statistics))
                for name in chosen
            ]
            colours = dict.fromkeys(shown.values())
            found += [
                ("mean colour", MeanColour(data, bands, statistics=statistics)) for bands in colours
            ]
        for label, frozen in found:
            for scale in self.showing.scales:
                yield label, frozen, scale

    def rows(
        self,
        label: str,
        frozen: Frozen,
        scale: float,
        on_progress: StageProgress,
        on_skip: Callable[[str], None],
    ) -> list[Score]:
        """Give the rows of one encoder on one data set at one scale, computed if need be."""
        data = frozen.data
        counts = {split: len(data.split_indices(split)) for split in ("train", "test")}
        for split, count in counts.items():
            if not count:
                raise StoreError(f"{data.name} has no images in the split {split!r}.")
        identity: dict[str, Any] = {
            "model": label,
            "encoder": frozen.encoder,
            "dataset": data.name,
            "method": method_of(self.options),
            "num_train": counts["train"],
            "num_test": counts["test"],
            "gsd_m": frozen.gsd_m,
            "settings": self._settings(frozen, scale, counts["train"]),
            "weights_digest": frozen.weights_digest,
            "data_digest": data.digest,
        }
        metrics = METRICS[data.task]
        if self.results is not None:
            known = [self.results.find(key(metric=metric, **identity)) for metric in metrics]
            there = [row for row in known if row is not None]
            if len(there) == len(metrics):
                on_skip(f"{data.name} by {label} ({frozen.encoder}) is in {self.results.folder}")
                return there
        outcomes, chosen = outcomes_of(frozen, self.options, self.batch_size, on_progress)
        rows = []
        for metric in metrics:
            low, high = interval(metric, outcomes)
            value = measure(metric, outcomes)
            row = Score(metric=metric, value=value, low=low, high=high, chosen=chosen, **identity)
            rows.append(row)
            if self.results is not None:
                self.results.add(row, outcomes)
        return rows

    def _settings(self, frozen: Frozen, scale: float, num_train: int) -> dict[str, Any]:
        options = self.options
        if isinstance(options, KnnOptions):
            options = replace(options, k=min(options.k, num_train))
        settings = {
            **asdict(options),
            "image_px": list(frozen.shape),
            "scale": scale,
            "gsd": frozen.gsd_use,
            **self.recorded,
        }
        if isinstance(frozen, FrozenModel) and frozen.model is not self.model:
            settings["weights_seed"] = self.showing.seed
        # As JSON gives it back: a tuple would be another value than the list that is read.
        return {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
