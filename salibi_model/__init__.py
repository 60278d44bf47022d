"""Scale-ALiBi: train on Salibi stores, evaluate, and give out embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from salibi_model.interface import PretrainModel

__all__ = ["load"]


def load(path: str | Path, *, device: str | torch.device = "cpu") -> PretrainModel:
    """Load a trained model, ready for :meth:`~salibi_model.interface.PretrainModel.encode`.

    Args:
        path: a run's folder (as ``salibi-model train`` writes it), or its ``model/`` folder.
        device: where the weights go: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there
            is one.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: there is no model at ``path``, or it is damaged.
        UsageError: there is no such device.

    Example:
        >>> tokens, embedding = salibi_model.load("runs/tiny").encode(images, "sar")
    """
    from salibi_model.checkpoints import load_model

    return load_model(path, device=device)
