"""Saved plans on the command line: writing one, and holding a run to it."""

import hashlib
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import __version__, durable
from kflow.cli.loading import choose_actions
from kflow.errors import UsageError
from kflow.plan.planner import Action, Planner
from kflow.plan.saved import PlanChangedError, SavedPlan, describe_steps, is_saved_plan, read_plan

_OPTIONS = {"only": "--only", "first": "--from", "last": "--until"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is planned: a workflow file, with the wishes that the command line has for it."""

    file: Path
    overrides: Sequence[str]
    choice: Mapping[str, Any]


def save_plan(plan: Path, wanted: Wanted, planner: Planner, actions: Sequence[Action]) -> None:
    """Write a plan down.

    Raises
    ------
    UsageError
        If it would take the place of the workflow, or cannot be written.
    """
    if os.path.realpath(plan) == os.path.realpath(wanted.file):
        message = f"-o {plan}: this is the workflow itself; name another file"
        raise UsageError(message)
    try:
        durable.write_text(plan, _describe(plan, wanted, planner, actions).to_json())
    except OSError as error:
        message = f"-o {plan}: {error.strerror}"
        raise UsageError(message) from None


def find_plan(file: Path) -> SavedPlan | None:
    """Return the saved plan in a file; None where it is meant to be a workflow."""
    try:
        if not file.is_file():  # opening a pipe may wait for ever
            return None
        with file.open("rb") as stream:
            head = stream.read(64)
            if not is_saved_plan(file.name, head):
                return None
            return read_plan((head + stream.read()).decode("utf-8", "replace"), str(file))
    except OSError:  # reading the workflow tells why
        return None


def locate_workflow(plan: SavedPlan, file: Path) -> Path:
    """Return the workflow of a plan, as it would be named here.

    Raises
    ------
    UsageError
        If it is not there.
    """
    found = Path(os.path.relpath(file.parent / plan.workflow))
    if Path(plan.workflow).is_absolute():
        found = Path(plan.workflow)
    if not found.is_file():
        message = f"{file}: there is no {found}, which it plans; keep the plan where it was made, or plan anew there"
        raise UsageError(message)
    return found


def require_same(plan: SavedPlan, file: Path, workflow: Path, planner: Planner) -> None:
    """Make sure, before anything runs, that what was planned is what would be run now.

    Raises
    ------
    PlanChangedError
        With everything that changed since.
    """
    wanted = Wanted(workflow, plan.overrides, plan.choice)
    changes = plan.find_changes(_describe(file, wanted, planner, choose_actions(planner, **plan.choice)))
    if changes:
        lines = [f"{file} is not what would be run now:", *(f"  {change}" for change in changes)]
        raise PlanChangedError("\n".join([*lines, f"nothing was run; '{_command(plan, workflow, file)}' plans anew"]))


def _describe(plan: Path, wanted: Wanted, planner: Planner, actions: Sequence[Action]) -> SavedPlan:
    workflow, file = planner.bound.workflow, wanted.file
    return SavedPlan(
        workflow=str(file) if file.is_absolute() else os.path.relpath(file, plan.parent),
        sha256=hashlib.sha256(workflow.document.source.text.encode("utf-8")).hexdigest(),
        overrides=list(wanted.overrides),
        choice=dict(wanted.choice),
        seed=workflow.seed,
        params=dict(workflow.params),
        versions={"kflow": __version__, "python": platform.python_version()},
        steps=describe_steps(planner, actions),
    )


def _command(plan: SavedPlan, workflow: Path, file: Path) -> str:
    """Return the command that makes a plan with the same wishes."""
    words = ["kflow", "plan", str(workflow)]
    words += [word for text in plan.overrides for word in ("--set", text)]
    words += [word for name, option in _OPTIONS.items() for step in plan.choice[name] for word in (option, step)]
    words += ["--force"] if plan.choice["is_forced"] else []
    return shlex.join([*words, "-o", str(file)])
