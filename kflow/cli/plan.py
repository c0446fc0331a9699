"""``kflow plan``: tell what a run would do, and why."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow.cli.loading import (
    choose_actions,
    is_steady,
    load_workflow,
    open_sharing,
    open_store,
    open_workspace,
    parse_overrides,
    plain_path,
)
from kflow.cli.output import say
from kflow.diagnostics import visible
from kflow.plan.planner import Action, Verdict
from kflow.plan.resolve import Bound
from kflow.report.tables import describe_plan, near
from kflow.run.compiled import installed
from kflow.run.exports import find_exports
from kflow.run.previous import make_planner
from kflow.store.entry import Entry
from kflow.workspace import Workspace

NO_CHOICE: Mapping[str, Any] = {"only": (), "first": (), "last": (), "is_forced": False}
"""All steps, and none by force."""
WORK_TO_DO = 3
"""The exit code of ``kflow plan --exit-code`` when a run would do something."""


def run(
    file: Path,
    overrides: Sequence[str] = (),
    choice: Mapping[str, Any] = NO_CHOICE,
    *,
    store: Path | None = None,
    remote: str | None = None,
    tells_by_code: bool = False,
    output: Path | None = None,
) -> int:
    """Print the verdict on each step, and write the plan down if that is wished."""
    before = installed()
    workspace = open_workspace(file)
    bound = load_workflow(file, parse_overrides(overrides), workspace, store)
    path, kept = plain_path(file), open_store(store)
    if output is not None:
        from kflow.cli.saved import Wanted, require_free, save_plan

        require_free(output, file, bound.workflow, workspace, kept.root)
    sharing = open_sharing(remote, pushes=False)
    planner = make_planner(bound, kept, workspace, path, sharing)
    chosen = choose_actions(planner, **choice).require_results(sharing)
    actions = chosen.actions
    told = describe_plan(actions, [bound.workflow.steps[action.step].spec.kind for action in actions])
    missing = list(_find_missing(bound, chosen.wanted, workspace))
    say("\n".join([told, *missing]))
    is_done = not missing and all(action.verdict is Verdict.REUSE for action in actions)
    if output is not None:
        save_plan(output, Wanted(file, overrides, choice), planner, actions)
    elif is_done and is_steady(file):
        from kflow.run.compiling import Scene, compile_plan

        compile_plan(Scene(file, bound, workspace, kept, before), chosen.wanted, told)
    return WORK_TO_DO if tells_by_code and not is_done else 0


def _find_missing(bound: Bound, actions: Sequence[Action], workspace: Workspace) -> Iterator[str]:
    """Say which files that the user asked for by path a run would put back from the store."""
    for action in actions:
        spec = bound.workflow.steps[action.step].spec
        if isinstance(action.entry, Entry) and spec.exports():
            for export in find_exports(spec, action.entry, workspace):
                if not export.is_in_place():
                    how = "holds something else" if export.target.exists() else "is not there"
                    yield visible(f"{near(export.target)} of step {action.step} {how}; a run puts it in place")
