"""Evaluates the frozen features of a model: one row of results per data set, encoder and scale.

Retrieval, which needs no labels, is in :mod:`salibi_model.evals.retrieval`.
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
from salibi_data.store.validation import check_applicable, given_options
from salibi_model.checkpoints.load import load
from salibi_model.evals.datasets.image_units import check_units
from salibi_model.evals.datasets.inputs import UnfitError, bands_for, modalities_for
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.evals.features import FrozenEncoder, FrozenModel, MeanColour, untrained_model
from salibi_model.evals.metrics import Score, bootstrap_interval, metric_value, score_key
from salibi_model.evals.options import (
    FLOORS,
    EvalOptions,
    InputOptions,
    KnnOptions,
    SegmentOptions,
)
from salibi_model.evals.probes import ProbeOptions, method_name, probe_outcomes
from salibi_model.evals.results import Results
from salibi_model.models.base import PretrainModel
from salibi_model.models.compatibility import gsd_mismatch

METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multilabel": ("f1-micro", "f1-macro"),
    "segmentation": ("miou",),
}
"""Metrics by the kind of task."""


class UnusualImagesWarning(UserWarning):
    """Images differ from those a model was trained for: far GSDs, or smaller than a patch."""


def evaluate(
    checkpoint: str | Path | PretrainModel,
    data: Sequence[LabelledImages],
    options: ProbeOptions,
    *,
    name: str,
    inputs: InputOptions | None = None,
    results: Results | None = None,
    recorded: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = EvalOptions.batch_size,
    on_progress: StageProgress = lambda _done, _total, _note: None,
    on_skip: Callable[[str], None] = lambda _reason: None,
) -> list[Score]:
    """Evaluate a model's frozen features by one method.

    Images far from the ground sample distances of the training are evaluated nevertheless, as
    published tables do, and images smaller than a patch are enlarged; both are warned of once.

    Args:
        checkpoint: a run's or model's folder, or a model.
        data: labelled images; of several data sets, those that do not fit are skipped.
        options: options of the method: ``KnnOptions``, ``LinearOptions`` or ``SegmentOptions``.
        name: name of the model in the rows.
        inputs: sizes of the images, and encoders; ``None``: as they are, by every encoder.
        results: folder that rows are written to, and taken from if they were computed before.
        recorded: further entries for a row's ``settings``, such as the partition.
        device: device to compute on, if a folder is given.
        batch_size: images encoded at a time.
        on_progress: progress of encoding, and of training a head.
        on_skip: called with the reason why something was not evaluated.

    Returns:
        A row per data set, encoder, scale and metric, computed now or before.

    Raises:
        UsageError: nothing fits, or all images of a split have one class.
        CheckpointError: there is no model, or its features are not finite.
        StoreError: a split is empty, or an image cannot be read.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from salibi_model.evals.datasets.open import open_labelled
        >>> rng = np.random.default_rng(0)
        >>> for name, colour in (("forest", (40, 80, 30)), ("water", (20, 50, 120))):
        ...     (folder / "images" / name).mkdir(parents=True)
        ...     for number in range(10):
        ...         pixels = rng.normal(colour, 4, (64, 64, 3)).astype(np.uint8)
        ...         Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
        >>> data = open_labelled(folder / "images", gsd_m=3.7)
        >>> inputs = InputOptions(modality="lores")
        >>> (score,) = evaluate(run_path, [data], KnnOptions(k=3), name="demo", inputs=inputs)
        >>> score.method, score.metric, score.num_train, score.num_test, 0 <= score.value <= 1
        ('knn', 'accuracy', 12, 4, True)
    """
    inputs = inputs or InputOptions()
    _check_inputs(inputs, options)
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = load(model, device=device)
    run = _Run(model, options, name, inputs, results, dict(recorded or {}), batch_size)
    scores: list[Score] = []
    warned: set[str] = set()
    skips_unfit = len(data) * len(inputs.scales) > 1
    for dataset in data:
        try:
            check_task(options, dataset)
            encoders = list(run.encoders(dataset, on_skip))
        except UnfitError as error:
            if not skips_unfit:
                raise
            on_skip(str(error))
            continue
        for label, frozen, scale in encoders:
            try:
                resized = frozen.at(scale=scale, image_px=inputs.image_px)
            except UnfitError as error:
                if not skips_unfit:
                    raise
                on_skip(str(error))
            else:
                _warn_of_unusual(resized, warned)
                scores += run.rows(label, resized, scale, on_progress, on_skip)
    if not scores:
        names = ", ".join(dataset.name for dataset in data) or "no data"
        raise UsageError(
            f"none of {names} fits {method_name(options)} and the model; take other data, another "
            "modality or scale."
        )
    return scores


def _check_inputs(inputs: InputOptions, options: ProbeOptions) -> None:
    """Refuse a seed where nothing is drawn at random."""
    if not inputs.floors and not isinstance(options, SegmentOptions):
        absent = {FLOORS: "none are measured without --floors"}
        check_applicable(InputOptions, given_options(inputs), absent)


def check_task(options: ProbeOptions, data: LabelledImages) -> None:
    """Refuse data whose labels are of another kind than the method predicts, or all the same.

    Raises:
        UnfitError: the labels are of another kind.
        UsageError: all training or all test images have one class.
        StoreError: a label cannot be read.
    """
    segments = isinstance(options, SegmentOptions)
    if segments != (data.task == "segmentation"):
        command = "eval knn or eval linear" if segments else "eval segment"
        raise UnfitError(
            f"{data.name} is a {data.task} task, which {method_name(options)} does not measure; "
            f"take `salibi-model {command}`."
        )
    if not segments:
        data.check_classes("train")
        data.check_classes("test")


def _warn_of_unusual(frozen: FrozenEncoder, warned: set[str]) -> None:
    """Warn of images that a model was not trained for, unless ``warned`` has the warning."""
    # Baselines see the same images: one warning is enough.
    if not isinstance(frozen, FrozenModel):
        return
    name, notes = frozen.data.name, []
    if far := gsd_mismatch(frozen.model.config, frozen.encoder, frozen.gsd_m):
        notes.append(f"{name}: {far} for figures that the training speaks for.")
    if small := frozen.enlarged_from:
        before, after = (f"{rows} x {cols} px" for rows, cols in (small, frozen.shape))
        notes.append(
            f"{name}: images of {before} are less than a patch of {frozen.patch_px} px and are "
            f"enlarged to {after}, which adds no detail."
        )
    for note in notes:
        if note not in warned:
            warned.add(note)
            warnings.warn(note, UnusualImagesWarning, stacklevel=3)


@dataclass(frozen=True)
class _Run:
    """One evaluation: the model and the settings that all its rows share."""

    model: PretrainModel
    options: ProbeOptions
    name: str
    inputs: InputOptions
    results: Results | None
    recorded: Mapping[str, Any]
    batch_size: int

    def encoders(
        self, data: LabelledImages, on_skip: Callable[[str], None]
    ) -> Iterator[tuple[str, FrozenEncoder, float]]:
        """Yield (model's name in the rows, encoder, scale) for all encoders, then baselines."""
        config = self.model.config
        if self.inputs.modality is None:
            modalities = modalities_for(config, data)
            for name in config.names:
                if name not in modalities:
                    on_skip(f"{data.name} lacks bands that modality {name!r} sees")
        else:
            modalities = (self.inputs.modality,)
        # Cached: all encoders of the same bands share the statistics, which may be measured.
        statistics = functools.cache(data.statistics)
        bands_by_modality = {name: bands_for(config, name, data) for name in modalities}
        for name, bands in bands_by_modality.items():
            check_units(data, config[name], bands)
        encoders: list[tuple[str, FrozenEncoder]] = [
            (self.name, FrozenModel(self.model, data, name, statistics=statistics))
            for name in modalities
        ]
        if self.inputs.floors:
            random_model = untrained_model(self.model, seed=self.inputs.seed)
            encoders += [
                (
                    f"{self.name}, untrained",
                    FrozenModel(random_model, data, name, statistics=statistics),
                )
                for name in modalities
            ]
            encoders += [
                ("mean colour", MeanColour(data, bands, statistics=statistics))
                for bands in dict.fromkeys(bands_by_modality.values())
            ]
        for label, frozen in encoders:
            for scale in self.inputs.scales:
                yield label, frozen, scale

    def rows(
        self,
        label: str,
        frozen: FrozenEncoder,
        scale: float,
        on_progress: StageProgress,
        on_skip: Callable[[str], None],
    ) -> list[Score]:
        """Return the rows of one encoder on one data set at one scale, from the results if there."""
        data = frozen.data
        counts = {split: len(data.split_indices(split)) for split in ("train", "test")}
        for split, count in counts.items():
            if not count:
                raise StoreError(f"{data.name} has no images in the split {split!r}.")
        identity: dict[str, Any] = {
            "model": label,
            "encoder": frozen.encoder,
            "dataset": data.name,
            "method": method_name(self.options),
            "num_train": counts["train"],
            "num_test": counts["test"],
            "gsd_m": frozen.gsd_m,
            "settings": self._settings(frozen, scale, counts["train"]),
            "weights_digest": frozen.weights_digest,
            "data_digest": data.digest,
        }
        metrics = METRICS[data.task]
        if self.results is not None:
            known = [self.results.find(score_key(metric=metric, **identity)) for metric in metrics]
            computed = [row for row in known if row is not None]
            if len(computed) == len(metrics):
                on_skip(f"{data.name} by {label} ({frozen.encoder}) is in {self.results.folder}")
                return computed
        outcomes, chosen = probe_outcomes(frozen, self.options, self.batch_size, on_progress)
        rows = []
        for metric in metrics:
            low, high = bootstrap_interval(metric, outcomes)
            value = metric_value(metric, outcomes)
            row = Score(metric=metric, value=value, low=low, high=high, chosen=chosen, **identity)
            rows.append(row)
            if self.results is not None:
                self.results.add(row, outcomes)
        return rows

    def _settings(self, frozen: FrozenEncoder, scale: float, num_train: int) -> dict[str, Any]:
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
            settings["weights_seed"] = self.inputs.seed
        # Lists, as JSON returns them: a row that is read back must equal one that is computed.
        return {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
