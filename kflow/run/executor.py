"""The executor: takes the steps in order, reuses or runs each, publishes what it made, and keeps the record."""

import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kflow.artifacts import ExternalFile, digest_file
from kflow.diagnostics import Diagnostic
from kflow.errors import Interrupted, RunError
from kflow.plan.planner import Action, Planner, Verdict
from kflow.plan.resolve import Bound
from kflow.run import events
from kflow.run.process import Worker
from kflow.run.record import (
    OutputRecord,
    RunRecord,
    StepRecord,
    WorkflowRecord,
    describe_platform,
    devices,
    git_state,
    now,
    previous_components,
    versions,
    write_record,
)
from kflow.run.worker import WORK
from kflow.spec.base import walk
from kflow.spec.types import Symbol
from kflow.store import durable
from kflow.store.entry import Entry, Manifest, Output
from kflow.store.locks import held
from kflow.store.store import Store
from kflow.workspace import Workspace


@dataclass
class Run:
    """A run under way: what is known so far, and where it is told."""

    bound: Bound
    store: Store
    workspace: Workspace
    report: events.Reporter
    worker: Worker
    planner: Planner
    record: RunRecord
    folder: Path
    began: float = field(default_factory=time.monotonic)
    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    current: str | None = None

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the outputs so far, by ``step.output``."""
        return {
            f"{step}.{name}": digest for step, entry in self.entries.items() for name, digest in entry.digests.items()
        }


def make_planner(bound: Bound, store: Store, workspace: Workspace, path: str) -> Planner:
    """Return a planner that knows the last run of the workflow at a path."""
    return Planner(bound, store, workspace, previous_components(store.root, path))


def execute(bound: Bound, store: Store, workspace: Workspace, path: str, report: events.Reporter) -> RunRecord:
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
    planner = make_planner(bound, store, workspace, path)
    record = _new_record(bound, workspace, path)
    folder = store.root / "runs" / record.id
    try:
        (folder / "logs").mkdir(parents=True)
    except OSError as error:
        message = f"the store {store.root} cannot be written: {error.strerror}"
        raise RunError(message) from None
    store.sweep()
    run = Run(bound, store, workspace, report, Worker(), planner, record, folder)
    report(events.RunStarted(record.id, path, bound.order))
    with held(folder):  # as long as it is, a record that says "running" is true
        _carry_out(run)
    return run.record


def _carry_out(run: Run) -> None:
    """Do all steps, and close the record whatever happens."""
    try:
        write_record(run.record, run.folder)
        _finish(run, "succeeded" if all(_do_step(run, name) for name in run.bound.order) else "failed")
    except KeyboardInterrupt:
        _give_up(run, "interrupted")
        raise Interrupted("interrupted; 'kflow run' continues from the last finished step") from None
    except OSError as error:
        message = f"{error.filename2 or error.filename or run.store.root}: {error.strerror or error}"
        _give_up(run, "failed", message)
        raise RunError(message) from None
    finally:
        run.worker.stop()


def _give_up(run: Run, status: Literal["interrupted", "failed"], error: str | None = None) -> None:
    """Close the record of a run that ended in the middle of a step; on a full disk it stays as it was."""
    if run.current:
        step = run.record.steps[run.current]
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


def _do_step(run: Run, name: str) -> bool:
    """Reuse or run one step; tells whether the run can go on."""
    action = run.planner.decide(name, run.digests)
    step = run.record.steps[name]
    step.verdict, step.reason = action.verdict.value, action.reason
    step.fingerprint, step.components = action.fingerprint, dict(action.components or {})
    step.inputs = dict(step.components.get("inputs", {}))
    if action.verdict is Verdict.REUSE:
        assert isinstance(action.entry, Entry), "the store of a run gives entries"
        run.report(events.StepReused(name, step.kind))
        _keep(run, name, action.entry, "reused")
        return True
    assert action.fingerprint is not None, "every input is known here"
    run.current = name
    run.report(events.StepStarted(name, step.kind, action.reason))
    began = time.monotonic()
    with run.store.claim(action.fingerprint):
        made = run.store.lookup(action.fingerprint)
        entry = made or _compute(run, name, action)
    step.duration = round(time.monotonic() - began, 3)
    run.current = None
    if made is not None:
        step.reason = "another run has made it meanwhile"
        run.report(events.StepReused(name, step.kind))
        _keep(run, name, made, "reused")
    elif entry is not None:
        run.report(events.StepFinished(name, step.kind, step.duration, _summary(entry)))
        _keep(run, name, entry, "run")
    return entry is not None


def _compute(run: Run, name: str, action: Action) -> Entry | None:
    """Let the worker run a step, and publish its outputs; None when it failed."""
    spec = run.bound.workflow.steps[name].spec
    log = run.folder / "logs" / f"{name}.log"
    run.record.steps[name].log = f"logs/{name}.log"
    gpus = _lease_gpus(run.workspace.gpus(spec.gpus_wanted()))
    with run.store.stage() as staging:
        task = {
            "kind": spec.kind,
            "fields": spec.model_dump(mode="json"),
            "root": str(run.workspace.root),
            "staging": str(staging),
            "log": str(log),
            "seed": run.bound.workflow.seed,
            "gpus": len(gpus),
            "artifacts": _inputs(run, name),
            "sources": {
                leaf.module: run.workspace.sources(leaf.module) for _, leaf in walk(spec) if isinstance(leaf, Symbol)
            },
        }
        try:
            reply = run.worker.run(task, gpus, lambda data: run.report(events.StepProgress(name, data)))
        except RunError as error:
            reply = {"event": "failed", "message": str(error)}
        if reply["event"] == "failed":
            _fail(run, name, reply, log)
            return None
        shutil.rmtree(staging / WORK)
        return run.store.commit(staging, _manifest(spec.kind, action, reply["outputs"], staging))


def _lease_gpus(count: int) -> tuple[str, ...]:
    from kflow.core.devices import visible_gpus

    return visible_gpus()[:count]


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


def _manifest(kind: str, action: Action, outputs: Mapping[str, Any], staging: Path) -> Manifest:
    assert action.fingerprint is not None, "a step that was run has one"
    files = {
        str(path.relative_to(staging)): path.stat().st_size for path in sorted(staging.rglob("*")) if path.is_file()
    }
    external = {ExternalFile(**each) for output in outputs.values() for each in output["external"]}
    return Manifest(
        fingerprint=action.fingerprint,
        kind=kind,
        outputs={name: Output(o["type"], o["digest"], o["description"]) for name, o in outputs.items()},
        files=files,
        external=tuple(sorted(external, key=lambda file: file.path)),
    )


def _fail(run: Run, name: str, reply: Mapping[str, Any], log: Path) -> None:
    document = run.bound.workflow.document
    step = run.record.steps[name]
    step.status, step.error = "failed", _without_variables(run, name, reply["message"])
    diagnostic = Diagnostic(
        f"step {name!r} ({step.kind}) failed: {reply['message']}", document.key_mark(("steps", name))
    )
    where = log if log.exists() else None
    run.report(events.StepFailed(name, diagnostic, document.source, where, reply.get("traceback")))


def _without_variables(run: Run, name: str, text: str) -> str:
    """Put the names of a step's environment variables for their values: these are not for the record."""
    for variable, value in run.bound.workflow.steps[name].variables.items():
        text = text.replace(value, f"${{env.{variable}}}") if value else text
    return text


def _keep(run: Run, name: str, entry: Entry, status: Any) -> None:
    """Note a finished step, and put the files in place that the user asked for by path."""
    run.entries[name] = entry
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
    write_record(run.record, run.folder)


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
    path = write_record(record, run.folder)
    counts = {
        kind: sum(step.status == kind for step in record.steps.values())
        for kind in ("run", "reused", "failed", "interrupted", "not run")
    }
    run.report(
        events.RunFinished(
            record.id, record.workflow.name, status, record.duration, counts, record.metrics, run.files, path
        )
    )
