"""Plan to store: composes the stages, nothing else. Kill it at any moment and run it again.

Blocks become parts, parts become shards, all in a workshop beside the store; the store itself
appears in one rename.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data import geoparquet, write
from salibi_data.blocks import Block, blocks_of, make_samples
from salibi_data.catalog import load_catalog
from salibi_data.errors import ReadError, SelectionError, StoreError, UsageError
from salibi_data.parts import read_part, write_part
from salibi_data.planning import plan as make_plan
from salibi_data.planning import request
from salibi_data.plans import Plan
from salibi_data.schema import MANIFEST_NAME, SAMPLES_NAME
from salibi_data.variant import check_fit, load_variant
from salibi_data.workers import run_tasks
from salibi_data.workshop import Workshop, write_note

if TYPE_CHECKING:
    from salibi_data.grid import Bounds

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are ``plan``, ``samples`` and ``shards``."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did."""

    store: Path
    num_samples: int
    dropped: Mapping[str, int]
    """Planned samples that are not in the store, by reason."""
    failures: Mapping[str, str]
    """Blocks that could not be made: parent tile to reason. Run again to try them again."""
    was_complete: bool = False
    """The store was there already; nothing was done."""


def build(
    store: str | Path,
    *,
    variant: str | None = None,
    catalog: str = "planetary-computer",
    plan: str | Path | Plan | None = None,
    bounds_lonlat: Bounds | None = None,
    dates: str | None = None,
    limit: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Make a store, or go on with one whose build was stopped.

    Args:
        store: path of the Zarr group to make.
        variant: name or TOML file; needed unless ``plan`` is given.
        catalog: name or TOML file.
        plan: a plan, or its file, instead of variant, catalog and the four that narrow them.
        bounds_lonlat: see :func:`salibi_data.planning.plan`, as for ``dates`` and ``limit``.
        dates: ``A/B``.
        limit: at most so many samples.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: called as work goes on.

    Returns:
        A report; ``failures`` is empty when every block was made.

    Raises:
        StoreError: the path holds something else, or another build is at work on it.
        ReadError: no block at all could be made.
        SelectionError: no sample is left after the filters.
    """
    store = Path(store)
    report = progress or (lambda _stage, _done, _total: None)
    workshop = Workshop.of(store)
    wanted = _wanted(variant, catalog, plan, bounds_lonlat, dates, limit)
    done = _finished(store, workshop, wanted)
    if done is not None:
        return done
    with workshop.locked():
        done = _finished(store, workshop, wanted)  # another build may have ended meanwhile
        if done is not None:
            workshop.clear(store)
            return done
        if isinstance(wanted, Plan):
            fixed = workshop.begun(wanted.digest, request=wanted.request) or wanted
            if not workshop.plan.exists():
                fixed.write(workshop.plan)
        else:
            fixed = _plan_once(workshop, store, wanted, variant or "", catalog, report)
        blocks = blocks_of(fixed)
        _make_parts(workshop, fixed, blocks, workers, report)
        return _assemble(store, workshop, fixed, blocks, workers, report)


def _wanted(
    variant: str | None,
    catalog: str,
    plan: str | Path | Plan | None,
    bounds_lonlat: Bounds | None,
    dates: str | None,
    limit: int | None,
) -> Plan | dict[str, Any]:
    """The plan to build, or the request that leads to one."""
    if plan is not None and (variant, bounds_lonlat, dates, limit) != (None, None, None, None):
        raise UsageError("a plan says all; give no variant, bounds, dates or limit beside it.")
    if plan is not None:
        return plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    if variant is None:
        raise UsageError("neither a variant nor a plan was given; name one of them.")
    recipe, provider = load_variant(variant), load_catalog(catalog)
    check_fit(recipe, provider)
    return request(recipe, provider, bounds_lonlat=bounds_lonlat, dates=dates, limit=limit)


def _finished(store: Path, workshop: Workshop, wanted: Plan | dict[str, Any]) -> BuildReport | None:
    """A report if the store is complete and is the one wanted; an error if it is another."""
    if not store.exists():
        return None
    if not (store / MANIFEST_NAME).is_file():
        raise StoreError(
            f"{store} exists and is not a finished Salibi store; nothing was changed. "
            "Choose another path, or remove it."
        )
    if not (store / SAMPLES_NAME).is_file():
        raise StoreError(f"{store} lacks its {SAMPLES_NAME}; remove it and build it again.")
    table, kept = geoparquet.read(store / SAMPLES_NAME)
    asked = wanted.request if isinstance(wanted, Plan) else wanted
    same_plan = not isinstance(wanted, Plan) or kept["plan_digest"] == wanted.digest
    if not (same_plan and kept["request"] == asked):
        raise StoreError(
            f"{store} holds another dataset ({kept['request']['variant']} from "
            f"{kept['request']['catalog']}); nothing was changed. Choose another path, or remove it."
        )
    if workshop.plan.exists():
        return None  # blocks failed last time: try them again
    return BuildReport(
        store=store, num_samples=len(table), dropped={}, failures={}, was_complete=True
    )


def _plan_once(
    workshop: Workshop,
    store: Path,
    wanted: Mapping[str, Any],
    variant: str,
    catalog: str,
    report: Progress,
) -> Plan:
    """The plan begun here, or a new one: a build never searches twice."""
    begun = workshop.begun(request=wanted)
    if begun is not None:
        return begun
    bounds = wanted["bounds_lonlat"]
    try:
        plan = make_plan(
            variant,
            catalog=catalog,
            bounds_lonlat=tuple(bounds) if bounds is not None else None,
            dates=wanted["dates"],
            limit=wanted["limit"],
            progress=lambda done, total: report("plan", done, total),
        )
    except BaseException:
        if not store.exists():
            shutil.rmtree(workshop.folder)  # nothing is in it yet but the lock
        raise
    plan.write(workshop.plan)
    return plan


def _make_parts(
    workshop: Workshop, plan: Plan, blocks: Sequence[Block], workers: int, report: Progress
) -> None:
    """A part or a failure note for every block."""
    workshop.parts.mkdir(exist_ok=True)
    shutil.rmtree(workshop.failures, ignore_errors=True)
    workshop.failures.mkdir()
    waiting = [block for block in blocks if not workshop.part(block).exists()]
    done = sum(b.stop - b.start for b in blocks) - sum(b.stop - b.start for b in waiting)
    report("samples", done, len(plan.choices))
    tasks = {block.digest: (_make_part, workshop, plan.digest, block) for block in waiting}
    sizes = {block.digest: block.stop - block.start for block in waiting}
    for digest, _ in run_tasks(tasks, workers):
        done += sizes[digest]
        report("samples", done, len(plan.choices))


def _make_part(workshop: Workshop, plan_digest: str, block: Block) -> None:
    """One block, in whatever process; a source that cannot be read is noted, not raised."""
    plan = workshop.read_plan(plan_digest)
    try:
        samples = make_samples(plan, block)
    except ReadError as error:
        first = plan.choices[block.start].tile
        note = {"tile": f"{first.z}/{first.x}/{first.y}", "reason": str(error)}
        write_note(workshop.failure(block), note)
        return
    write_part(workshop.part(block), samples)


def _assemble(
    store: Path,
    workshop: Workshop,
    plan: Plan,
    blocks: Sequence[Block],
    workers: int,
    report: Progress,
) -> BuildReport:
    """Put the parts together, and the store in its place."""
    failures = workshop.read_failures()
    parts = [
        (workshop.part(block).name, read_part(workshop.part(block), plan.variant, images=False))
        for block in blocks
        if workshop.part(block).exists()
    ]
    dropped = sum((Counter(samples.dropped) for _, samples in parts), Counter())
    if not parts:
        raise ReadError(next(iter(failures.values())))
    layout = write.layout_of(parts)
    if not layout.rows:
        raise SelectionError(
            f"all {len(plan.choices)} planned samples were dropped ({dict(dropped)}); "
            "loosen the variant's [quality], or widen --dates."
        )
    folder = workshop.folder / f"store-{layout.digest}"
    histograms = _write_shards(folder, workshop, plan, layout, workers, report)
    write.finish(folder / "zarr", plan, layout, histograms)
    write.swap_in(folder / "zarr", store)
    shutil.rmtree(folder, ignore_errors=True)
    if not failures:
        workshop.clear(store)
    return BuildReport(
        store=store, num_samples=len(layout.rows), dropped=dict(dropped), failures=failures
    )


def _write_shards(
    folder: Path,
    workshop: Workshop,
    plan: Plan,
    layout: write.Layout,
    workers: int,
    report: Progress,
) -> dict[str, Any]:
    """Write the shards that are not written yet; histograms summed over all of them."""
    notes = folder / "shards"
    if not (notes.is_dir() and (folder / "zarr" / "zarr.json").is_file()):
        shutil.rmtree(folder, ignore_errors=True)
        write.create_arrays(folder / "zarr", plan, len(layout.rows))
        notes.mkdir()
    paths = [notes / f"{number:06d}.json" for number in range(layout.num_shards)]
    waiting = [number for number, path in enumerate(paths) if not path.exists()]
    tasks = {n: (_write_shard, folder, workshop, plan.digest, layout.shard(n), n) for n in waiting}
    report("shards", layout.num_shards - len(waiting), layout.num_shards)
    for count, _ in enumerate(run_tasks(tasks, workers), start=1):
        report("shards", layout.num_shards - len(waiting) + count, layout.num_shards)
    counted = [json.loads(path.read_text()) for path in paths]
    return {
        name: np.sum([np.array(counts[name], np.int64) for counts in counted], axis=0)
        for name in counted[0]
    }


def _write_shard(
    folder: Path, workshop: Workshop, plan_digest: str, rows: Sequence[write.Row], number: int
) -> None:
    plan = workshop.read_plan(plan_digest)
    counts = write.write_shard(folder / "zarr", workshop.parts, plan, rows, number)
    write_note(folder / "shards" / f"{number:06d}.json", counts)


def status(store: str | Path) -> dict[str, Any]:
    """How far a build is: planned, done and failed blocks, and whether the store is there.

    Raises:
        StoreError: neither a store nor a build of one is there.
    """
    store = Path(store)
    workshop = Workshop.of(store)
    finished = (store / MANIFEST_NAME).is_file()
    if not workshop.plan.exists():
        if not finished:
            raise StoreError(f"neither a store nor a build of one is at {store}; check the path.")
        return {"finished": True, "failures": {}}
    plan = Plan.read(workshop.plan)
    blocks = blocks_of(plan)
    return {
        "finished": finished,
        "planned_samples": len(plan.choices),
        "blocks": len(blocks),
        "blocks_done": sum(workshop.part(block).exists() for block in blocks),
        "failures": workshop.read_failures(),
    }
