"""Errors of the model half, in the one tree of :mod:`salibi_data.store.errors`.

``SalibiError``, ``StoreError`` and ``UsageError`` are those of the floor: they are named here as well, so
that users of the model half find every error that it raises in one place.
"""

from __future__ import annotations

from salibi_data.store.errors import SalibiError, StoreError, UsageError

__all__ = [
    "CheckpointError",
    "SalibiError",
    "StoppedError",
    "StoreError",
    "TrainingError",
    "UsageError",
]


class CheckpointError(SalibiError):
    """A run folder or model folder is missing, damaged, or made for something else."""


class TrainingError(SalibiError):
    """Training cannot continue: the loss is not finite, or there is no data to train on."""


class StoppedError(TrainingError):
    """A signal ended the run; its last state was saved.

    Args:
        message: text for the user.
        signal_number: number of the signal; the exit code is 128 more, as shells report it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
