"""What came of the steps of a run: results that are kept, failures that are told, and the record that has it all."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.diagnostics import Diagnostic
from kflow.run import events
from kflow.run.clock import now
from kflow.run.crew import Cancelled, InputChanged, NoUse, Outcome, StepFailure, in_short
from kflow.run.exports import find_exports
from kflow.run.inputs import InputLost, Loss
from kflow.run.record import OutputRecord, RunRecord, close_record
from kflow.run.state import Run, is_selected
from kflow.spec.hiding import hide_values
from kflow.store.entry import Entry

_REASONS = {"found": "another run has made it meanwhile", "pulled": "pulled from the remote"}
"""Why a step that was started was not run after all."""
_PATIENCE, _LONG_PATIENCE = 2, 20
"""How often a step is put off because of damage to what it takes: while it took it or to what this run has made, and
before it began to what others have made."""


def end_step(run: Run, name: str, outcome: Any) -> None:
    """Note what came of a step: a result, a failure, or something that ends the run."""
    running = run.running[name]
    run.record.steps[name].duration = round(time.monotonic() - running.began, 3)
    if isinstance(outcome, BaseException) and not isinstance(outcome, StepFailure | InputLost | NoUse):
        raise outcome if not isinstance(outcome, Cancelled) else KeyboardInterrupt
    note_log(run, name)
    del run.running[name]
    if isinstance(outcome, InputLost):
        _put_off(run, name, outcome)
    elif isinstance(outcome, NoUse):
        run.record.steps[name].duration = None
        _start_again(run, name)  # as far as the run starts any
    elif any(run.entries.get(each) is not taken for each, taken in running.inputs.items()):
        # What it was made of counts no more; if that is made with the same bytes, a result counts that it gave.
        if not isinstance(outcome, StepFailure):
            run.yielding.add(name)
            _note_made(run, name, outcome)
        _start_again(run, name)
    elif isinstance(outcome, StepFailure):
        fail(run, name, outcome)
    else:
        _keep_outcome(run, name, outcome)


def _keep_outcome(run: Run, name: str, outcome: Outcome) -> None:
    step = run.record.steps[name]
    _note_made(run, name, outcome)
    if outcome.origin == "made":
        if outcome.note:
            step.reason += f"; {without_values(run, name, outcome.note)}"
        summary = events.summarize(outcome.entry.manifest.outputs.values())
        run.report(events.StepFinished(name, step.kind, step.duration or 0.0, summary))
    else:
        step.reason = f"the same as step {outcome.twin!r} of this run" if outcome.twin else _REASONS[outcome.origin]
        run.report(events.StepReused(name, step.kind, step.reason))
    keep(run, name, outcome.entry, "run" if outcome.origin == "made" else "reused")


def _note_made(run: Run, name: str, outcome: Outcome) -> None:
    if outcome.origin == "made":
        run.made[name] = outcome.entry


def _is_same(one: Entry, other: Entry) -> bool:
    return one.manifest.fingerprint == other.manifest.fingerprint and one.digests == other.digests


def keep_stored(run: Run, name: str, entry: Entry) -> None:
    """Note a step whose result was in the store; one that this run has made itself was run, though decided anew."""
    step = run.record.steps[name]
    made = run.made.get(name)
    is_made = made is not None and _is_same(made, entry)
    if is_made:
        step.verdict, step.reason = "run", "made by this run, of inputs that were made again with the same bytes"
    else:
        step.duration = step.log = None
    run.report(events.StepReused(name, step.kind, "made by this run, and still true" if is_made else ""))
    keep(run, name, entry, "run" if is_made else "reused")


def note_log(run: Run, name: str) -> None:
    """Note the log of a step, if it has one by now."""
    if run.running[name].has_log and (run.folder / "logs" / f"{name}.log").exists():
        run.record.steps[name].log = f"logs/{name}.log"


def _put_off(run: Run, name: str, lost: InputLost) -> None:
    """Decide about a step again, when the result that it takes is sound; the first that tells of one has it made."""
    upstream = lost.step
    is_gone = lost.loss in {Loss.GONE, Loss.OUTDATED} and run.entries.get(upstream) is lost.entry
    # What this run has made itself, others have less reason to change before this step has begun.
    is_own = lost.was_taken or run.made.get(upstream) is lost.entry
    patience = _PATIENCE if is_own else _LONG_PATIENCE
    run.put_off[name, upstream, lost.was_taken] += lost.loss is not Loss.REPLACED  # other runs do that once each
    if run.put_off[name, upstream, lost.was_taken] > patience:
        why = f"was changed {patience + 1} times when this step took it; a step that takes it does so, or the disk"
        fail(run, name, StepFailure(f"the stored result of step {upstream!r} {why}"))
    elif is_gone and not is_selected(run, upstream) and run.crew.sharing is None:
        # A verification leaves the store as it is.
        like = "'--only {0} --force' and the params of the run that is verified" if run.store.base else "'--until {0}'"
        fail(run, name, StepFailure(f"{lost}; a run with {like.format(upstream)} makes it again"))
    else:
        _wait_for(run, name, lost)


def _wait_for(run: Run, name: str, lost: InputLost) -> None:
    """Put a step off until what it takes is there, which is decided anew if it has gone."""
    if not run.crew.starts_no_more.is_set():  # else nothing is made any more, and what was done is done
        run.report(events.StepProgress(name, {"event": "put off", "upstream": lost.step, "loss": str(lost.loss)}))
        if lost.loss is not Loss.RESTORED and run.entries.get(lost.step) is lost.entry:
            if lost.loss is Loss.REPLACED:  # one of both has to give way, or they replace each other's for ever
                run.yielding.add(lost.step)
            _do_again(run, lost.step)
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
            # Its reason is what differs from then.
            run.planner.previous[each] = run.record.steps[each].components or {}
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
    run.note(name, is_end=False)
    for each in (name, *run.schedule.followers(name)):
        if each not in run.running:
            run.decided.pop(each, None)


def fail(run: Run, name: str, failure: StepFailure) -> None:
    """Note that a step failed, and tell why; what hangs on it will not be started."""
    document = run.bound.workflow.document
    step = run.record.steps[name]
    step.status, step.error = "failed", _told(run, failure, without_values(run, name, str(failure)))
    run.has_failed = True
    if not run.wishes.keeps_going:
        run.crew.starts_no_more.set()
    run.schedule.finish(name, good=False)
    run.note(name, is_end=True)
    message = f"step {name!r} ({step.kind}) failed: {_told(run, failure, str(failure))}"
    diagnostic = Diagnostic(message, document.key_mark(("steps", name)))
    log = run.folder / step.log if step.log and run.wishes.exports else None
    run.report(events.StepFailed(name, diagnostic, document.source, log, failure.traceback))


def _told(run: Run, failure: StepFailure, text: str) -> str:
    """Return what is told of a failure: a file that was changed lies near the workflow, and nobody wants a novel."""
    # Only now, as values of variables can be found in what is whole alone.
    return in_short(text.replace(f"{run.workspace.root}/", "", 1) if isinstance(failure, InputChanged) else text)


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
    if entry.metrics:
        run.record.metrics[name] = entry.metrics
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
