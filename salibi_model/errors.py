"""Errors that the model half adds to the tree of :mod:`salibi_data.store.errors`."""

from __future__ import annotations

from salibi_data.store.errors import SalibiError


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
