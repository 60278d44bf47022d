"""How long a build takes, and what it costs: work to do, what a unit of it takes, and limits.

A closed formula. Blocks are thousands of equal tasks without an order, so workers are busy until
the end, and what counts is their total work, or else the narrowest limit that they share.
`benchmarks/data/continent.py` measures the units, predicts a build with them, and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from salibi_data.sources.rate_limits import HttpSettings
from salibi_data.store.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a build does, whoever does it."""

    num_read: int
    """Tiles that are read, aligned and filtered."""
    num_kept: int
    """Samples that the store has in the end."""
    num_files: int
    """Times that a source's file is opened: once per block of tiles, scene and asset."""
    num_warped_px: int
    """Values that are warped: a block's whole rectangle, whether or not all its tiles are wanted."""
    source_bytes: int
    source_requests: int
    store_bytes: int
    """Before compression."""
    read_usd: float = 0.0
    """What the sources' owners ask for it."""


@dataclass(frozen=True, kw_only=True)
class UnitCosts:
    """What a worker of one core takes; measured by ``benchmarks/data/continent.py``, and its defaults.

    All but the round trips are processor seconds. They are fitted together to the blocks of small builds:
    from one run to the next what is said of files, megabytes, values and samples moves between them,
    and their sum less.
    """

    round_trips_per_file: float = 1.2
    """Times that an answer is waited for: a file's header, then its blocks, many side by side."""
    s_per_file: float = 0.010
    """To open it and to read its header."""
    s_per_mb: float = 0.010
    """To decode, by the megabytes that are read."""
    s_per_warped_mpx: float = 0.005
    """To warp a million values."""
    s_per_sample: float = 0.006
    """To measure its alignment, to filter, compress and keep one."""
    s_per_kept: float = 0.025
    """To put one into its shard, and to note its statistics and checksums."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Who builds, how far from the sources, within which limits, at which prices."""

    workers: int = 8
    """Processes of one core each."""
    latency_s: float = 0.05
    """From a request to the first byte of its answer; assumed, as within a continent."""
    read_bytes_per_s: float = 8e6
    """What a worker reads from the sources; assumed: eight fill half a gigabit."""
    parallel: int = HttpSettings.parallel
    """Requests in flight by all workers together, see :class:`~salibi_data.sources.rate_limits.HttpSettings`."""
    requests_per_s: float = 5500.0
    """What a host answers. Amazon S3 promises as many per prefix of a bucket ("Best practices design
    patterns: optimizing Amazon S3 performance", docs.aws.amazon.com), Azure 20,000 per account
    ("Scalability and performance targets for standard storage accounts", learn.microsoft.com);
    both read in November 2026. The lesser counts."""
    host_bytes_per_s: float = 6.25e9
    """What a host gives to all: 50 Gbit/s, Azure's least for an account (the same page)."""
    usd_per_worker_hour: float = 0.05
    """Of a core with its memory, as clouds ask on demand; assumed."""
    usd_per_gb_month: float = 0.023
    """To keep the store; assumed, of the order of S3's and Azure's standard classes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, free = getattr(self, field.name), field.name.startswith(("usd", "latency"))
            if not (math.isfinite(value) and (value >= 0 if free else value > 0)):
                wanted = "at least 0" if free else "above 0"
                raise UsageError(f"{field.name} is {value}; expected a number {wanted}.")


@dataclass(frozen=True, kw_only=True)
class Outlay:
    """What some work takes under some conditions."""

    hours: float
    limited_by: str
    """``workers``, where more of them would help; else which limit they share."""
    compute_usd: float
    read_usd: float
    store_usd_per_month: float

    @property
    def usd(self) -> float:
        """To build it, without keeping it."""
        return self.compute_usd + self.read_usd


def outlay(work: Work, conditions: Conditions, costs: UnitCosts | None = None) -> Outlay:
    """Hours and money of a build.

    A worker reads a block, then computes: both add up. All workers together are bound by the
    requests that may be in flight, and by what the host answers and sends.

    Args:
        work: what is to be done.
        conditions: by whom, and within which limits.
        costs: of a unit; by default those of the machine the benchmark's report is of.
    """
    costs = costs or UnitCosts()
    waiting_s = work.num_files * costs.round_trips_per_file * conditions.latency_s
    reading_s = work.source_bytes / conditions.read_bytes_per_s
    computing_s = (
        work.num_files * costs.s_per_file
        + work.source_bytes / 1e6 * costs.s_per_mb
        + work.num_warped_px / 1e6 * costs.s_per_warped_mpx
        + work.num_read * costs.s_per_sample
    )
    in_flight_s = work.source_requests * conditions.latency_s + reading_s
    making_s = {
        "workers": (waiting_s + reading_s + computing_s) / conditions.workers,
        "requests in flight": in_flight_s / conditions.parallel,
        "requests per second": work.source_requests / conditions.requests_per_s,
        "the host's bandwidth": work.source_bytes / conditions.host_bytes_per_s,
    }
    limited_by = max(making_s, key=lambda limit: making_s[limit])
    assembling_s = work.num_kept * costs.s_per_kept / conditions.workers
    hours = (making_s[limited_by] + assembling_s) / 3600
    return Outlay(
        hours=hours,
        limited_by=limited_by,
        compute_usd=hours * conditions.workers * conditions.usd_per_worker_hour,
        read_usd=work.read_usd,
        store_usd_per_month=work.store_bytes / 1e9 * conditions.usd_per_gb_month,
    )
