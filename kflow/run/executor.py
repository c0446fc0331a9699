"""The executor: starts the steps that are ready, reuses or runs each, and keeps the record.

Steps run in threads of their own, most of them by way of a worker process. Everything that is known of a run is
changed by the main thread alone, which takes what the others have to say from one queue.
"""

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kflow.artifacts import digest_file
from kflow.diagnostics import Diagnostic
from kflow.errors import Interrupted, RunError
from kflow.plan.planner import Action, Planner, Verdict
from kflow.plan.resolve import Bound
from kflow.plan.select import Needs, needed
from kflow.run import events
from kflow.run.journal import Journal
from kflow.run.process import Workers
from kflow.run.record import (
    OutputRecord,
    RunRecord,
    StepRecord,
    WorkflowRecord,
    close_record,
    describe_platform,
    devices,
    git_state,
    now,
    previous_components,
    versions,
    write_record,
)
from kflow.run.schedule import Capacity, Demand, Schedule, machine
from kflow.run.steps import Cancelled, Crew, Job, StepFailure, carry_out
from kflow.spec.base import walk
from kflow.spec.types import Symbol
from kflow.store import durable
from kflow.store.entry import Entry
from kflow.store.locks import held
from kflow.store.store import Store
from kflow.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the user wants a run to be carried out."""

    jobs: int | None = None
    """Steps at once; None for as many as the processors have room for."""
    keeps_going: bool = False
    """Whether a failure stops only what hangs on it."""
    selected: Collection[str] | None = None
    """The steps that may be run; None for all. What they need is looked up in the store."""
    is_forced: bool = False
    """Whether the selected steps run even if their results are stored."""
    shows_output: bool = False
    """Whether what the steps print is told as it comes."""


@dataclass
class Run:
    """A run under way: what is known so far, and where it is told."""

    bound: Bound
    store: Store
    workspace: Workspace
    report: events.Reporter
    planner: Planner
    record: RunRecord
    folder: Path
    wishes: Wishes
    capacity: Capacity
    schedule: Schedule
    crew: Crew
    journal: Journal
    began: float = field(default_factory=time.monotonic)
    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """The digests of the outputs so far, by ``step.output``."""
    decided: dict[str, Action] = field(default_factory=dict)
    running: dict[str, "Running"] = field(default_factory=dict)
    has_failed: bool = False
    inbox: "queue.SimpleQueue[tuple[str, Any]]" = field(default_factory=queue.SimpleQueue)
    """What the threads of the steps have to say: the step, and an event, an entry or what went wrong."""


@dataclass(frozen=True, slots=True)
class Running:
    """A step under way."""

    thread: threading.Thread
    demand: Demand
    gpus: tuple[str, ...]
    began: float


def make_planner(bound: Bound, store: Store, workspace: Workspace, path: str) -> Planner:
    """Return a planner that knows the last run of the workflow at a path."""
    return Planner(bound, store, workspace, previous_components(store.root, path, bound.order))


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
    record = _new_record(bound, workspace, path)
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
        Crew(store, Workers(), threading.Event()),
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
        _finish(run, "failed" if run.has_failed else "succeeded")
    except KeyboardInterrupt:
        _give_up(run, "interrupted")
        raise Interrupted("interrupted; 'kflow run' continues from the last finished step") from None
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
        if not run.running:
            return
        step, news = run.inbox.get()
        if isinstance(news, Mapping):
            run.report(events.StepProgress(step, news))
        else:
            _end_step(run, step, news)


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
        _finish(run, status)


def _new_record(bound: Bound, workspace: Workspace, path: str) -> RunRecord:
    workflow = bound.workflow
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")  # fine enough that ids sort by time
    steps = {
        name: StepRecord(kind=workflow.steps[name].spec.kind, status="not run", verdict="wait", reason="")
        for name in bound.order
    }
    return RunRecord(
        id=f"{stamp}-{workflow.name[:40]}-{secrets.token_hex(3)}",
        status="running",
        started=now(),
        workflow=WorkflowRecord(
            path=path,
            sha256=digest_file(Path(path)),
            name=workflow.name,
            seed=workflow.seed,
            params=dict(workflow.params),
            steps={name: {"kind": step.spec.kind, **step.fields} for name, step in workflow.steps.items()},
        ),
        steps=steps,
        versions=versions(),
        platform=describe_platform(),
        devices=devices(),
        git=git_state(workspace.root),
    )


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
            _keep(run, name, action.entry, "reused")
        elif _may_run(run, name):
            _start(run, name, action)


def _decide(run: Run, name: str) -> Action:
    """Take the verdict on a step whose inputs are all there."""
    action = run.planner.decide(name, run.digests, is_forced=run.wishes.is_forced and _is_selected(run, name))
    step = run.record.steps[name]
    step.verdict, step.reason = action.verdict.value, action.reason
    step.fingerprint, step.components = action.fingerprint, dict(action.components or {})
    step.inputs = dict(step.components.get("inputs", {}))
    run.decided[name] = action
    return action


def _is_selected(run: Run, name: str) -> bool:
    return run.wishes.selected is None or name in run.wishes.selected


def _may_run(run: Run, name: str) -> bool:
    if not _is_selected(run, name) or (run.has_failed and not run.wishes.keeps_going):
        return False
    return run.capacity.admits(_demand(run, name), [each.demand for each in run.running.values()])


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
    job = Job(name, spec, action.fingerprint, _task(run, name, len(gpus)), gpus, action.is_forced)
    step = run.record.steps[name]
    step.status = "running"
    run.report(events.StepStarted(name, step.kind, action.reason))
    run.journal.note(name, step.model_dump(mode="json"), is_end=False)
    thread = threading.Thread(target=_work, args=(run, job), daemon=True, name=f"step {name}")
    run.schedule.start(name)
    run.running[name] = Running(thread, demand, gpus, time.monotonic())
    thread.start()


def _work(run: Run, job: Job) -> None:
    """Carry a step out, in its thread, and tell what came of it."""
    try:
        outcome: Any = carry_out(job, run.crew, lambda event: run.inbox.put((job.name, event)))
    except Exception as error:  # noqa: BLE001  the main thread tells it as what it is
        outcome = error
    run.inbox.put((job.name, outcome))


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


def _end_step(run: Run, name: str, outcome: Any) -> None:
    """Note what came of a step: a result, a failure, or something that ends the run."""
    step = run.record.steps[name]
    step.duration = round(time.monotonic() - run.running[name].began, 3)
    if (run.folder / "logs" / f"{name}.log").exists():
        step.log = f"logs/{name}.log"
    if isinstance(outcome, StepFailure):
        del run.running[name]
        _fail(run, name, outcome)
        return
    if isinstance(outcome, BaseException):
        raise outcome if not isinstance(outcome, Cancelled) else KeyboardInterrupt
    del run.running[name]
    entry, is_new = outcome
    if is_new:
        run.report(events.StepFinished(name, step.kind, step.duration, _summary(entry)))
    else:
        step.reason = "another run has made it meanwhile"
        run.report(events.StepReused(name, step.kind))
    _keep(run, name, entry, "run" if is_new else "reused")


def _fail(run: Run, name: str, failure: StepFailure) -> None:
    document = run.bound.workflow.document
    step = run.record.steps[name]
    step.status, step.error = "failed", _without_variables(run, name, str(failure))
    run.has_failed = True
    run.schedule.finish(name, good=False)
    run.journal.note(name, step.model_dump(mode="json"), is_end=True)
    message = f"step {name!r} ({step.kind}) failed: {failure}"
    diagnostic = Diagnostic(message, document.key_mark(("steps", name)))
    log = run.folder / step.log if step.log else None
    run.report(events.StepFailed(name, diagnostic, document.source, log, failure.traceback))


def _without_variables(run: Run, name: str, text: str) -> str:
    """Put the names of a step's environment variables for their values: these are not for the record."""
    for variable, value in run.bound.workflow.steps[name].variables.items():
        text = text.replace(value, f"${{env.{variable}}}") if value else text
    return text


def _keep(run: Run, name: str, entry: Entry, status: Any) -> None:
    """Note a finished step, and put the files in place that the user asked for by path."""
    run.entries[name] = entry
    run.digests |= {f"{name}.{output}": digest for output, digest in entry.digests.items()}
    step = run.record.steps[name]
    step.status = status
    spec = run.bound.workflow.steps[name].spec
    exports = spec.exports()
    for output, stored in entry.manifest.outputs.items():
        target = exports.get(output)
        shown = _without_variables(run, name, target) if target else None
        step.outputs[output] = OutputRecord(type=stored.type, digest=stored.digest, path=shown)
        if target:
            run.files[f"{name}.{output}"] = _export(run, entry, output, target)
        elif output in spec.announces:
            run.files[f"{name}.{output}"] = entry.folder / output / str(stored.description["name"])
        if stored.type == "metrics":
            run.record.metrics[name] = dict(stored.description["metrics"])
    run.schedule.finish(name, good=True)
    # A step that was reused is found again as it was; only work that was done must not be forgotten.
    run.journal.note(name, step.model_dump(mode="json"), is_end=status == "run")


def _export(run: Run, entry: Entry, output: str, target: str) -> Path:
    source = entry.folder / output / str(entry.manifest.outputs[output].description["name"])
    path = run.workspace.resolve(target)
    if not path.is_file() or path.stat().st_size != source.stat().st_size or digest_file(path) != digest_file(source):
        durable.copy_file(source, path)
    return path


def _summary(entry: Entry) -> str:
    """Say in short what a step made."""
    parts = []
    for output in entry.manifest.outputs.values():
        description = output.description
        if output.type in {"metrics", "history"}:
            numbers = description.get("metrics") or description.get("last") or {}
            parts.append(", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        elif output.type == "array":
            parts.append(f"{'x'.join(map(str, description['shape']))} {description['dtype']}")
        elif output.type == "model" and description.get("parameters") is not None:
            parts.append(f"{description['parameters']:,} parameters")
        elif output.type == "file":
            parts.append(f"sha256:{output.digest}")
    return "; ".join(part for part in parts if part)


def _finish(run: Run, status: Any) -> None:
    record = run.record
    record.status, record.finished = status, now()
    record.duration = round(time.monotonic() - run.began, 3)
    path = close_record(record, run.folder)
    statuses = [step.status for step in record.steps.values()]
    counts = {kind: statuses.count(kind) for kind in ("run", "reused", "failed", "interrupted", "not run")}
    run.report(
        events.RunFinished(
            record.id, record.workflow.name, status, record.duration, counts, record.metrics, run.files, path
        )
    )
