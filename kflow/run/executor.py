"""The executor: starts the steps that are ready, reuses or runs each, and keeps the record.

Steps run in threads, most of them by way of a worker process. Everything that is known of a run is
changed by the main thread alone, which takes what the others have to say from one queue.
"""

import contextlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from kflow import durable
from kflow.errors import Interrupted, PromiseError, RunError, describe_disk_error, listed
from kflow.plan.planner import Action, Verdict
from kflow.plan.resolve import Bound
from kflow.plan.select import Needs, needed
from kflow.run import events
from kflow.run.crew import BEGUN, Crew, Job, Outcome, StepFailure
from kflow.run.jobs import make_job
from kflow.run.journal import Journal
from kflow.run.leases import Leases
from kflow.run.outcomes import end_step, fail, finish, keep_stored, note_log, without_values
from kflow.run.previous import make_planner
from kflow.run.record import RunRecord, new_record, write_record
from kflow.run.schedule import Demand, Schedule, machine
from kflow.run.state import Promise, Run, Running, Wishes, is_selected
from kflow.run.steps import carry_out, runs_here
from kflow.run.workers import Workers
from kflow.store.entry import Entry
from kflow.store.locks import held
from kflow.store.removal import sweep
from kflow.store.store import Store
from kflow.workspace import Workspace

_PUSHED = object()
"""What the thread of a step says when the remote has the result, known by its identity as well."""
_HEED = 0.25
"""Seconds: a signal that the kernel gives to another thread does not wake the main one, and only that heeds it."""


def execute(
    bound: Bound,
    store: Store,
    workspace: Workspace,
    path: str,
    report: events.Reporter,
    *,
    wishes: Wishes | None = None,
    then: Callable[[Run], None] = lambda _: None,
) -> RunRecord:
    """Run a workflow.

    Parameters
    ----------
    bound : Bound
        A workflow that holds together.
    store : Store
        Where results are looked up and kept.
    workspace : Workspace
        The folder of the workflow file.
    path : str
        The workflow file, as the record names it.
    report : callable
        Takes every event.
    wishes : Wishes, optional
        How it is to be carried out; default all of it, and no more at once than there are processors for.
    then : callable, optional
        Takes a run that succeeded, with all that is known of it.

    Returns
    -------
    RunRecord
        The record, as it was written; its status is succeeded or failed.

    Raises
    ------
    Interrupted
        After Ctrl-C or SIGTERM; the record says so, and what was finished is kept.
    RunError
        If the store cannot be written.
    """
    wishes = wishes or Wishes()
    record = new_record(bound, workspace.root, path)
    gpus = _visible_gpus()
    over = wishes.sharing.remote.over if wishes.sharing else threading.Event()
    run = Run(
        bound,
        store,
        workspace,
        report,
        make_planner(bound, store, workspace, path),
        record,
        store.root / "runs" / record.id,
        wishes,
        machine(len(gpus), wishes.jobs),
        Schedule(_wanted(bound.needs, wishes.selected)),
        Crew(store, Workers(), over, Leases(gpus), wishes.sharing),
    )
    with contextlib.ExitStack() as stack:
        try:
            _open_record(run, stack)
        except OSError as error:
            _refuse_to_run(run, error)
        sweep(store)
        report(events.RunStarted(record.id, path, bound.order))
        _carry_out(run)
    if run.record.status == "succeeded":
        then(run)
    return run.record


def _open_record(run: Run, stack: contextlib.ExitStack) -> None:
    """Begin the record of a run, which is held for the length of a block."""
    try:
        durable.make_folder(run.folder / "logs")
        stack.enter_context(held(run.folder))  # as long as it is held, a record that says "running" is true
        journal = stack.enter_context(Journal(run.folder))
        write_record(run.record, run.folder)
    except OSError:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    run.journal = journal


def _refuse_to_run(run: Run, error: OSError) -> None:
    """Go on without a record where the store cannot be written, unless there is something to be run."""
    selected = run.bound.order if run.wishes.selected is None else run.wishes.selected
    actions = run.planner.preview(selected, is_forced=run.wishes.is_forced)
    undone = [each.step for each in actions if each.step in run.schedule.needs and each.verdict is not Verdict.REUSE]
    run.unwritten = describe_disk_error(error, run.folder, run.store.root)
    if undone:
        message = f"the store {run.store.root} cannot be written, and there is work to do ({listed(undone, 3)})"
        raise RunError(f"{message}: {run.unwritten}") from None


def _wanted(needs: Needs, selected: Collection[str] | None) -> Needs:
    """Leave out the steps that neither were selected nor are needed by one that was."""
    wanted = set(needs) if selected is None else needed(needs, selected)
    return {name: before for name, before in needs.items() if name in wanted}


def _visible_gpus() -> tuple[str, ...]:
    from kflow.core.parallel.devices import visible_gpus

    return visible_gpus()


def _carry_out(run: Run) -> None:
    """Do all steps, and close the record whatever happens."""
    try:
        _do_steps(run)
        _tell_of_blocked(run)
        finish(run, "failed" if run.has_failed else "succeeded")
    except KeyboardInterrupt:
        _give_up(run, "interrupted")
        raise Interrupted("interrupted; 'kflow run' continues from the last finished step") from None
    except PromiseError as error:
        _give_up(run, "failed", str(error))
        raise
    except OSError as error:
        message = describe_disk_error(error, run.store.root, run.store.root)
        _give_up(run, "failed", message)
        raise RunError(message) from None
    finally:
        _end_steps(run)


def _do_steps(run: Run) -> None:
    """Start what may start, and take what the steps have to say, until nothing is left to do."""
    while True:
        _start_ready(run)
        run.at = None
        if not run.running and not run.pushing:
            return
        step, news = _next_word(run)
        run.at = step
        if news is BEGUN:
            run.running[step] = replace(run.running[step], began=time.monotonic())  # it may have waited
            run.report(events.StepStarted(step, run.record.steps[step].kind, run.decided[step].reason))
        elif news is _PUSHED:
            run.pushing.remove(step)
        elif isinstance(news, Mapping):
            run.report(events.StepProgress(step, news))
        else:
            _end(run, step, news)


def _tell_of_blocked(run: Run) -> None:
    """Fail the chosen steps that wait for one that was not chosen and has lost its result since the run began."""
    if run.has_failed:
        return
    lost_above: dict[str, str] = {}
    for name, needs in run.schedule.needs.items():
        lost = next((lost_above[each] for each in needs if each in lost_above), None)
        if name in run.entries:
            continue
        if not is_selected(run, name):
            lost_above[name] = lost or name
        elif lost:
            why = f"it needs step {lost!r}, which was not chosen and has no result to reuse any more"
            fail(run, name, StepFailure(f"{why}; a run with '--until {name}' makes both"))


def _end(run: Run, step: str, outcome: Any) -> None:
    """Take what came of a step; its thread goes on to push what it made."""
    if _is_pushed(run.crew, outcome):
        run.pushing.append(step)
    end_step(run, step, outcome)
    if step in run.entries:
        _hold_to_promise(run, step)


def _hold_to_promise(run: Run, step: str) -> None:
    """End the run where it was to give something else."""
    if run.wishes.lock:
        entry = run.entries[step]
        _require(run.wishes.lock, run.wishes.lock.check_outputs(step, entry.digests, entry.metrics))


def _next_word(run: Run) -> tuple[str, Any]:
    """Take what a step has to say."""
    while True:
        due = run.journal.catch_up() if run.journal else None
        with contextlib.suppress(queue.Empty):
            return run.inbox.get(timeout=_HEED if due is None else min(due, _HEED))


def _end_steps(run: Run) -> None:
    """Stop what still runs; a step in the runner notices at its next word."""
    run.crew.over.set()
    run.crew.workers.stop()
    run.threads.stop()


def _give_up(run: Run, status: Literal["interrupted", "failed"], error: str | None = None) -> None:
    """Close the record of a run that ended in the middle of its steps; on a full disk it stays as it was."""
    _end_steps(run)
    for name in run.running:
        run.record.steps[name].status = "interrupted"
        note_log(run, name)
    if error and run.at:
        step = run.record.steps[run.at]
        step.error = without_values(run, run.at, error)
        if step.status not in {"run", "reused"}:  # else it is done, and differs from what was promised
            step.status = "failed"
    with contextlib.suppress(OSError):
        finish(run, status)


def _start_ready(run: Run) -> None:
    """Reuse every step that can be, and start those that the machine has room for."""
    for name in run.schedule.ready():
        run.at = name
        if not run.capacity.has_room([each.demand for each in run.running.values()]):
            return
        action = run.decided.get(name) or _decide(run, name)
        if action.verdict is Verdict.REUSE:
            assert isinstance(action.entry, Entry), "the store of a run gives entries"
            run.schedule.start(name)
            keep_stored(run, name, action.entry)
            _hold_to_promise(run, name)
        elif _may_run(run, name) or _may_pull(run, name):
            _start(run, name, action)


def _decide(run: Run, name: str) -> Action:
    """Take the verdict on a step whose inputs are all there."""
    is_forced = run.wishes.is_forced and is_selected(run, name) and name not in run.yielding
    action = run.planner.decide(name, run.digests, is_forced=is_forced)
    step = run.record.steps[name]
    step.verdict, step.reason = action.verdict.value, action.reason
    step.fingerprint, step.components = action.fingerprint, dict(action.components or {})
    step.inputs = dict(step.components.get("inputs", {}))
    if action.entry and not _take(run, action):
        return _decide(run, name)
    if action.entry and _is_spoilt(run, action):
        # Who runs it sets it aside, when nobody else is making it anew.
        action = replace(action, verdict=Verdict.RUN, reason="its stored result is damaged", entry=None)
        step.verdict, step.reason = action.verdict.value, action.reason
    if run.wishes.lock:
        _require(run.wishes.lock, run.wishes.lock.check_action(action))
    run.decided[name] = action
    return action


def _require(promise: Promise, misses: list[str]) -> None:
    """End the run where it differs from what it is held to."""
    if misses:
        raise promise.refuse(misses)


def _take(run: Run, action: Action) -> bool:
    """Note that an entry is used; tell whether it is still there."""
    assert isinstance(action.entry, Entry), "the store of a run gives entries"
    return run.store.take(action.entry)


def _is_spoilt(run: Run, action: Action) -> bool:
    """Tell whether a result whose files the user wants to have does not hold what was published."""
    assert isinstance(action.entry, Entry), "the store of a run gives entries"
    is_wanted = run.wishes.exports and run.bound.workflow.steps[action.step].spec.exports()
    return bool(is_wanted) and not run.store.is_sound(action.entry)


def _may_run(run: Run, name: str) -> bool:
    if not is_selected(run, name) or run.crew.starts_no_more.is_set():
        return False
    return run.capacity.admits(_demand(run, name), [each.demand for each in run.running.values()])


def _may_pull(run: Run, name: str) -> bool:
    """Tell whether a step that was not selected, and is needed, may be looked for elsewhere."""
    return run.crew.sharing is not None and not is_selected(run, name) and not run.crew.starts_no_more.is_set()


def _demand(run: Run, name: str) -> Demand:
    step = run.bound.workflow.steps[name]
    gpus = run.workspace.gpus(step.spec.gpus_wanted())
    return Demand(min(step.cpus, run.capacity.cpus), step.spec.resources.memory or 0, gpus)


def _start(run: Run, name: str, action: Action) -> None:
    """Give a step to a thread."""
    demand = _demand(run, name)
    job = make_job(run, action, demand.gpus)
    step = run.record.steps[name]
    step.status = "running"
    run.note(name, is_end=False)
    run.schedule.start(name)
    run.threads.call(partial(_work, run, job), beside=len(run.running) + len(run.pushing))
    run.running[name] = Running(demand, time.monotonic(), not runs_here(job), job.inputs)


def _work(run: Run, job: Job) -> None:
    """Carry a step out, in its thread, and tell what came of it; those that hang on it do not wait for the push."""

    def tell(news: Any) -> None:
        run.inbox.put((job.name, news))

    try:
        outcome: Any = carry_out(job, run.crew, tell)
    except Exception as error:  # noqa: BLE001  the main thread tells it as what it is
        outcome = error
    tell(outcome)
    if _is_pushed(run.crew, outcome):
        assert run.crew.sharing is not None, "it was asked"
        try:
            run.crew.sharing.push(outcome.entry, tell)
        finally:
            tell(_PUSHED)


def _is_pushed(crew: Crew, outcome: Any) -> bool:
    is_made = isinstance(outcome, Outcome) and outcome.origin == "made"
    return is_made and crew.sharing is not None and crew.sharing.pushes
