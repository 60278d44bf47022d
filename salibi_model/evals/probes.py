"""What comes out for each test image, by each method of evaluating frozen features."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from salibi_data.store.progress import StageProgress
from salibi_model.evals.features import Features, Frozen, FrozenModel, features
from salibi_model.evals.knn import KnnOptions, knn_predict
from salibi_model.evals.linear_probe import LinearOptions, choose_linear
from salibi_model.evals.metrics import Outcomes, label_counts
from salibi_model.evals.segmentation import LabelledTokens, SegmentOptions, count_pixels, fit_head

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import Split

Options = KnnOptions | LinearOptions | SegmentOptions


def method_of(options: Options) -> str:
    """Give the name of the method whose options these are."""
    match options:
        case KnnOptions():
            return "knn"
        case LinearOptions():
            return "linear"
        case SegmentOptions():
            return f"segment-{options.head}"


def outcomes_of(
    frozen: Frozen, options: Options, batch_size: int, on_progress: StageProgress
) -> tuple[Outcomes, dict[str, Any]]:
    """Give what came out for each test sample, and what the method chose by itself.

    Args:
        frozen: what gives features, with its data.
        options: of the method, and which method it is.
        batch_size: images encoded at a time.
        on_progress: told about images encoded and steps of training.

    Returns:
        Outcomes as :mod:`salibi_model.evals.metrics` measures them; what was chosen on validation images.

    Raises:
        CheckpointError: features are not finite.
        StoreError: an image cannot be read.
    """
    data = frozen.data
    num_classes = len(data.classes)
    device = _probe_device(frozen)
    if isinstance(options, SegmentOptions):
        return _segmented(frozen, options, batch_size, on_progress), {}
    splits: tuple[Split, ...] = ("train", "test")
    if isinstance(options, LinearOptions):
        splits = ("train", "validation", "test")
    total = sum(len(data.split_indices(split)) for split in splits)
    advance = _counter(on_progress, total, f" {data.name} {frozen.encoder}")
    seen = {
        split: features(frozen, split, batch_size=batch_size, on_image=advance) for split in splits
    }
    train, test = seen["train"], seen["test"]
    chosen: dict[str, Any] = {}
    if isinstance(options, LinearOptions):
        probe = choose_linear(
            _pair(train), _pair(seen["validation"]), options, num_classes=num_classes, device=device
        )
        predicted, chosen = probe.predict(test.vectors), {"c": probe.c}
    else:
        predicted = knn_predict(
            *_pair(train), test.vectors, options, num_classes=num_classes, device=device
        )
    if data.task == "multilabel":
        return label_counts(test.labels, predicted), chosen
    return (predicted == test.labels).astype(np.int64), chosen


def _segmented(
    frozen: Frozen, options: SegmentOptions, batch_size: int, on_progress: StageProgress
) -> Outcomes:
    num_classes = len(frozen.data.classes)
    words = f" {frozen.data.name} {frozen.encoder}"
    train = LabelledTokens(frozen, "train", batch_size=batch_size)
    head = fit_head(
        train,
        options,
        num_classes=num_classes,
        device=_probe_device(frozen),
        on_step=lambda done, total: on_progress(done, total, f"{words}, steps"),
    )
    num_test = len(frozen.data.split_indices("test"))
    advance = _counter(on_progress, num_test, words)
    test = LabelledTokens(frozen, "test", batch_size=batch_size, cache_bytes=0, on_image=advance)
    return count_pixels(head, test, num_classes=num_classes, batch_size=options.batch_size)


def _pair(seen: Features) -> tuple[np.ndarray, np.ndarray]:
    return seen.vectors, seen.labels


def _counter(on_progress: StageProgress, total: int, note: str) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total, note)

    return advance


def _probe_device(frozen: Frozen) -> torch.device:
    """Where probes are computed: with the model, but for Apple's GPUs, which have no doubles."""
    if not isinstance(frozen, FrozenModel):
        return torch.device("cpu")
    device = next(frozen.model.parameters()).device
    return torch.device("cpu") if device.type == "mps" else device
