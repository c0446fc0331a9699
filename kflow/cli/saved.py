"""Saved plans on the command line: writing one, and holding a run to it."""

import contextlib
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import __version__, durable
from kflow.cli.loading import choose_actions, plain_path
from kflow.cli.output import say
from kflow.errors import GoneError, UsageError
from kflow.plan.outputs import find_uses
from kflow.plan.planner import Action, Planner
from kflow.plan.saved import PlanChangedError, SavedPlan, describe_steps, is_saved_plan, read_plan
from kflow.run.lock import lock_path
from kflow.spec.workflow import Workflow
from kflow.workspace import Workspace

_OPTIONS = {"only": "--only", "first": "--from", "last": "--until"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is planned: a workflow file, with the wishes that the command line has for it."""

    file: Path
    overrides: Sequence[str]
    choice: Mapping[str, Any]


def save_plan(plan: Path, wanted: Wanted, planner: Planner, actions: Sequence[Action]) -> None:
    """Write a plan down, in a place that was found free.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    try:
        durable.write_text(plan, _describe(plan, wanted, planner, actions).to_json())
    except OSError as error:
        message = f"-o {plan}: {error.strerror}"
        raise UsageError(message) from None


def require_free(plan: Path, file: Path, workflow: Workflow, workspace: Workspace, store: Path) -> None:
    """Make sure that a plan would take the place of nothing, or of an older plan.

    Raises
    ------
    UsageError
        If the file belongs to the workflow, there or still to come, or to the store, or is another one that holds
        something.
    """
    uses = {
        **dict(find_uses(workflow, workspace)),
        os.path.realpath(lock_path(file)): "this is the lock of the workflow",
        os.path.realpath(file): "this is the workflow itself",
    }
    use = uses.get(os.path.realpath(plan))
    if plan.is_dir() or str(plan) == "-":
        use = "this names no file"
    elif Path(os.path.realpath(plan)).is_relative_to(os.path.realpath(store)):
        use = "this is in the store"
    elif use is None and _holds_something_else(plan):
        use = "this file is no saved plan, and would be gone"
    if use is not None:
        message = f"-o {plan}: {use}; name another file"
        raise UsageError(message)


def _holds_something_else(plan: Path) -> bool:
    """Tell whether there is a file that is no saved plan; what cannot be a file is told when it is written."""
    try:
        with open(plan, "rb", opener=durable.open_at_once) as stream:
            head = stream.read(64)
    except OSError:
        return plan.is_file()
    return bool(head) and not is_saved_plan("", head)


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
    found = Path(os.path.relpath(plain_path(file.parent / plan.workflow)))
    if Path(plan.workflow).is_absolute():
        found = Path(plan.workflow)
    if not found.is_file():
        message = f"{file}: there is no {found}, which it plans; keep the plan where it was made, or plan anew there"
        raise UsageError(message)
    return found


def require_same(plan: SavedPlan, file: Path, workflow: Path, planner: Planner) -> None:
    """Make sure, before anything runs, that what was planned is what would be run now, and tell what was done since.

    Raises
    ------
    PlanChangedError
        With everything that changed since.
    """
    wanted = Wanted(workflow, plan.overrides, plan.choice)
    chosen = choose_actions(planner, **plan.choice)
    present = _describe(file, wanted, planner, chosen.actions)
    changes = plan.find_changes(present) + ([chosen.describe_gap()] if chosen.gap else [])
    if changes:
        raise _refuse(plan, file, workflow, changes)
    done = plan.find_done(present)
    if done:
        names = ", ".join(done[:5]) + (", ..." if len(done) > 5 else "")
        say(f"{file}: done since it was made, and reused: {names}")


@contextlib.contextmanager
def minding_what_is_gone(plan: SavedPlan | None, file: Path, workflow: Path) -> Iterator[None]:
    """Refuse a plan whose wishes name what the workflow does not have any more: it has changed since.

    Raises
    ------
    PlanChangedError
        Instead of the error about an option, which nobody has given now.
    """
    try:
        yield
    except GoneError as error:
        if plan is None:
            raise
        raise _refuse(plan, file, workflow, [f"the file {plan.workflow} was changed", error.change]) from None


def _refuse(plan: SavedPlan, file: Path, workflow: Path, changes: Sequence[str]) -> PlanChangedError:
    lines = [f"{file} is not what would be run now:", *(f"  {change}" for change in changes)]
    return PlanChangedError("\n".join([*lines, f"nothing was run; '{_command(plan, workflow, file)}' plans anew"]))


def _describe(plan: Path, wanted: Wanted, planner: Planner, actions: Sequence[Action]) -> SavedPlan:
    workflow, file = planner.bound.workflow, wanted.file
    return SavedPlan(
        workflow=str(file) if file.is_absolute() else _way(plan, file),
        sha256=workflow.document.sha256,
        overrides=list(wanted.overrides),
        choice=dict(wanted.choice),
        seed=workflow.seed,
        params=dict(workflow.params),
        versions={"kflow": __version__, "python": platform.python_version()},
        steps=describe_steps(planner, actions),
    )


def _way(plan: Path, file: Path) -> str:
    """Return the path of a file from the folder of a plan, as both are named, unless a link on the way forbids it."""
    way = os.path.relpath(plain_path(file), plan.parent)
    folder, name = os.path.split(file)
    if os.path.realpath(plan.parent / way) == os.path.realpath(file):
        return way
    return os.path.relpath(os.path.join(os.path.realpath(folder), name), os.path.realpath(plan.parent))  # noqa: PTH118


def _command(plan: SavedPlan, workflow: Path, file: Path) -> str:
    """Return the command that makes a plan with the same wishes."""
    words = ["kflow", "plan", str(workflow)]
    words += [word for text in plan.overrides for word in ("--set", text)]
    words += [word for name, option in _OPTIONS.items() for step in plan.choice[name] for word in (option, step)]
    words += ["--force"] if plan.choice["is_forced"] else []
    return shlex.join([*words, "-o", str(file)])
