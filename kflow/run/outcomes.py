"""What came of the steps of a run: results that are kept, failures that are told, and the record that has it all."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.diagnostics import Diagnostic
from kflow.run import events
from kflow.run.clock import now
from kflow.run.exports import find_exports
from kflow.run.record import OutputRecord, RunRecord, close_record
from kflow.run.state import Run, is_selected
from kflow.run.steps import Cancelled, InputDamaged, StepFailure
from kflow.spec.hiding import hide_values
from kflow.store.entry import Entry

_REASONS = {"found": "another run has made it meanwhile", "pulled": "pulled from the remote"}
"""Why a step that was started was not run after all."""


def end_step(run: Run, name: str, outcome: Any) -> None:
    """Note what came of a step: a result, a failure, or something that ends the run."""
    step = run.record.steps[name]
    running = run.running[name]
    step.duration = round(time.monotonic() - running.began, 3)
    note_log(run, name)
    if isinstance(outcome, StepFailure):
        del run.running[name]
        fail(run, name, outcome)
        return
    if isinstance(outcome, InputDamaged):
        del run.running[name]
        _put_off(run, name, outcome)
        return
    if isinstance(outcome, BaseException):
        raise outcome if not isinstance(outcome, Cancelled) else KeyboardInterrupt
    del run.running[name]
    if any(run.entries.get(each) is not taken for each, taken in running.inputs.items()):
        run.yielding.add(name)  # what it was made of counts no more; if that is made with the same bytes, this counts
        _start_again(run, name)
        return
    if outcome.origin == "made":
        if outcome.note:
            step.reason += f"; {without_values(run, name, outcome.note)}"
        summary = events.summarize(outcome.entry.manifest.outputs.values())
        run.report(events.StepFinished(name, step.kind, step.duration, summary))
    else:
        step.reason = f"the same as step {outcome.twin!r} of this run" if outcome.twin else _REASONS[outcome.origin]
        run.report(events.StepReused(name, step.kind, step.reason))
    keep(run, name, outcome.entry, "run" if outcome.origin == "made" else "reused")


def note_log(run: Run, name: str) -> None:
    """Note the log of a step, if it has one by now."""
    if run.running[name].has_log and (run.folder / "logs" / f"{name}.log").exists():
        run.record.steps[name].log = f"logs/{name}.log"


def _put_off(run: Run, name: str, damaged: InputDamaged) -> None:
    """Decide about a step again, when the result that it takes is sound; the first that tells of one has it made."""
    upstream = damaged.step
    if run.entries.get(upstream) is damaged.entry and not damaged.is_remade:
        fingerprint = damaged.entry.manifest.fingerprint
        present = run.store.lookup(fingerprint)
        is_replaced = present is not None and present.digests != damaged.entry.digests  # by another run
        if not is_replaced and not is_selected(run, upstream):
            with contextlib.suppress(OSError):  # where the store cannot be written, the next run finds it again
                run.store.set_aside(fingerprint)
            fail(run, name, StepFailure(f"{damaged}; a run with '--until {upstream}' makes it again"))
            return
        if is_replaced:  # one of both has to give way, or they replace each other's for ever
            run.yielding.add(upstream)
        else:
            run.store.set_aside(fingerprint)
        _do_again(run, upstream)
    _start_again(run, name)


def _do_again(run: Run, name: str) -> None:
    """Have a step that was done decided anew, and those that gave the same, or were done with what it gave."""
    fingerprint, again = run.entries[name].manifest.fingerprint, {name}
    for each in run.bound.order:
        entry = run.entries.get(each)
        is_same = entry is not None and entry.manifest.fingerprint == fingerprint
        if is_same or (entry and again & {link.step for link in run.bound.links[each]}):
            again.add(each)
            del run.entries[each]
            run.schedule.redo(each)
            _forget(run, each)
    run.yielding |= again - {name}  # by force they were run already


def _start_again(run: Run, name: str) -> None:
    """Have a step that was started decided anew, when all that it takes is there."""
    run.schedule.put_off(name)
    _forget(run, name)


def _forget(run: Run, name: str) -> None:
    """Forget what a step gave, and the verdicts on it and on those that wait for it: what they take may be another."""
    step = run.record.steps[name]
    for output in step.outputs:
        run.digests.pop(f"{name}.{output}", None)
        run.files.pop(f"{name}.{output}", None)
    step.status, step.outputs = "not run", {}
    run.record.metrics.pop(name, None)
    for each in (name, *run.schedule.followers(name)):
        if each not in run.running:
            run.decided.pop(each, None)


def fail(run: Run, name: str, failure: StepFailure) -> None:
    """Note that a step failed, and tell why; what hangs on it will not be started."""
    document = run.bound.workflow.document
    step = run.record.steps[name]
    step.status, step.error = "failed", without_values(run, name, str(failure))
    run.has_failed = True
    run.schedule.finish(name, good=False)
    run.note(name, is_end=True)
    message = f"step {name!r} ({step.kind}) failed: {failure}"
    diagnostic = Diagnostic(message, document.key_mark(("steps", name)))
    log = run.folder / step.log if step.log and run.wishes.exports else None
    run.report(events.StepFailed(name, diagnostic, document.source, log, failure.traceback))


def without_values(run: Run, name: str, text: str) -> str:
    """Put names for the values of environment variables in what is told of a step: they are not for the record."""
    workflow = run.bound.workflow
    return hide_values(text, workflow.steps[name].variables, workflow.variables)


def _as_written(run: Run, name: str, text: str) -> str:
    """Return what the workflow says for the path of a file to write: variables stay variables."""
    step = run.bound.workflow.steps[name]
    return next((str(step.as_written(path)) for path, each in step.texts if each == text), text)


def keep(run: Run, name: str, entry: Entry, status: Any) -> None:
    """Note a finished step, and put the files in place that the user asked for by path."""
    run.entries[name] = entry
    run.digests |= {f"{name}.{output}": digest for output, digest in entry.digests.items()}
    step = run.record.steps[name]
    step.status = status
    spec = run.bound.workflow.steps[name].spec
    exports = {each.output: each for each in find_exports(spec, entry, run.workspace)} if run.wishes.exports else {}
    for output, stored in entry.manifest.outputs.items():
        export = exports.get(output)
        shown = _as_written(run, name, export.text) if export else None
        step.outputs[output] = OutputRecord(type=stored.type, digest=stored.digest, path=shown)
        if export:
            export.put_in_place()
            run.files[f"{name}.{output}"] = export.target
        elif output in spec.announces and run.wishes.exports:
            run.files[f"{name}.{output}"] = entry.folder / output / str(stored.description["name"])
        if stored.type == "metrics":
            run.record.metrics[name] = dict(stored.description["metrics"])
    run.schedule.finish(name, good=True)
    # A step that was reused is found again as it was; only work that was done must not be forgotten.
    run.note(name, is_end=status == "run")


def finish(run: Run, status: Any) -> None:
    """Close the record of a run, and tell its end."""
    record = run.record
    record.status, record.finished = status, now()
    record.duration = round(time.monotonic() - run.began, 3)
    path = close_record(record, run.folder) if run.journal else None
    run.report(ended(record, run.files, path if run.wishes.exports else None, run.unwritten))


def ended(
    record: RunRecord, files: Mapping[str, Path], path: Path | None, unwritten: str | None = None
) -> events.RunFinished:
    """Return what is told at the end of a run."""
    statuses = [step.status for step in record.steps.values()]
    counts = {kind: statuses.count(kind) for kind in ("run", "reused", "failed", "interrupted", "not run")}
    name, seconds = record.workflow.name, record.duration or 0.0
    return events.RunFinished(record.id, name, record.status, seconds, counts, record.metrics, files, path, unwritten)
