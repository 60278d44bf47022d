"""Errors that the model half adds to the tree of :mod:`salibi_data.store.errors`."""

from __future__ import annotations

from typing import Final

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


_MAX_LINE_LENGTH: Final = 300
"""Longest first line of an error that is repeated whole, in characters."""


def first_line(error: BaseException) -> str:
    """Give an error's first line without its full stop, or its type's name where it is empty.

    For repeating an error of another library within a message of this one.
    """
    line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return line if len(line) <= _MAX_LINE_LENGTH else f"{line[:_MAX_LINE_LENGTH]} ..."
