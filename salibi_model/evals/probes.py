"""Runs one method of evaluation, and returns the outcome of each test image."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from salibi_data.store.progress import StageProgress
from salibi_model.evals.features import Features, FrozenEncoder, FrozenModel, extract_features
from salibi_model.evals.knn import knn_predict
from salibi_model.evals.linear_probe import choose_linear
from salibi_model.evals.metrics import Outcomes, label_counts
from salibi_model.evals.options import KnnOptions, LinearOptions, SegmentOptions
from salibi_model.evals.segmentation import LabelledTokens, count_pixels, fit_head

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import Split

ProbeOptions = KnnOptions | LinearOptions | SegmentOptions
"""Options of a method; their type says which method it is."""


def method_name(options: ProbeOptions) -> str:
    """Return the name of the method that the options belong to."""
    match options:
        case KnnOptions():
            return "knn"
        case LinearOptions():
            return "linear"
        case SegmentOptions():
            return f"segment-{options.head}"


def probe_outcomes(
    frozen: FrozenEncoder, options: ProbeOptions, batch_size: int, on_progress: StageProgress
) -> tuple[Outcomes, dict[str, Any]]:
    """Return the outcome of each test sample, and the settings that the method chose by itself.

    Args:
        frozen: the encoder, with its data.
        options: options of the method.
        batch_size: images encoded at a time.
        on_progress: progress of encoding, and of training a head.

    Returns:
        Outcomes as defined in :mod:`salibi_model.evals.metrics`, and the settings chosen on
        validation images by name.

    Raises:
        CheckpointError: features are not finite.
        StoreError: an image cannot be read.
    """
    data = frozen.data
    num_classes = len(data.classes)
    device = _probe_device(frozen)
    if isinstance(options, SegmentOptions):
        return _segmentation_outcomes(frozen, options, batch_size, on_progress), {}
    splits: tuple[Split, ...] = ("train", "test")
    if isinstance(options, LinearOptions):
        splits = ("train", "validation", "test")
    total = sum(len(data.split_indices(split)) for split in splits)
    advance = _counter(on_progress, total, f" {data.name} {frozen.encoder}")
    features = {
        split: extract_features(frozen, split, batch_size=batch_size, on_image=advance)
        for split in splits
    }
    train, test = features["train"], features["test"]
    chosen: dict[str, Any] = {}
    if isinstance(options, LinearOptions):
        probe = choose_linear(
            _pair(train),
            _pair(features["validation"]),
            options,
            num_classes=num_classes,
            device=device,
        )
        predicted, chosen = probe.predict(test.vectors), {"c": probe.c}
    else:
        predicted = knn_predict(
            *_pair(train), test.vectors, options, num_classes=num_classes, device=device
        )
    if data.task == "multilabel":
        return label_counts(test.labels, predicted), chosen
    return (predicted == test.labels).astype(np.int64), chosen


def _segmentation_outcomes(
    frozen: FrozenEncoder, options: SegmentOptions, batch_size: int, on_progress: StageProgress
) -> Outcomes:
    num_classes = len(frozen.data.classes)
    note = f" {frozen.data.name} {frozen.encoder}"
    train = LabelledTokens(frozen, "train", batch_size=batch_size)
    head = fit_head(
        train,
        options,
        num_classes=num_classes,
        device=_probe_device(frozen),
        on_step=lambda done, total: on_progress(done, total, f"{note}, steps"),
    )
    num_test = len(frozen.data.split_indices("test"))
    advance = _counter(on_progress, num_test, note)
    test = LabelledTokens(frozen, "test", batch_size=batch_size, cache_bytes=0, on_image=advance)
    return count_pixels(head, test, num_classes=num_classes, batch_size=options.batch_size)


def _pair(features: Features) -> tuple[np.ndarray, np.ndarray]:
    return features.vectors, features.labels


def _counter(on_progress: StageProgress, total: int, note: str) -> Callable[[int], None]:
    """Return a function that adds to a count and reports the sum."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total, note)

    return advance


def _probe_device(frozen: FrozenEncoder) -> torch.device:
    """Device of the probes: the model's, except on Apple's GPUs, which have no double precision."""
    if not isinstance(frozen, FrozenModel):
        return torch.device("cpu")
    device = next(frozen.model.parameters()).device
    return torch.device("cpu") if device.type == "mps" else device
