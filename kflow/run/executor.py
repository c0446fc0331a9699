"""The executor: starts the steps that are ready, reuses or runs each, and keeps the record.

Steps run in threads of their own, most of them by way of a worker process. Everything that is known of a run is
changed by the main thread alone, which takes what the others have to say from one queue.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, Literal

from kflow.errors import Interrupted, RunError
from kflow.plan.planner import Action, Planner, Verdict
from kflow.plan.resolve import Bound
from kflow.plan.select import Needs, needed
from kflow.run import events
from kflow.run.journal import Journal
from kflow.run.lock import LockError
from kflow.run.outcomes import end_step, finish, keep
from kflow.run.process import Workers
from kflow.run.record import (
    RunRecord,
    new_record,
    previous_components,
    write_record,
)
from kflow.run.schedule import Demand, Schedule, machine
from kflow.run.sharing import BothStores, Sharing, expect
from kflow.run.state import Run, Running, Wishes, is_selected
from kflow.run.steps import Crew, Job, Outcome, carry_out
from kflow.spec.base import input_paths, walk
from kflow.spec.types import Symbol
from kflow.store.entry import Entry
from kflow.store.locks import held
from kflow.store.remote import Expected
from kflow.store.store import Store
from kflow.workspace import Workspace

_BEGUN, _PUSHED = {"event": "begun"}, {"event": "pushed"}
"""What the thread of a step says before it runs the step, and when the remote has the result."""


def make_planner(
    bound: Bound, store: Store, workspace: Workspace, path: str, sharing: Sharing | None = None
) -> Planner:
    """Return a planner that knows the last run of the workflow at a path, and may look into a remote."""
    lookup = BothStores(store, sharing.remote) if sharing else store
    return Planner(bound, lookup, workspace, previous_components(store.root, path, bound.order))


def execute(
    bound: Bound,
    store: Store,
    workspace: Workspace,
    path: str,
    report: events.Reporter,
    *,
    wishes: Wishes | None = None,
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
    folder = store.root / "runs" / record.id
    try:
        (folder / "logs").mkdir(parents=True)
        journal = Journal(folder)
    except OSError as error:
        message = f"the store {store.root} cannot be written: {error.strerror}"
        raise RunError(message) from None
    store.sweep()
    run = Run(
        bound,
        store,
        workspace,
        report,
        make_planner(bound, store, workspace, path),
        record,
        folder,
        wishes,
        machine(_visible_gpus(), wishes.jobs),
        Schedule(_wanted(bound.needs, wishes.selected)),
        Crew(store, Workers(), wishes.sharing.remote.over if wishes.sharing else threading.Event(), wishes.sharing),
        journal,
    )
    report(events.RunStarted(record.id, path, bound.order))
    with held(folder), journal:  # as long as it is held, a record that says "running" is true
        _carry_out(run)
    return run.record


def _wanted(needs: Needs, selected: Collection[str] | None) -> Needs:
    """Leave out the steps that neither were selected nor are needed by one that was."""
    wanted = set(needs) if selected is None else needed(needs, selected)
    return {name: before for name, before in needs.items() if name in wanted}


def _visible_gpus() -> tuple[str, ...]:
    from kflow.core.devices import visible_gpus

    return visible_gpus()


def _carry_out(run: Run) -> None:
    """Do all steps, and close the record whatever happens."""
    try:
        write_record(run.record, run.folder)
        _do_steps(run)
        finish(run, "failed" if run.has_failed else "succeeded")
    except KeyboardInterrupt:
        _give_up(run, "interrupted")
        raise Interrupted("interrupted; 'kflow run' continues from the last finished step") from None
    except LockError as error:
        _give_up(run, "failed", str(error))
        raise
    except OSError as error:
        message = f"{error.filename2 or error.filename or run.store.root}: {error.strerror or error}"
        _give_up(run, "failed", message)
        raise RunError(message) from None
    finally:
        _end_steps(run)


def _do_steps(run: Run) -> None:
    """Start what may start, and take what the steps have to say, until nothing is left to do."""
    while True:
        _start_ready(run)
        if not run.running and not run.pushing:
            return
        step, news = run.inbox.get()
        if news == _BEGUN:
            run.report(events.StepStarted(step, run.record.steps[step].kind, run.decided[step].reason))
        elif news == _PUSHED:
            run.pushing.discard(step)
        elif isinstance(news, Mapping):
            run.report(events.StepProgress(step, news))
        else:
            _end(run, step, news)


def _end(run: Run, step: str, outcome: Any) -> None:
    """Take what came of a step; its thread goes on to push what it made."""
    if _is_pushed(run.crew, outcome):
        run.pushing.add(step)
    end_step(run, step, outcome)
    if run.wishes.lock and step in run.entries:
        _require(run.wishes.lock.check_outputs(step, run.entries[step].digests))


def _end_steps(run: Run) -> None:
    """Stop what still runs; a step in the runner notices at its next word."""
    run.crew.over.set()
    run.crew.workers.stop()
    for each in run.running.values():
        each.thread.join(5)


def _give_up(run: Run, status: Literal["interrupted", "failed"], error: str | None = None) -> None:
    """Close the record of a run that ended in the middle of its steps; on a full disk it stays as it was."""
    _end_steps(run)
    for name in run.running:
        step = run.record.steps[name]
        step.status, step.error = status, error
    with contextlib.suppress(OSError):
        finish(run, status)


def _start_ready(run: Run) -> None:
    """Reuse every step that can be, and start those that the machine has room for."""
    for name in run.schedule.ready():
        if not run.capacity.has_room([each.demand for each in run.running.values()]):
            return
        action = run.decided.get(name) or _decide(run, name)
        if action.verdict is Verdict.REUSE:
            assert isinstance(action.entry, Entry), "the store of a run gives entries"
            run.report(events.StepReused(name, run.record.steps[name].kind))
            run.schedule.start(name)
            keep(run, name, action.entry, "reused")
        elif _may_run(run, name) or _may_pull(run, name):
            _start(run, name, action)


def _decide(run: Run, name: str) -> Action:
    """Take the verdict on a step whose inputs are all there."""
    action = run.planner.decide(name, run.digests, is_forced=run.wishes.is_forced and is_selected(run, name))
    step = run.record.steps[name]
    step.verdict, step.reason = action.verdict.value, action.reason
    step.fingerprint, step.components = action.fingerprint, dict(action.components or {})
    step.inputs = dict(step.components.get("inputs", {}))
    if action.verdict is Verdict.REUSE and not _take(run, name, action):
        return _decide(run, name)
    if run.wishes.lock:
        _require(run.wishes.lock.check_action(action))
    run.decided[name] = action
    return action


def _require(misses: list[str]) -> None:
    """End the run where it differs from its lock."""
    if misses:
        raise LockError("; ".join(misses) + " (--locked)")


def _take(run: Run, name: str, action: Action) -> bool:
    """Note that an entry is used; one that is not whole, and whose files the user wants to have, is set aside."""
    assert action.fingerprint is not None, "a result that is reused has one"
    entry = run.store.take(action.fingerprint)
    if entry is None:
        return False
    if run.wishes.exports and run.bound.workflow.steps[name].spec.exports() and not run.store.is_sound(entry):
        run.store.set_aside(action.fingerprint)
        return False
    return True


def _may_run(run: Run, name: str) -> bool:
    if not is_selected(run, name) or (run.has_failed and not run.wishes.keeps_going):
        return False
    return run.capacity.admits(_demand(run, name), [each.demand for each in run.running.values()])


def _may_pull(run: Run, name: str) -> bool:
    """Tell whether a step that was not selected, and is needed, may be looked for elsewhere."""
    return run.crew.sharing is not None and not is_selected(run, name) and not run.has_failed


def _demand(run: Run, name: str) -> Demand:
    spec = run.bound.workflow.steps[name].spec
    gpus = run.workspace.gpus(spec.gpus_wanted())
    return Demand(min(spec.cpus_wanted(), run.capacity.cpus), spec.resources.memory or 0, gpus)


def _start(run: Run, name: str, action: Action) -> None:
    """Give a step a thread, and the GPUs that it wants."""
    assert action.fingerprint is not None, "every input is known here"
    demand = _demand(run, name)
    taken = {gpu for each in run.running.values() for gpu in each.gpus}
    gpus = tuple(gpu for gpu in run.capacity.gpus if gpu not in taken)[: demand.gpus]
    spec = run.bound.workflow.steps[name].spec
    inputs = {link.step: run.entries[link.step] for link in run.bound.links[name]}
    job = Job(
        name,
        spec,
        action.fingerprint,
        _task(run, name, len(gpus)),
        gpus,
        inputs,
        action.is_forced,
        _expected(run, action, inputs),
        is_selected(run, name),
    )
    step = run.record.steps[name]
    step.status = "running"
    run.journal.note(name, step.model_dump(mode="json"), is_end=False)
    thread = threading.Thread(target=_work, args=(run, job), daemon=True, name=f"step {name}")
    run.schedule.start(name)
    run.running[name] = Running(thread, demand, gpus, time.monotonic())
    thread.start()


def _expected(run: Run, action: Action, inputs: Mapping[str, Entry]) -> Expected | None:
    """Say what the remote is asked for; nothing for a step that is to be run in any case."""
    if run.crew.sharing is None or action.is_forced:
        return None
    assert action.fingerprint is not None, "every input is known here"
    spec, around = run.bound.workflow.steps[action.step].spec, run.workspace
    files = {around.file_digest(path): around.resolve(path) for _, path in input_paths(spec)}
    return expect(spec, action.fingerprint, action.components or {}, files, inputs)


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


def _task(run: Run, name: str, gpus: int) -> dict[str, Any]:
    """Say all that a worker must know, but for the place to write to."""
    spec = run.bound.workflow.steps[name].spec
    return {
        "kind": spec.kind,
        "fields": spec.model_dump(mode="json"),
        "root": str(run.workspace.root),
        "log": str(run.folder / "logs" / f"{name}.log"),
        "echo": run.wishes.shows_output,
        "seed": run.bound.workflow.seed,
        "gpus": gpus,
        "artifacts": _inputs(run, name),
        "sources": {
            leaf.module: run.workspace.sources(leaf.module) for _, leaf in walk(spec) if isinstance(leaf, Symbol)
        },
    }


def _inputs(run: Run, name: str) -> dict[str, Any]:
    found = {}
    for link in run.bound.links[name]:
        entry = run.entries[link.step]
        output = entry.manifest.outputs[link.output]
        found[link.text] = {
            "type": output.type,
            "description": output.description,
            "folder": str(entry.folder / link.output),
        }
    return found
