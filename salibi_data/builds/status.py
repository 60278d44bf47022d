"""Status of a build: what is done, what failed and why, and the time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from salibi_data.assembly.workspace import BuildWorkspace, Failure
from salibi_data.builds.blocks import blocks_of
from salibi_data.builds.run_log import RunLog, replaced_samples, speed
from salibi_data.builds.samples_table import replaced_of_store
from salibi_data.plans.plan import Plan
from salibi_data.store.errors import StoreError
from salibi_data.store.schema import MANIFEST_NAME


@dataclass(frozen=True, kw_only=True)
class Step:
    """Progress of a build."""

    stage: str
    """``plan``, ``samples`` or ``shards``."""
    done: int
    total: int
    num_bytes: int = 0
    """Bytes read from http(s) sources in this run."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Number of blocks that failed in this run, by kind."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Result of a build."""

    store: Path
    num_samples: int
    dropped: Mapping[str, int]
    """Number of planned samples that are not in the store, by reason."""
    failures: tuple[Failure, ...]
    """Blocks that could not be made; the next run tries them again."""
    warnings: tuple[str, ...] = ()
    """Messages about sources that look wrong, and about missing samples."""
    replaced: Mapping[str, int] = field(default_factory=dict)
    """Number of samples that are not made of their planned scenes alone, by sensor."""
    was_complete: bool = False
    """Whether the store was finished already and nothing was done."""


def status(store: str | Path) -> dict[str, Any]:
    """Report planned, finished and failed blocks of a build, and whether its store is finished.

    Tiles of the plan's reserve count once the build has started on them.

    Samples that are not made of their planned scenes alone are listed under ``replaced``, and counted
    by sensor. Those of a finished store are in its table, those of a running build in its log.

    Raises:
        StoreError: neither a store nor a build of one is there.
        PlanError: the samples' table is damaged.
    """
    store = Path(store)
    workspace = BuildWorkspace.of(store)
    finished = (store / MANIFEST_NAME).is_file()
    if not workspace.plan.exists():
        if not finished:
            raise StoreError(f"neither a store nor a build of one is at {store}; check the path.")
        return {
            "finished": True,
            "failures": [],
            "failures_by_kind": {},
            **_replacements(replaced_of_store(store)),
        }
    plan = Plan.read(workspace.plan)
    sizes = _started_blocks(plan, workspace)
    done = [digest for digest in sizes if workspace.part(digest).exists()]
    failures = workspace.read_failures()
    last_run = speed(RunLog.path_of(store))
    left = sum(sizes.values()) - sum(sizes[digest] for digest in done)
    if last_run:
        last_run["seconds_left"] = left / last_run["samples_per_s"]
    return {
        "finished": finished,
        "planned_samples": sum(sizes.values()),
        "target_samples": plan.target_samples,
        "samples_left": left,
        "last_run": last_run,
        "blocks": len(sizes),
        "blocks_done": len(done),
        "failures_by_kind": dict(Counter(failure.kind for failure in failures)),
        "failures": [asdict(failure) for failure in failures],
        **_replacements(replaced_samples(RunLog.path_of(store), plan.digest)),
    }


def _replacements(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"replaced_by_sensor": dict(Counter(row["sensor"] for row in rows)), "replaced": rows}


def _started_blocks(plan: Plan, workspace: BuildWorkspace) -> dict[str, int]:
    """Number of samples by digest, of all blocks in rounds that the build has started."""
    started: dict[str, int] = {}
    for number in range(plan.rounds.max() + 1):
        sizes = {block.digest: len(block.choices) for block in blocks_of(plan, number)}
        if number > 0 and not any(workspace.was_tried(digest) for digest in sizes):
            break
        started |= sizes
    return started
