"""Every error that either half raises on purpose, in one tree.

A message says what was expected, what came, and what to do. The command line prints it as one
line and exits with :attr:`SalibiError.exit_code`; it prints no traceback. The model half adds
errors of checkpoints and training to this tree, in :mod:`salibi_model.errors`.
"""

from __future__ import annotations

from typing import Literal

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
"""Reason why a source could not be read.

- ``missing``: no such file or asset.
- ``forbidden``: refused, also with a new token.
- ``throttled``: every attempt was answered with 429 or 503.
- ``server``: another 5xx status.
- ``timeout``: the transfer stalled, or the deadline passed.
- ``connection``: refused, reset or cut short.
- ``token``: no access token could be obtained.
- ``damaged``: not decodable, or changed while it was read.
- ``unusable``: readable, but without usable pixels.
"""


class SalibiError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: int = 1
    """Exit code of the command that ends with this error."""


class UsageError(SalibiError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code = 2


class GridError(SalibiError):
    """Tiles, zooms or bounds do not fit the XYZ grid."""


class CatalogError(SalibiError):
    """A catalog cannot be reached, or one of its items cannot be used."""


class SelectionError(SalibiError):
    """No scenes, or no tiles, are left."""


class PlanError(SalibiError):
    """A plan file is missing, damaged, or made for something else."""


class ReadError(SalibiError):
    """A source file is missing, truncated, or not what the catalog says. Never nodata.

    Args:
        message: text for the user.
        kind: reason, for counting failures and for deciding what to try again.
        from_host: whether the reason is what a host answered, and not what the file holds.
    """

    def __init__(
        self, message: str, *, kind: ReadKind = "damaged", from_host: bool = False
    ) -> None:
        super().__init__(message)
        self.kind: ReadKind = kind
        self.from_host = from_host


class StoreError(SalibiError):
    """A store is missing, unreachable, damaged, of a newer schema, or holds something else."""


class VerificationError(SalibiError):
    """A store does not match its manifest, its schema or its sources."""
