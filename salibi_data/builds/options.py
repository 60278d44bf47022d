"""Options of a build: those of its plan, and how the work is done."""

from __future__ import annotations

from dataclasses import dataclass

from salibi_data.plans.options import PlanOptions
from salibi_data.store.validation import option


@dataclass(frozen=True, kw_only=True)
class BuildOptions(PlanOptions):
    """Options of the command ``salibi-data build``."""

    workers: int = option(1, minimum=1, help="Processes on this machine.")
    scheduler: str | None = option(
        None, metavar="ADDRESS", help="Dask scheduler whose workers do it instead."
    )
    block_deadline_s: float = option(
        900.0,
        minimum=1.0,
        finite=False,
        flag="--block-deadline",
        metavar="SECONDS",
        unit="s",
        help="Time limit for all reads of 4 x 4 tiles.",
    )
