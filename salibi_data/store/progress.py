"""Callbacks that long work calls as it proceeds."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable  # the tests check annotations as they run
class Progress(Protocol):
    """Receives how much of the work is done."""

    def __call__(self, done: int, total: int, /) -> None:
        """Take note that ``done`` of ``total`` units are done; the function called names the unit."""


@runtime_checkable
class StageProgress(Protocol):
    """Receives how much of each stage of the work is done."""

    def __call__(self, done: int, total: int, stage: str, /) -> None:
        """Take note that ``done`` of ``total`` units of the stage are done."""
