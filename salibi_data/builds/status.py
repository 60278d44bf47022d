"""How far a build is: what is done, what failed and why, and how long the rest may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from salibi_data.assembly.workspace import BuildWorkspace, Failure
from salibi_data.builds.blocks import blocks_of
from salibi_data.builds.run_log import RunLog, speed
from salibi_data.plans.plan import Plan
from salibi_data.store.errors import StoreError
from salibi_data.store.schema import MANIFEST_NAME


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a build is."""

    stage: str
    """``plan``, ``samples`` or ``shards``."""
    done: int
    total: int
    num_bytes: int = 0
    """Bytes read from http(s) sources in this run."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Blocks that failed in this run, by kind."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did."""

    store: Path
    num_samples: int
    dropped: Mapping[str, int]
    """Planned samples that are not in the store, by reason."""
    failures: tuple[Failure, ...]
    """Blocks that could not be made. Run again to try them again."""
    warnings: tuple[str, ...] = ()
    """What about the sources looked wrong."""
    was_complete: bool = False
    """The store was there already; nothing was done."""


def status(store: str | Path) -> dict[str, Any]:
    """How far a build is: planned, done and failed blocks, and whether the store is there.

    Tiles of the plan's reserve count once building them has begun.

    Raises:
        StoreError: neither a store nor a build of one is there.
    """
    store = Path(store)
    workspace = BuildWorkspace.of(store)
    finished = (store / MANIFEST_NAME).is_file()
    if not workspace.plan.exists():
        if not finished:
            raise StoreError(f"neither a store nor a build of one is at {store}; check the path.")
        return {"finished": True, "failures": [], "failures_by_kind": {}}
    plan = Plan.read(workspace.plan)
    sizes = _blocks_begun(plan, workspace)
    made = [digest for digest in sizes if workspace.part(digest).exists()]
    failures = workspace.read_failures()
    last_run = speed(RunLog.path_of(store))
    left = sum(sizes.values()) - sum(sizes[digest] for digest in made)
    if last_run:
        last_run["seconds_left"] = left / last_run["samples_per_s"]
    return {
        "finished": finished,
        "planned_samples": sum(sizes.values()),
        "target_samples": plan.target_samples,
        "samples_left": left,
        "last_run": last_run,
        "blocks": len(sizes),
        "blocks_done": len(made),
        "failures_by_kind": dict(Counter(failure.kind for failure in failures)),
        "failures": [asdict(failure) for failure in failures],
    }


def _blocks_begun(plan: Plan, workspace: BuildWorkspace) -> dict[str, int]:
    """Digest and number of samples of the blocks to make; of the reserve, as far as it is begun."""
    begun: dict[str, int] = {}
    for number in range(plan.rounds.max() + 1):
        sizes = {block.digest: len(block.choices) for block in blocks_of(plan, number)}
        if number > 0 and not any(workspace.was_tried(digest) for digest in sizes):
            break
        begun |= sizes
    return begun
