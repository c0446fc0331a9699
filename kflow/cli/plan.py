"""``kflow plan``: tell what a run would do, and why."""

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from kflow.cli.loading import load_workflow, open_store, open_workspace, parse_overrides
from kflow.plan.planner import Planner
from kflow.report.tables import describe_plan
from kflow.run.record import previous_components


def run(file: Path, overrides: Sequence[str], store: Path | None) -> int:
    """Print the verdict on each step."""
    workspace = open_workspace(file)
    bound = load_workflow(file, parse_overrides(overrides), workspace)
    kept = open_store(store)
    planner = Planner(bound, kept, workspace, previous_components(kept.root, os.path.normpath(file)))
    actions = planner.preview()
    typer.echo(describe_plan(actions, [bound.workflow.steps[action.step].spec.kind for action in actions]))
    return 0
