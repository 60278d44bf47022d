"""Runs one block on one worker: reads under a deadline, writes a part, reports what happened.

The task depends on its arguments alone and writes one file that is named by a digest of its content.
It does no harm when it runs twice, or on two workers at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from salibi_data.builds.blocks import Block, left_out_warnings, make_samples, tile_name
from salibi_data.builds.parts import write_part
from salibi_data.sources import gdal, http, rate_limits
from salibi_data.store import __version__
from salibi_data.store.errors import GridError, ReadError, StoreError

if TYPE_CHECKING:
    from salibi_data.assembly.workspace import BuildWorkspace
    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.variants import Variant


@dataclass(frozen=True, kw_only=True)
class BlockReport:
    """Result of one block: finished, or failed and why."""

    tile: str
    """Name of the first tile, ``zoom/column/row``."""
    samples: int
    """Number of planned samples; filters may have dropped some."""
    seconds: float = 0.0
    num_bytes: int = 0
    """Bytes read from http(s) sources."""
    num_requests: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    """Number of requests sent again, by kind of failure."""
    warnings: tuple[str, ...] = ()
    replaced: tuple[Mapping[str, Any], ...] = ()
    """Samples made of other scenes than planned: ``tile``, ``sensor``, ``planned`` and ``used`` ids."""
    kind: str | None = None
    """Kind of the failure; None for a finished block."""
    reason: str | None = None


def run_block(
    workspace: BuildWorkspace,
    variant: Variant,
    catalog: Catalog,
    deadline_s: float,
    software: str,
    block: Block,
) -> BlockReport:
    """Make one block in this process; report a source that cannot be read instead of raising.

    Raises:
        StoreError: this worker does not see the folder that the build works in, or runs another
            version of this software.
    """
    if software != __version__:
        raise StoreError(
            f"a worker runs salibi {__version__} and the build {software}; bytes may differ. "
            "Install the same version on all machines."
        )
    if not workspace.parts.is_dir():
        raise StoreError(
            f"a worker does not see {workspace.parts}; --scheduler needs a folder that all "
            "machines share. Choose an output there."
        )
    started_s, before = time.monotonic(), http.counters()
    kind = reason = None
    warnings: tuple[str, ...] = ()
    replaced: tuple[Mapping[str, Any], ...] = ()
    try:
        with rate_limits.deadline(deadline_s):
            samples = make_samples(variant, catalog, block)
        warnings = *samples.warnings, *left_out_warnings(samples.left_out)
        replaced = tuple(
            {
                "tile": tile_name(block.choices[each.position].tile),
                "sensor": each.sensor,
                "planned": each.planned,
                "used": each.used,
            }
            for each in samples.replaced
        )
        write_part(workspace.part(block.digest), samples)
    except ReadError as error:
        kind, reason = error.kind, str(error)
    except (GridError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        # One unusable item among thousands must not end a build of days; the log names it.
        kind, reason = "unusable", f"{type(error).__name__}: {gdal.describe_error(error)}"
    read = http.counters() - before
    return BlockReport(
        tile=block.name,
        samples=len(block.choices),
        seconds=round(time.monotonic() - started_s, 3),
        num_bytes=read.bytes,
        num_requests=read.requests,
        retries=dict(read.retries),
        warnings=warnings,
        replaced=replaced,
        kind=kind,
        reason=reason,
    )
