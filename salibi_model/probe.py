"""A small look at labelled images while a model trains: nearest neighbours in its features."""

import numpy as np
import torch

from salibi_model import distributed
from salibi_model.errors import UsageError
from salibi_model.features import FrozenModel, features
from salibi_model.interface import PretrainModel
from salibi_model.knn import KnnOptions, knn_predict
from salibi_model.labelled import open_labelled
from salibi_model.settings import TrainingConfig
from salibi_model.shown import modalities_for


class Probe:
    """Classifies the validation images of a data set by their nearest training images.

    The test images are left for evaluation.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        """Open the data set ``config.probe``.

        Raises:
            UsageError: its images are not sorted into classes, one each.
            StoreError: it cannot be read.
        """
        self._data = open_labelled(config.probe, gsd_m=config.probe_gsd_m or None)
        self._device = device
        if self._data.task != "classification":
            raise UsageError(
                f"{config.probe} is for {self._data.task}; a probe needs images of one class each. "
                "Name a classification task."
            )

    def __call__(self, model: PretrainModel) -> dict[str, float]:
        """Give the accuracy by each encoder that can see the images, ``probe_lores`` and so on.

        The first process measures; the others wait.

        Raises:
            UsageError: no encoder of the model sees the bands of the images.
        """
        found: dict[str, float] = {}
        if distributed.rank() == 0:
            was_training = model.training
            model.eval()
            for name in modalities_for(model.config, self._data):
                found[f"probe_{name}"] = self._accuracy(FrozenModel(model, self._data, name))
            model.train(was_training)
        distributed.wait_for_all()
        return found

    def _accuracy(self, frozen: FrozenModel) -> float:
        known, asked = features(frozen, "train"), features(frozen, "validation")
        predicted = knn_predict(
            known.vectors,
            known.labels,
            asked.vectors,
            KnnOptions(),
            num_classes=len(self._data.classes),
            device=self._device,
        )
        return float(np.mean(predicted == asked.labels))
