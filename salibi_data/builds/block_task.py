"""One block on one worker: read under a deadline, written as a part, and an account of it.

The unit of work: it depends on its arguments alone, writes one file by its content's digest, and
may be done twice, or by two workers at once, without harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salibi_data.builds.blocks import Block, make_samples
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
    """What became of a block."""

    tile: str
    """Its first tile, ``zoom/column/row``."""
    samples: int
    """Planned; some may have been dropped."""
    seconds: float = 0.0
    num_bytes: int = 0
    """Read from http(s) sources."""
    num_requests: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    """Requests sent again, by kind of failure."""
    warnings: tuple[str, ...] = ()
    kind: str | None = None
    """Of the failure, if it failed."""
    reason: str | None = None


def make_part(
    workspace: BuildWorkspace,
    variant: Variant,
    catalog: Catalog,
    deadline_s: float,
    software: str,
    block: Block,
) -> BlockReport:
    """Make one block, in whatever process; a source that cannot be read is reported, not raised.

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
    begun_s, before = time.monotonic(), http.counters()
    kind = reason = None
    warnings: tuple[str, ...] = ()
    try:
        with rate_limits.deadline(deadline_s):
            samples = make_samples(variant, catalog, block)
        warnings = samples.warnings
        write_part(workspace.part(block.digest), samples)
    except ReadError as error:
        kind, reason = error.kind, str(error)
    except (GridError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        # An odd item or file among thousands must not end a build of days; the log says where.
        kind, reason = "unusable", f"{type(error).__name__}: {gdal.describe_error(error)}"
    read = http.counters() - before
    return BlockReport(
        tile=block.name,
        samples=len(block.choices),
        seconds=round(time.monotonic() - begun_s, 3),
        num_bytes=read.bytes,
        num_requests=read.requests,
        retries=dict(read.retries),
        warnings=warnings,
        kind=kind,
        reason=reason,
    )
