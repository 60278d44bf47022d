"""Start of a build: the plan or request, a store that is finished already, an unfinished build."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salibi_data.assembly.writer import check_sizes
from salibi_data.builds.status import BuildReport, Step
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import load_inputs
from salibi_data.plans.planner import plan as make_plan
from salibi_data.plans.planner import request as make_request
from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import MANIFEST_NAME, SAMPLES_NAME

if TYPE_CHECKING:
    from salibi_data.assembly.workspace import BuildWorkspace
    from salibi_data.builds.options import BuildOptions


def plan_or_request(
    variant: str | None, plan: str | Path | Plan | None, options: BuildOptions
) -> Plan | dict[str, Any]:
    """Return the plan to build, or the request that a plan is made for.

    Raises:
        UsageError: neither a plan nor a variant is given, or a plan and what it says already.
    """
    if plan is not None and (variant is not None or options.is_narrowed):
        raise UsageError(
            "a plan fixes variant, bounds, dates and limit; leave these out, or leave out the plan."
        )
    if plan is not None:
        return plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    if variant is None:
        raise UsageError("neither a variant nor a plan was given; name one of them.")
    return make_request(*load_inputs(variant, options.catalog, options), options)


def finished_report(
    store: Path, workspace: BuildWorkspace, wanted: Plan | dict[str, Any]
) -> BuildReport | None:
    """Report of a store that is finished and is the one wanted; None where there is none yet.

    Raises:
        StoreError: something else is at the path, or the store is damaged.
    """
    if not store.exists():
        return None
    if not (store / MANIFEST_NAME).is_file():
        raise StoreError(
            f"{store} exists and is not a finished Salibi store; nothing was changed. "
            "Choose another path, or remove it."
        )
    if not (store / SAMPLES_NAME).is_file():
        raise StoreError(f"{store} lacks its {SAMPLES_NAME}; remove it and build it again.")
    check_sizes(store)
    table, metadata = geoparquet.read(store / SAMPLES_NAME, ["tile_id"])
    request = wanted.request if isinstance(wanted, Plan) else wanted
    same_plan = not isinstance(wanted, Plan) or metadata.get("plan_digest") in (
        wanted.digest,
        wanted.full_digest,
    )
    built_for = metadata.get("request")  # a store that was not built from a plan has none
    if not (same_plan and built_for == request):
        dataset = f" ({built_for['variant']} from {built_for['catalog']})" if built_for else ""
        raise StoreError(
            f"{store} holds another dataset{dataset}; nothing was changed. Choose another path, or "
            "remove it."
        )
    if workspace.plan.exists():
        return None  # blocks failed in the last run: try them again
    return BuildReport(
        store=store, num_samples=len(table), dropped={}, failures=(), was_complete=True
    )


def unfinished_plan(
    workspace: BuildWorkspace, plan_digest: str | None = None, *, request: Mapping[str, Any]
) -> Plan | None:
    """Read the plan of an unfinished build; None where there is none yet.

    Raises:
        StoreError: the plan is for another request, or has another digest than the one given.
    """
    if not workspace.plan.exists():
        return None
    plan = Plan.read(workspace.plan)
    if plan.request != request or plan_digest not in (None, plan.full_digest):
        raise StoreError(
            f"{workspace.folder} holds an unfinished build of something else. Finish that one with "
            "its own arguments, choose another path, or remove the folder."
        )
    return plan


def follow_plan(workspace: BuildWorkspace, wanted: Plan) -> Plan:
    """Continue the unfinished build of a plan, or copy the plan into the workspace.

    Raises:
        StoreError: the workspace holds an unfinished build of something else.
    """
    plan = unfinished_plan(workspace, wanted.full_digest, request=wanted.request)
    if plan is not None:
        return plan
    wanted.write(workspace.plan)
    return wanted


def plan_unless_unfinished(
    workspace: BuildWorkspace,
    store: Path,
    wanted: Mapping[str, Any],
    variant: str,
    options: BuildOptions,
    report: Callable[[Step], None],
) -> Plan:
    """Return the plan of the unfinished build, or make one; a build never searches twice."""
    plan = unfinished_plan(workspace, request=wanted)
    if plan is not None:
        return plan
    try:
        return make_plan(
            variant,
            catalog=options.catalog,
            output=workspace.plan,
            progress=lambda done, total: report(Step(stage="plan", done=done, total=total)),
            **options.scope_arguments(),
        )
    except BaseException:
        if not store.exists() and [path.name for path in workspace.folder.iterdir()] == ["lock"]:
            shutil.rmtree(workspace.folder)  # no search result is in it yet
        raise
