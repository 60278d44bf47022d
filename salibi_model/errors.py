"""Every error the model half raises on purpose, in one tree.

A message says what was expected, what came, and what to do. The command line prints it as one
line and exits with :attr:`ModelError.exit_code`; nothing else is printed.
"""

from __future__ import annotations

from typing import Final


class ModelError(Exception):
    """Base of all errors the model half raises on purpose."""

    exit_code: int = 1


class UsageError(ModelError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code: int = 2


class StoreError(ModelError):
    """A store is missing, damaged, newer than this software, or lacks what is needed."""


class CheckpointError(ModelError):
    """A run folder or model folder is missing, damaged, or made for something else."""


class TrainingError(ModelError):
    """Training cannot go on: the loss is not finite, or the run has nothing to train on."""


class StoppedError(TrainingError):
    """A signal asked the run to stop; what it had learned was kept."""

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
