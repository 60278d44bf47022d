"""Scale-ALiBi: train on Salibi stores, evaluate, and give out embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from salibi_model.models.base import PretrainModel

__all__ = ["load"]


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    expect: Mapping[str, Mapping[str, Any]] | None = None,
) -> PretrainModel:
    """Load a trained model, ready for :meth:`~salibi_model.models.base.PretrainModel.encode`.

    Args:
        path: a run's folder (as ``salibi-model train`` writes it), or its ``model/`` folder.
        device: where the weights go: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there
            is one.
        expect: by modality, what the images that will be encoded are: ``{"lores": {"bands": ("red",
            "green", "blue"), "units": "display", "gsd_m": 10.0}}``, each of these if known. A model
            that was trained on something else is refused.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: there is no model at ``path``, or it is damaged.
        UsageError: there is no such device, or the model was trained on other bands or units, or
            far from this ground sample distance.

    Example:
        >>> tokens, embedding = salibi_model.load("runs/tiny").encode(images, "sar")
    """
    from salibi_model.checkpoints.files import load_model
    from salibi_model.models.compatibility import check_expected

    model = load_model(path, device=device)
    check_expected(model.config, {} if expect is None else expect)
    return model
