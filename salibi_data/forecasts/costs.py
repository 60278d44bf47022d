"""Predicts the time and cost of a build from its workload, unit costs and limits.

The prediction is a closed formula. Blocks are thousands of similar, independent tasks, so all
workers stay busy until the end. The time is therefore set by their total work, or by the narrowest
limit that they share. `benchmarks/data/continent.py` measures the unit costs, predicts a build with
them, and compares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from salibi_data.sources.rate_limits import HttpSettings
from salibi_data.store.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Amount of work in a build, whatever machines do it."""

    num_read: int
    """Number of tiles that are read, aligned and filtered."""
    num_samples: int
    """Number of samples in the finished store."""
    num_files: int
    """Number of times a source file is opened: once per block of tiles, scene and asset."""
    num_warped_px: int
    """Number of values that are warped: those of whole blocks, also of tiles that are not read."""
    source_bytes: int
    """Bytes read from the sources."""
    source_requests: int
    """Requests to the sources."""
    store_bytes: int
    """Size of the store before compression."""
    read_usd: float = 0.0
    """Price of reading that the owners of the sources ask for, in US dollars."""


@dataclass(frozen=True, kw_only=True)
class UnitCosts:
    """Time that a worker with one core needs per unit of work.

    All but the round trips are processor seconds. The defaults were measured with
    ``benchmarks/data/continent.py``, which fits them together to the blocks of small builds. The
    fit moves time between files, megabytes, values and samples from one run to the next; their sum
    varies less.
    """

    round_trips_per_file: float = 1.2
    """Number of sequential requests per file: its header, then its blocks, most of them at once."""
    s_per_file: float = 0.010
    """Time to open a file and read its header."""
    s_per_mb: float = 0.010
    """Time to decode a megabyte read from the sources."""
    s_per_warped_mpx: float = 0.005
    """Time to warp a million values."""
    s_per_sample: float = 0.006
    """Time to measure a sample's alignment, and to filter, compress and save it."""
    s_per_stored_sample: float = 0.025
    """Time to put a sample into its shard, and to compute its statistics and checksums."""


@dataclass(frozen=True, kw_only=True)
class BuildConditions:
    """Workers, network, limits and prices of a build.

    Raises:
        UsageError: a value is not finite, or out of range.
    """

    workers: int = 8
    """Number of processes with one core each."""
    latency_s: float = 0.05
    """Time from a request to the first byte of its answer; assumed, as within a continent."""
    read_bytes_per_s: float = 8e6
    """Reading speed of one worker; assumed: eight workers fill half a gigabit per second."""
    parallel: int = HttpSettings.parallel
    """Largest number of requests in flight, of all workers together; see
    :class:`~salibi_data.sources.rate_limits.HttpSettings`."""
    requests_per_s: float = 5500.0
    """Rate of requests that a host answers. Amazon S3 promises 5,500 per prefix of a bucket ("Best
    practices design patterns: optimizing Amazon S3 performance", docs.aws.amazon.com), Azure 20,000
    per account ("Scalability and performance targets for standard storage accounts",
    learn.microsoft.com); both read in November 2026. The default is the lower rate."""
    host_bytes_per_s: float = 6.25e9
    """Bandwidth of a host for all clients: 50 Gbit/s, Azure's lowest for an account (same page)."""
    usd_per_worker_hour: float = 0.05
    """Price of a core with its memory, as clouds ask on demand; assumed."""
    usd_per_gb_month: float = 0.023
    """Price of keeping the store; assumed, similar to the standard classes of S3 and Azure."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, may_be_zero = (
                getattr(self, field.name),
                field.name.startswith(("usd", "latency")),
            )
            if not (math.isfinite(value) and (value >= 0 if may_be_zero else value > 0)):
                expected = "at least 0" if may_be_zero else "above 0"
                raise UsageError(f"{field.name} is {value}; expected a number {expected}.")


@dataclass(frozen=True, kw_only=True)
class BuildCost:
    """Time and cost of a build."""

    hours: float
    limited_by: str
    """Name of the limit that sets the time; ``workers`` where more of them would help."""
    compute_usd: float
    read_usd: float
    store_usd_per_month: float

    @property
    def usd(self) -> float:
        """Cost of building the store, without keeping it."""
        return self.compute_usd + self.read_usd


def build_cost(
    workload: Workload, conditions: BuildConditions, unit_costs: UnitCosts | None = None
) -> BuildCost:
    """Predict the time and cost of a build.

    A worker reads a block, then computes, so both times add up. All workers together are limited by
    the number of requests in flight, and by what the host answers and sends.

    Args:
        workload: work to do.
        conditions: workers, network, limits and prices.
        unit_costs: time per unit of work; default the measured ones.
    """
    unit_costs = unit_costs or UnitCosts()
    waiting_s = workload.num_files * unit_costs.round_trips_per_file * conditions.latency_s
    reading_s = workload.source_bytes / conditions.read_bytes_per_s
    computing_s = (
        workload.num_files * unit_costs.s_per_file
        + workload.source_bytes / 1e6 * unit_costs.s_per_mb
        + workload.num_warped_px / 1e6 * unit_costs.s_per_warped_mpx
        + workload.num_read * unit_costs.s_per_sample
    )
    # A request counts from its start to the last byte, also while its body is read.
    in_flight_s = workload.source_requests * conditions.latency_s + reading_s
    seconds_by_limit = {
        "workers": (waiting_s + reading_s + computing_s) / conditions.workers,
        "requests in flight": in_flight_s / conditions.parallel,
        "requests per second": workload.source_requests / conditions.requests_per_s,
        "the host's bandwidth": workload.source_bytes / conditions.host_bytes_per_s,
    }
    limited_by = max(seconds_by_limit, key=lambda limit: seconds_by_limit[limit])
    assembling_s = workload.num_samples * unit_costs.s_per_stored_sample / conditions.workers
    # Shards are written after all blocks are read, so their time comes on top.
    hours = (seconds_by_limit[limited_by] + assembling_s) / 3600
    return BuildCost(
        hours=hours,
        limited_by=limited_by,
        compute_usd=hours * conditions.workers * conditions.usd_per_worker_hour,
        read_usd=workload.read_usd,
        store_usd_per_month=workload.store_bytes / 1e9 * conditions.usd_per_gb_month,
    )
