"""Builds a store from a plan; a build that was killed at any moment continues when run again.

Blocks become parts, and parts become shards, in a workspace beside the store. The store itself
appears in one rename.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.assembly import writer
from salibi_data.assembly.executor import Executor, WorkerDied, check_main_module, open_executor
from salibi_data.assembly.shards import assemble
from salibi_data.assembly.workspace import BuildWorkspace, Failure, wait_until_visible, write_json
from salibi_data.builds.block_task import BlockReport, run_block
from salibi_data.builds.blocks import blocks_of, left_out_warnings
from salibi_data.builds.contents import contents_of
from salibi_data.builds.layout import FinishedBlock, store_rows
from salibi_data.builds.options import BuildOptions
from salibi_data.builds.parts import read_part
from salibi_data.builds.resume import (
    finished_report,
    follow_plan,
    plan_or_request,
    plan_unless_unfinished,
)
from salibi_data.builds.run_log import RunLog, logging_to
from salibi_data.builds.status import BuildReport, Step
from salibi_data.plans.draft import check_budget
from salibi_data.plans.plan import Plan
from salibi_data.store import __version__
from salibi_data.store.errors import ReadError, SelectionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from salibi_data.builds.blocks import Block
    from salibi_data.store.tiles import Bounds


def build(
    store: str | Path,
    *,
    variant: str | None = None,
    catalog: str = BuildOptions.catalog,
    bounds_lonlat: Bounds | None = BuildOptions.bounds_lonlat,
    aoi: str | Path | None = BuildOptions.aoi,
    dates: str | None = BuildOptions.dates,
    limit: int | None = BuildOptions.limit,
    max_cloud: float | None = BuildOptions.max_cloud,
    allow_grd: bool = BuildOptions.allow_grd,
    plan: str | Path | Plan | None = None,
    workers: int = BuildOptions.workers,
    scheduler: str | None = BuildOptions.scheduler,
    block_deadline_s: float = BuildOptions.block_deadline_s,
    max_bytes: int | None = BuildOptions.max_bytes,
    progress: Callable[[Step], None] | None = None,
) -> BuildReport:
    """Build a store, or continue a build that was stopped.

    Args:
        store: path of the Zarr group to make; a log of all runs is kept beside it.
        variant: name or TOML file; needed unless ``plan`` is given.
        catalog: name or TOML file.
        bounds_lonlat: (west, south, east, north) in degrees; samples lie wholly within.
        aoi: GeoJSON or GeoParquet file of an outline; samples lie wholly within.
        dates: ``A/B``; limits every sensor.
        limit: greatest number of samples, drawn evenly and reproducibly from all that can be made.
        max_cloud: greatest share of clouds (0..1), scored per tile while planning.
        allow_grd: Sentinel-1 GRD may stand in for RTC where a catalog has nothing else.
        plan: a plan, or its file, in place of variant, catalog and scope.
        workers: number of processes that read and write; any number gives the same bytes.
        scheduler: address of a Dask scheduler whose workers do the work instead; they need access to
            the store's folder and the same version of this software.
        block_deadline_s: time limit in seconds for reading the sources of one block.
        max_bytes: limit on the bytes that the plan is expected to read from the sources.
        progress: called as work goes on.

    Returns:
        Report of the build; ``failures`` is empty when every block was made.

    Raises:
        StoreError: the path holds something else, or another build is at work on it.
        ReadError: no block at all could be made.
        SelectionError: no sample is left after the filters.

    Example:
        >>> report = salibi_data.build(folder / "x.zarr", variant="micro", catalog=catalog, limit=1)
        >>> report.num_samples, len(report.failures)
        (1, 0)
    """
    options = BuildOptions(
        catalog=catalog,
        bounds_lonlat=bounds_lonlat,
        aoi=aoi,
        dates=dates,
        limit=limit,
        max_cloud=max_cloud,
        allow_grd=allow_grd,
        workers=workers,
        scheduler=scheduler,
        block_deadline_s=block_deadline_s,
        max_bytes=max_bytes,
    )
    store = Path(store)
    report = progress or (lambda _step: None)
    workspace = BuildWorkspace.of(store)
    check_main_module()
    wanted = plan_or_request(variant, plan, options)
    done = finished_report(store, workspace, wanted)
    if done is not None:
        return done
    with workspace.lock(), open_executor(workers, scheduler) as executor:
        done = finished_report(store, workspace, wanted)  # another build may have finished since
        if done is not None:
            workspace.remove(store)
            return done
        if isinstance(wanted, Plan):
            fixed = follow_plan(workspace, wanted)
        else:
            fixed = plan_unless_unfinished(workspace, store, wanted, variant or "", options, report)
        check_budget(fixed.expected, max_bytes)
        with logging_to(RunLog.path_of(store)) as log:
            job = _Job(
                store=store,
                workspace=workspace,
                plan=fixed,
                executor=executor,
                log=log,
                report=report,
            )
            return job.run(block_deadline_s)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One run of a build: its plan, workspace, executor, log and progress report."""

    store: Path
    workspace: BuildWorkspace
    plan: Plan
    executor: Executor
    log: RunLog
    report: Callable[[Step], None]

    def run(self, block_deadline_s: float) -> BuildReport:
        """Make the missing blocks, assemble the store, and clean up if no block failed."""
        self.log.write("begun", plan=self.plan.digest, samples=self.plan.num_samples)
        report = self._assemble(self._finished_blocks(block_deadline_s))
        self.log.write(
            "finished",
            samples=report.num_samples,
            dropped=report.dropped,
            failed=len(report.failures),
        )
        return report

    def _finished_blocks(self, deadline_s: float) -> list[FinishedBlock]:
        """Make one round of blocks after the other, until they hold the target number of samples."""
        self.workspace.parts.mkdir(exist_ok=True)
        shutil.rmtree(self.workspace.failures, ignore_errors=True)
        self.workspace.failures.mkdir()
        finished: list[FinishedBlock] = []
        for number in range(self.plan.rounds.max() + 1):
            digests = self._run_round(number, deadline_s)
            blocks = [
                self._read_finished(block)
                for block in blocks_of(self.plan, number)
                if block.digest in digests
            ]
            finished += [block for block in blocks if block is not None]
            target = self.plan.target_samples
            if target and sum(len(block.samples.positions) for block in finished) >= target:
                break
        return finished

    def _run_round(self, round_number: int, deadline_s: float) -> set[str]:
        """Run every block of a round that has no part yet; return the digests of finished blocks."""
        before, total = (
            int(np.count_nonzero(self.plan.rounds < end))
            for end in (round_number, round_number + 1)
        )
        sizes = {block.digest: len(block.choices) for block in blocks_of(self.plan, round_number)}
        finished = {digest for digest in sizes if self.workspace.part(digest).exists()}
        done = before + sum(sizes[digest] for digest in finished)
        self.report(Step(stage="samples", done=done, total=total))
        num_bytes, failed = 0, Counter[str]()
        arguments = self.workspace, self.plan.variant, self.plan.catalog, deadline_s, __version__
        tasks = (
            (block, run_block, (*arguments, block))
            for block in blocks_of(self.plan, round_number)
            if block.digest not in finished
        )
        for block, result in self.executor.run(tasks):
            report: BlockReport = result
            if isinstance(result, WorkerDied):
                report = BlockReport(
                    tile=block.name, samples=len(block.choices), kind="killed", reason=result.reason
                )
            if report.reason is None:
                finished.add(block.digest)
            else:
                failed[report.kind or ""] += 1
                self._write_failure(block, report.kind or "", report.reason)
            self.log.write("block", **asdict(report))
            done, num_bytes = done + len(block.choices), num_bytes + report.num_bytes
            self.report(
                Step(
                    stage="samples",
                    done=done,
                    total=total,
                    num_bytes=num_bytes,
                    failures=dict(failed),
                )
            )
        return finished

    def _write_failure(self, block: Block, kind: str, reason: str) -> None:
        failure = Failure(tile=block.name, kind=kind, reason=reason)
        write_json(self.workspace.failure(block.digest), asdict(failure))

    def _read_finished(self, block: Block) -> FinishedBlock | None:
        """Read a finished block without its images; None, and a failure noted, if it is missing."""
        path = wait_until_visible(self.workspace.part(block.digest))
        try:
            samples = read_part(path, self.plan.variant, images=False)
        except StoreError as error:
            self._write_failure(block, "lost", str(error))
            return None
        return FinishedBlock(positions=block.positions, part=path.name, samples=samples)

    def _assemble(self, finished: Sequence[FinishedBlock]) -> BuildReport:
        """Put the finished blocks together as a store, and move the store to its place."""
        failures = tuple(self.workspace.read_failures())
        if not finished:
            raise ReadError(failures[0].reason, kind="unusable")
        dropped, warnings = Counter[str](), set[str]()
        left_out: dict[str, str] = {}
        for block in finished:
            dropped.update(block.samples.dropped)
            warnings.update(block.samples.warnings)
            for scene, reason in block.samples.left_out.items():
                # Blocks see other values of a scene; one of their messages stands for all.
                left_out[scene] = min(reason, left_out.get(scene, reason))
        rows = store_rows(finished, self.plan)
        if not rows.rows:
            raise SelectionError(
                f"all {self.plan.num_samples} planned samples were dropped ({dict(dropped)}); "
                "loosen the variant's [quality], or widen --dates."
            )
        contents = contents_of(self.plan, rows, self.workspace.parts)
        group = assemble(
            contents, self.workspace.folder, self.executor, progress=self._report_shards
        )
        writer.replace_store(group, self.store)
        shutil.rmtree(group.parent, ignore_errors=True)
        if not failures:
            self.workspace.remove(self.store)
        return BuildReport(
            store=self.store,
            num_samples=len(rows.rows),
            dropped=dict(dropped),
            failures=failures,
            warnings=(
                *self.plan.warnings,
                *_shortage(self.plan, len(rows.rows)),
                *sorted(warnings),
                *left_out_warnings(left_out),
            ),
            replaced=Counter(sensor for row in rows.rows for sensor in row.replaced),
        )

    def _report_shards(self, done: int, total: int) -> None:
        self.report(Step(stage="shards", done=done, total=total))


def _shortage(plan: Plan, num_samples: int) -> Iterator[str]:
    """Yield a warning if the store has fewer samples than the plan aims at."""
    target = plan.target_samples or 0
    if num_samples < target:
        yield (
            f"the store has {num_samples:,} samples, {target - num_samples:,} fewer than the "
            f"{target:,} aimed at, though all {plan.num_samples:,} planned tiles were tried; plan "
            "with wider --dates, or add regions to the variant."
        )
