"""Plan to store: composes the stages, nothing else. Kill it at any moment and run it again.

Blocks become parts, parts become shards, all in a workspace beside the store; the store itself
appears in one rename.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from salibi_data.assembly import writer
from salibi_data.assembly.executor import Executor, WorkerDied, check_main_module, open_executor
from salibi_data.assembly.shards import assemble
from salibi_data.assembly.workspace import BuildWorkspace, Failure, wait_until_visible, write_json
from salibi_data.builds.block_task import DEADLINE_S, BlockReport, make_part
from salibi_data.builds.blocks import blocks_of
from salibi_data.builds.contents import contents_of
from salibi_data.builds.layout import Part, layout_of
from salibi_data.builds.parts import read_part
from salibi_data.builds.resume import finished_as, plan_given, plan_once, wanted_by
from salibi_data.builds.run_log import RunLog, logging_to
from salibi_data.builds.status import BuildReport, Step
from salibi_data.plans.draft import check_budget
from salibi_data.plans.plan import Plan
from salibi_data.store import __version__
from salibi_data.store.errors import ReadError, SelectionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from salibi_data.builds.blocks import Block
    from salibi_data.plans.planner import Scope


def build(
    store: str | Path,
    *,
    variant: str | None = None,
    catalog: str = "planetary-computer",
    plan: str | Path | Plan | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    block_deadline_s: float = DEADLINE_S,
    max_bytes: int | None = None,
    progress: Callable[[Step], None] | None = None,
    **scope: Unpack[Scope],
) -> BuildReport:
    """Make a store, or go on with one whose build was stopped.

    Args:
        store: path of the Zarr group to make; a log of all runs is kept beside it.
        variant: name or TOML file; needed unless ``plan`` is given.
        catalog: name or TOML file.
        plan: a plan, or its file, instead of variant, catalog and what narrows them.
        workers: processes that read and write; the bytes do not depend on their number.
        scheduler: address of a Dask scheduler whose workers do it instead; they need to see the
            store's folder and have this software installed.
        block_deadline_s: a block of samples whose sources take longer has failed.
        max_bytes: refuse a plan that is expected to read more from the sources.
        progress: called as work goes on.
        **scope: what narrows the plan, see :class:`~salibi_data.plans.planner.Scope`.

    Returns:
        A report; ``failures`` is empty when every block was made.

    Raises:
        StoreError: the path holds something else, or another build is at work on it.
        ReadError: no block at all could be made.
        SelectionError: no sample is left after the filters.

    Example:
        >>> report = salibi_data.build(folder / "x.zarr", variant="micro", catalog=catalog, limit=1)
        >>> report.num_samples, len(report.failures)
        (1, 0)
    """
    store = Path(store)
    report = progress or (lambda _step: None)
    workspace = BuildWorkspace.of(store)
    check_main_module()
    wanted = wanted_by(variant, catalog, plan, scope)
    done = finished_as(store, workspace, wanted)
    if done is not None:
        return done
    with workspace.lock(), open_executor(workers, scheduler) as executor:
        done = finished_as(store, workspace, wanted)  # another build may have ended meanwhile
        if done is not None:
            workspace.remove(store)
            return done
        if isinstance(wanted, Plan):
            fixed = plan_given(workspace, wanted)
        else:
            fixed = plan_once(workspace, store, wanted, variant or "", catalog, scope, report)
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
    """One run of a build: who does what where, and who is told."""

    store: Path
    workspace: BuildWorkspace
    plan: Plan
    executor: Executor
    log: RunLog
    report: Callable[[Step], None]

    def run(self, block_deadline_s: float) -> BuildReport:
        """Make what is missing, put it together, and clean up if nothing failed."""
        self.log.write("begun", plan=self.plan.digest, samples=self.plan.num_samples)
        done = self._assemble(self._parts(block_deadline_s))
        self.log.write(
            "finished", samples=done.num_samples, dropped=done.dropped, failed=len(done.failures)
        )
        return done

    def _parts(self, deadline_s: float) -> list[Part]:
        """Parts of one round after the other, until they hold as many samples as are wanted."""
        self.workspace.parts.mkdir(exist_ok=True)
        shutil.rmtree(self.workspace.failures, ignore_errors=True)
        self.workspace.failures.mkdir()
        parts: list[Part] = []
        for number in range(self.plan.rounds.max() + 1):
            made = self._make_parts(number, deadline_s)
            found = [self._part_of(b) for b in blocks_of(self.plan, number) if b.digest in made]
            parts += [part for part in found if part is not None]
            target = self.plan.target_samples
            if target and sum(len(part.samples.positions) for part in parts) >= target:
                break
        return parts

    def _make_parts(self, round_number: int, deadline_s: float) -> set[str]:
        """A part or a failure note for every block of a round; digests of those with a part."""
        before, total = (
            int(np.count_nonzero(self.plan.rounds < end))
            for end in (round_number, round_number + 1)
        )
        sizes = {b.digest: len(b.choices) for b in blocks_of(self.plan, round_number)}
        made = {digest for digest in sizes if self.workspace.part(digest).exists()}
        done = before + sum(sizes[digest] for digest in made)
        self.report(Step(stage="samples", done=done, total=total))
        num_bytes, failed = 0, Counter[str]()
        given = self.workspace, self.plan.variant, self.plan.catalog, deadline_s, __version__
        tasks = (
            (block, make_part, (*given, block))
            for block in blocks_of(self.plan, round_number)
            if block.digest not in made
        )
        for block, result in self.executor.run(tasks):
            account: BlockReport = result
            if isinstance(result, WorkerDied):
                account = BlockReport(
                    tile=block.name, samples=len(block.choices), kind="killed", reason=result.reason
                )
            if account.reason is None:
                made.add(block.digest)
            else:
                failed[account.kind or ""] += 1
                self._note(block, account.kind or "", account.reason)
            self.log.write("block", **asdict(account))
            done, num_bytes = done + len(block.choices), num_bytes + account.num_bytes
            self.report(
                Step(
                    stage="samples",
                    done=done,
                    total=total,
                    num_bytes=num_bytes,
                    failures=dict(failed),
                )
            )
        return made

    def _note(self, block: Block, kind: str, reason: str) -> None:
        failure = Failure(tile=block.name, kind=kind, reason=reason)
        write_json(self.workspace.failure(block.digest), asdict(failure))

    def _part_of(self, block: Block) -> Part | None:
        """A finished block without its images; None, and a failure, where it is not there."""
        path = wait_until_visible(self.workspace.part(block.digest))
        try:
            samples = read_part(path, self.plan.variant, images=False)
        except StoreError as error:
            self._note(block, "lost", str(error))
            return None
        return Part(positions=block.positions, name=path.name, samples=samples)

    def _assemble(self, parts: Sequence[Part]) -> BuildReport:
        """Put the parts together, and the store in its place."""
        failures = tuple(self.workspace.read_failures())
        if not parts:
            raise ReadError(failures[0].reason, kind="unusable")
        dropped, warnings = Counter[str](), set[str]()
        for part in parts:
            dropped.update(part.samples.dropped)
            warnings.update(part.samples.warnings)
        layout = layout_of(parts, self.plan)
        if not layout.rows:
            raise SelectionError(
                f"all {self.plan.num_samples} planned samples were dropped ({dict(dropped)}); "
                "loosen the variant's [quality], or widen --dates."
            )
        contents = contents_of(self.plan, layout, self.workspace.parts)
        group = assemble(
            contents, self.workspace.folder, self.executor, progress=self._report_shards
        )
        writer.replace_store(group, self.store)
        shutil.rmtree(group.parent, ignore_errors=True)
        if not failures:
            self.workspace.remove(self.store)
        return BuildReport(
            store=self.store,
            num_samples=len(layout.rows),
            dropped=dict(dropped),
            failures=failures,
            warnings=(*_shortage(self.plan, len(layout.rows)), *sorted(warnings)),
        )

    def _report_shards(self, done: int, total: int) -> None:
        self.report(Step(stage="shards", done=done, total=total))


def _shortage(plan: Plan, num_samples: int) -> Iterator[str]:
    """A warning where the store has fewer samples than the plan aims at."""
    target = plan.target_samples or 0
    if num_samples < target:
        yield (
            f"the store has {num_samples:,} samples, {target - num_samples:,} fewer than the "
            f"{target:,} aimed at, though all {plan.num_samples:,} planned tiles were tried; plan "
            "with wider --dates, or add regions to the variant."
        )
