"""Where a build stands before it begins: what is wanted, what is there, and the plan it follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salibi_data.assembly.writer import check_sizes
from salibi_data.builds.status import BuildReport, Step
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import fitted, request
from salibi_data.plans.planner import plan as make_plan
from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import MANIFEST_NAME, SAMPLES_NAME

if TYPE_CHECKING:
    from salibi_data.assembly.workspace import BuildWorkspace
    from salibi_data.builds.options import BuildOptions


def wanted_by(
    variant: str | None, plan: str | Path | Plan | None, options: BuildOptions
) -> Plan | dict[str, Any]:
    """The plan to build, or the request that leads to one."""
    if plan is not None and (variant is not None or options.is_narrowed):
        raise UsageError("a plan says all; give no variant, bounds, dates or limit beside it.")
    if plan is not None:
        return plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    if variant is None:
        raise UsageError("neither a variant nor a plan was given; name one of them.")
    return request(*fitted(variant, options.catalog, options), options)


def finished_as(
    store: Path, workspace: BuildWorkspace, wanted: Plan | dict[str, Any]
) -> BuildReport | None:
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
    check_sizes(store)
    table, kept = geoparquet.read(store / SAMPLES_NAME, ["tile_id"])
    asked = wanted.request if isinstance(wanted, Plan) else wanted
    same_plan = not isinstance(wanted, Plan) or kept.get("plan_digest") == wanted.digest
    held = kept.get("request")  # a store that was not built from a plan has none
    if not (same_plan and held == asked):
        what = f" ({held['variant']} from {held['catalog']})" if held else ""
        raise StoreError(
            f"{store} holds another dataset{what}; nothing was changed. Choose another path, or "
            "remove it."
        )
    if workspace.plan.exists():
        return None  # blocks failed last time: try them again
    return BuildReport(
        store=store, num_samples=len(table), dropped={}, failures=(), was_complete=True
    )


def unfinished_plan(
    workspace: BuildWorkspace, plan_digest: str | None = None, *, request: Mapping[str, Any]
) -> Plan | None:
    """Read the plan of an unfinished build; None where there is none yet.

    Raises:
        StoreError: it is of another request, or has another digest than the one given.
    """
    if not workspace.plan.exists():
        return None
    plan = Plan.read(workspace.plan)
    if plan.request != request or plan_digest not in (None, plan.digest):
        raise StoreError(
            f"{workspace.folder} holds an unfinished build of something else. Finish that one with "
            "its own arguments, choose another path, or remove the folder."
        )
    return plan


def plan_given(workspace: BuildWorkspace, wanted: Plan) -> Plan:
    """The plan begun here, which must be the one given, or a copy of that one made here.

    Raises:
        StoreError: an unfinished build of something else is there.
    """
    plan = unfinished_plan(workspace, wanted.digest, request=wanted.request)
    if plan is not None:
        return plan
    wanted.write(workspace.plan)
    return wanted


def plan_once(
    workspace: BuildWorkspace,
    store: Path,
    wanted: Mapping[str, Any],
    variant: str,
    options: BuildOptions,
    report: Callable[[Step], None],
) -> Plan:
    """The plan begun here, or a new one: a build never searches twice."""
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
            shutil.rmtree(workspace.folder)  # nothing was found yet that could be of use later
        raise
