"""Options of publishing and pulling a release."""

from __future__ import annotations

from dataclasses import dataclass

from salibi_data.store.validation import check_options, option


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Options that ``publish`` and ``pull`` share.

    Raises:
        UsageError: a value has another type, or is out of its range.
    """

    workers: int = option(8, minimum=1, help="Files on their way at a time.")

    def __post_init__(self) -> None:
        check_options(self)
