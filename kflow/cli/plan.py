"""``kflow plan``: tell what a run would do, and why."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow.cli.loading import (
    choose_actions,
    load_workflow,
    open_sharing,
    open_store,
    open_workspace,
    parse_overrides,
    warn_of,
)
from kflow.cli.output import say
from kflow.plan.planner import Verdict
from kflow.report.tables import describe_plan
from kflow.run.compiled import installed
from kflow.run.previous import make_planner

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
    kept = open_store(store)
    if output is not None:
        from kflow.cli.saved import Wanted, require_free, save_plan

        require_free(output, file, bound.workflow, workspace, kept.root)
    sharing = open_sharing(remote, pushes=False)
    planner = make_planner(bound, kept, workspace, os.path.normpath(file), sharing)
    actions = choose_actions(planner, **choice)
    told = describe_plan(actions, [bound.workflow.steps[action.step].spec.kind for action in actions])
    warn_of(sharing)
    say(told)
    is_done = all(action.verdict is Verdict.REUSE for action in actions)
    if output is not None:
        save_plan(output, Wanted(file, overrides, choice), planner, actions)
    elif is_done:
        from kflow.run.compiling import Scene, compile_plan

        compile_plan(Scene(file, bound, workspace, kept, before), actions, told)
    return WORK_TO_DO if tells_by_code and not is_done else 0
