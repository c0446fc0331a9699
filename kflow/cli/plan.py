"""``kflow plan``: tell what a run would do, and why."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from kflow.cli.loading import (
    choose_actions,
    load_workflow,
    open_sharing,
    open_store,
    open_workspace,
    parse_overrides,
    warn_of,
)
from kflow.plan.planner import Verdict
from kflow.report.tables import describe_plan
from kflow.run.executor import make_planner

WORK_TO_DO = 3
"""The exit code of ``kflow plan --exit-code`` when a run would do something."""


def run(
    file: Path,
    overrides: Sequence[str],
    choice: Mapping[str, Any],
    store: Path | None,
    remote: str | None,
    *,
    tells_by_code: bool,
) -> int:
    """Print the verdict on each step."""
    workspace = open_workspace(file)
    bound = load_workflow(file, parse_overrides(overrides), workspace)
    sharing = open_sharing(remote, pushes=False)
    planner = make_planner(bound, open_store(store), workspace, os.path.normpath(file), sharing)
    actions = choose_actions(planner, **choice)
    warn_of(sharing)
    typer.echo(describe_plan(actions, [bound.workflow.steps[action.step].spec.kind for action in actions]))
    is_done = all(action.verdict is Verdict.REUSE for action in actions)
    return WORK_TO_DO if tells_by_code and not is_done else 0
