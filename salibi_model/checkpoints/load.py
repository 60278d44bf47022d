"""Load a trained model for use, and check that it fits the caller's images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from salibi_model.checkpoints.files import load_model
from salibi_model.models.base import PretrainModel
from salibi_model.models.compatibility import check_expected


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    expect: Mapping[str, Mapping[str, Any]] | None = None,
) -> PretrainModel:
    """Load a trained model, ready for :meth:`~salibi_model.models.base.PretrainModel.encode`.

    Args:
        path: folder of a run, as ``salibi-model train`` writes it, or its ``model/`` folder.
        device: device of the weights: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where
            there is one.
        expect: description of the images to be encoded, by modality, each entry where known:
            ``{"lores": {"bands": ("red", "green", "blue"), "units": "display", "gsd_m": 10.0}}``.
            A model that was trained on other images is refused.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: there is no model at ``path``, or it is damaged.
        UsageError: there is no such device, or the model was trained on other bands or units, or
            far from this ground sample distance.

    Example:
        >>> model = salibi_model.load(run_path)
        >>> tokens, embedding = model.encode(torch.zeros(1, 2, 256, 256), "sar")
        >>> tokens.shape[:2], embedding.shape[0]
        (torch.Size([1, 256]), 1)
    """
    model = load_model(path, device=device)
    check_expected(model.config, {} if expect is None else expect)
    return model
