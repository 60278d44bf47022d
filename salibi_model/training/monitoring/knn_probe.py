"""Accuracy on labelled images during training, by nearest neighbours in a model's features."""

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from salibi_data.store.errors import StoreError, UsageError
from salibi_model import distributed
from salibi_model.evals.datasets.inputs import modalities_for
from salibi_model.evals.datasets.open import open_labelled
from salibi_model.evals.features import FrozenModel, extract_features
from salibi_model.evals.knn import knn_predict
from salibi_model.evals.options import KnnOptions
from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig
from salibi_model.training.config import TrainingConfig

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import Split


class Probe:
    """Classifies the validation images of a data set by their nearest training images.

    It leaves the test images for evaluation.
    """

    def __init__(
        self, config: TrainingConfig, model_config: ModelConfig, device: torch.device
    ) -> None:
        """Open the data set ``config.probe``.

        Raises:
            UsageError: its images are not sorted into two classes or more, one each; or no encoder
                of the model sees their bands.
            StoreError: it cannot be read, or has no images to learn from or to ask about.
        """
        self._data = open_labelled(config.probe, gsd_m=config.probe_gsd_m or None)
        self._device = device
        if self._data.task != "classification":
            raise UsageError(
                f"{config.probe} is for {self._data.task}; a probe needs images of one class each. "
                "Name a classification task."
            )
        splits: tuple[Split, ...] = ("train", "validation")
        for split in splits:
            if not len(self._data.split_indices(split)):
                raise StoreError(
                    f"{config.probe} has no images in the split {split!r}, which a probe needs; take "
                    "other labelled images."
                )
            self._data.check_classes(split)
        self._encoders = modalities_for(model_config, self._data)
        self._statistics = functools.cache(self._data.statistics)

    def __call__(self, model: PretrainModel) -> dict[str, float]:
        """Give the accuracy by each encoder that can see the images, ``probe_lores`` and so on.

        The first process measures; the others wait.
        """
        accuracies: dict[str, float] = {}
        if distributed.rank() == 0:
            was_training = model.training
            model.eval()
            try:
                for name in self._encoders:
                    frozen = FrozenModel(model, self._data, name, statistics=self._statistics)
                    accuracies[f"probe_{name}"] = self._accuracy(frozen)
            finally:
                model.train(was_training)
        distributed.wait_for_all()
        return accuracies

    def _accuracy(self, frozen: FrozenModel) -> float:
        train = extract_features(frozen, "train")
        validation = extract_features(frozen, "validation")
        predicted = knn_predict(
            train.vectors,
            train.labels,
            validation.vectors,
            KnnOptions(),
            num_classes=len(self._data.classes),
            device=self._device,
        )
        return float(np.mean(predicted == validation.labels))
