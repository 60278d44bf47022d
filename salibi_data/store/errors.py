"""Every error the data half raises on purpose, in one tree.

A message says what was expected, what came, and what to do. The command line prints it as one
line and exits with :attr:`SalibiError.exit_code`; nothing else is printed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

ReadKind = Literal[
    "missing",
    "forbidden",
    "throttled",
    "server",
    "timeout",
    "connection",
    "token",
    "damaged",
    "unusable",
]
"""Why a source could not be read.

``missing``: no such file or asset. ``forbidden``: refused, with a new token too. ``throttled``: 429
or 503 to the end. ``server``: another 5xx. ``timeout``: a stall, or the deadline. ``connection``:
refused, reset or cut short. ``token``: none to be had. ``damaged``: not to be decoded, or changed
while it was read. ``unusable``: readable, but nothing that can be used.
"""


class SalibiError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SalibiError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code: ClassVar[int] = 2


class GridError(SalibiError):
    """Tiles, zooms or bounds that do not fit the XYZ grid."""


class CatalogError(SalibiError):
    """A catalog cannot be reached, or an item of it cannot be used."""


class SelectionError(SalibiError):
    """No scenes, or no tiles, are left."""


class PlanError(SalibiError):
    """A plan file is missing, damaged, or made for something else."""


class ReadError(SalibiError):
    """A source file is missing, truncated, or not what the catalog says. Never nodata."""

    def __init__(self, message: str, *, kind: ReadKind = "damaged") -> None:
        super().__init__(message)
        self.kind: ReadKind = kind


class StoreError(SalibiError):
    """A store cannot be read, or holds something else than what is to be written."""


class VerificationError(SalibiError):
    """A store does not hold what it promises."""
