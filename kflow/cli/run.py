"""``kflow run``: run a workflow."""

import io
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kflow.cli import heed_no_more
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
from kflow.cli.saved import find_plan, locate_workflow, minding_what_is_gone, require_same
from kflow.errors import UsageError
from kflow.plan.planner import Planner
from kflow.plan.resolve import Bound
from kflow.plan.select import needed, select_steps
from kflow.report.console import Console
from kflow.run import events
from kflow.run.compiled import installed
from kflow.run.compiling import Scene, compile_run
from kflow.run.executor import execute
from kflow.run.lock import Lock, LockError, lock_path, own_lock_path, read_lock
from kflow.run.previous import make_planner
from kflow.run.state import Run, Wishes
from kflow.store.entry import Entry


def run(
    file: Path,
    overrides: Sequence[str],
    choice: Mapping[str, Any],
    wishes: Mapping[str, Any],
    store: Path | None,
    *,
    remote: str | None,
    pushes: bool,
    is_locked: bool,
    is_debug: bool,
) -> int:
    """Run the workflow; the exit code is 1 if a step failed."""
    heed_signals()
    before, plan, given = installed(), find_plan(file), file
    if plan is not None:
        if overrides or is_locked or any(choice.values()):
            message = f"{file} is a plan and says what is run: --set, --only, --from, --until, --force, --locked cannot"
            raise UsageError(message)
        file, overrides, choice = locate_workflow(plan, file), plan.overrides, plan.choice
    sharing = open_sharing(remote, pushes=pushes)
    workspace = open_workspace(file)
    is_forced, names = choice["is_forced"], {name: choice[name] for name in ("only", "first", "last")}
    with minding_what_is_gone(plan, given, file):
        bound = load_workflow(file, parse_overrides(overrides), workspace, store)
        selected = select_steps(bound.needs, **names)
    path, kept = plain_path(file), open_store(store)
    lock = _check_lock(bound, file, make_planner(bound, kept, workspace, path), selected) if is_locked else None
    if plan is not None:
        require_same(plan, given, file, make_planner(bound, kept, workspace, path, sharing))
    elif selected is not None:
        choose_actions(make_planner(bound, kept, workspace, path, sharing), **choice).require_results(sharing)

    def compile_it(done: Run) -> None:
        if is_steady(given):
            compile_run(Scene(file, bound, workspace, kept, before), done, _render)

    console = Console(is_debug=is_debug)
    try:
        wanted = Wishes(**wishes, selected=selected, is_forced=is_forced, lock=plan or lock, sharing=sharing)
        record = execute(bound, kept, workspace, path, console, wishes=wanted, then=compile_it)
    finally:
        console.close()
    return 0 if record.status == "succeeded" else 1


def _render(happened: Sequence[events.Event]) -> str:
    """Return what the console would print."""
    stream = io.StringIO()
    console = Console(stream)
    for each in happened:
        console(each)
    return stream.getvalue()


def heed_signals() -> None:
    """Let every signal that asks a run to stop end it in good order."""
    # Set on purpose: in a container the first process ignores SIGTERM unless it says otherwise, and a
    # command started with & inherits SIGINT ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is respected
        signal.signal(signal.SIGHUP, _interrupt)


def _check_lock(bound: Bound, file: Path, planner: Planner, selected: Collection[str] | None) -> Lock:
    """Compare with the lock all that can be told before a run, of the steps that it is about."""
    lock = read_lock(own_lock_path(file))
    wanted = set(bound.order) if selected is None else needed(bound.needs, selected)
    misses = lock.check_names(bound.workflow.steps) if selected is None else []
    for action in planner.preview():
        if action.step not in wanted:
            continue
        misses += lock.check_action(action)
        if action.entry:
            assert isinstance(action.entry, Entry), "it comes from the store"
            misses += lock.check_outputs(action.step, action.entry.digests, action.entry.metrics)
    if misses:
        raise LockError("\n".join([f"{file} differs from {lock_path(file)}:", *(f"  {miss}" for miss in misses)]))
    return lock


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the run, and let nothing disturb the tidying up: timeout and docker send several signals."""
    del number, frame
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, heed_no_more)
    raise KeyboardInterrupt
