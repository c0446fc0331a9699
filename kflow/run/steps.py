"""One step, in a thread of its own: claim its fingerprint, let it run, try again if it may, publish what it made."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from kflow.artifacts import ExternalFile
from kflow.errors import RunError
from kflow.run.originals import Original
from kflow.run.sharing import Sharing
from kflow.run.worker import WORK, describe_error, perform
from kflow.run.workers import Workers
from kflow.signature import is_another
from kflow.spec.base import StepSpec
from kflow.store.entry import Entry, Manifest, Output
from kflow.store.remote import Expected
from kflow.store.store import Store

Report = Callable[[Mapping[str, Any]], None]
_LONGEST_PAUSE = 60.0
_LONGEST = 600
"""Characters of a failure that are told."""
_LITTLE = 2**20
"""Bytes; a disk with less is full, for a library that writes in blocks."""


class StepFailure(RunError):  # noqa: N818  it is the outcome of a step
    """A step failed; ``traceback`` is that of its process, where there is one."""

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


def in_short(text: str) -> str:
    """Cut off what is no sentence any more; the log of a step has it whole."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class InputChanged(StepFailure):
    """A file that the step rests on is not the one in its fingerprint any more; another try would not help."""


class Cancelled(RunError):  # noqa: N818  it is the outcome of a step
    """The run is over, and the step with it."""


class Loss(StrEnum):
    """What became of a stored result that a step takes."""

    GONE = "was damaged or removed"
    OUTDATED = "refers to a file that was changed"
    RESTORED = "was changed, and is whole again"
    REPLACED = "was replaced meanwhile"


class InputLost(RunError):  # noqa: N818  it is the outcome of a step
    """The stored result of a step that this one takes is not what was published, or was not all the time."""

    def __init__(self, step: str, entry: Entry, loss: Loss, *, was_taken: bool = False) -> None:
        super().__init__(f"the stored result of step {step!r} {loss}")
        self.step = step
        self.entry = entry
        self.loss = loss
        self.was_taken = was_taken
        """Whether the step had begun."""


@dataclass(frozen=True, slots=True)
class Job:
    """A step that is to be run: all that its thread needs to know."""

    name: str
    spec: StepSpec
    fingerprint: str
    task: Mapping[str, Any]
    gpus: tuple[str, ...]
    inputs: Mapping[str, Entry]
    """The entry of each step that it takes an output of."""
    originals: tuple[Original, ...] = ()
    """The files outside the store that it rests on."""
    threads: int | None = None
    """The number of threads that it computes with; None where that does not matter."""
    runs_code: bool = False
    """Whether it executes code of the user's."""
    is_forced: bool = False
    expected: Expected | None = None
    """What the remote is asked for; None where it is not asked."""
    may_run: bool = True
    """Whether it may be run, and not only be found."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What the steps of a run share."""

    store: Store
    workers: Workers
    over: threading.Event
    sharing: Sharing | None = None
    starts_no_more: threading.Event = field(default_factory=threading.Event)
    """Set when a step has failed, unless the run keeps going."""
    brought: dict[str, str] = field(default_factory=dict)
    """The step that made or pulled the result of a fingerprint in this run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result, and where it comes from: this step, another one meanwhile, or the remote."""

    entry: Entry
    origin: Literal["made", "found", "pulled"]
    note: str | None = None
    """What the record should say of it besides."""
    twin: str | None = None
    """The step of this run that is the same computation, if the result was found because of it."""


@dataclass
class _Wait:
    """The wait for another step, of any run, that makes the same: it is told once, and ends with the run."""

    crew: Crew
    report: Report
    event: str = "waiting"
    is_told: bool = False

    def __call__(self, seconds: float) -> None:
        if not self.is_told:
            self.report({"event": self.event})
            self.is_told = True
        if self.crew.over.wait(seconds):
            raise Cancelled


class _NoUseError(Exception):
    """What is waited for would not be used any more."""


@dataclass
class _WaitForInput(_Wait):
    """The same wait, for what a step takes; it ends as well when the run has failed and starts no more steps."""

    def __call__(self, seconds: float) -> None:
        if self.crew.starts_no_more.is_set():
            raise _NoUseError
        super().__call__(seconds)


def carry_out(job: Job, crew: Crew, report: Report) -> Outcome:
    """Run a step, or find that another run has made its result, here meanwhile or elsewhere.

    Parameters
    ----------
    job : Job
        The step.
    crew : Crew
        Store and workers.
    report : callable
        Takes progress, tries and waits; it is called from this thread.

    Returns
    -------
    Outcome
        The published result.

    Raises
    ------
    StepFailure
        If the step fails, after the last try.
    Cancelled
        If the run ended meanwhile.
    InputLost
        If a result that it takes does not hold the bytes that were published, or not to the end.
    OSError
        If the store cannot be written.
    """
    try:
        return _carry_out(job, crew, report)
    except InputLost as lost:  # only now, as whoever waits for another step is not to hold up those who wait for this
        raise _look_at(lost, crew, report) from None


def _carry_out(job: Job, crew: Crew, report: Report) -> Outcome:
    _require_sound(job.inputs, crew.store)
    with crew.store.claim(job.fingerprint, _Wait(crew, report)):
        twin = crew.brought.get(job.fingerprint)
        twin = twin if twin != job.name else None
        # What a twin has made by force may be taken already: a second result would be another than what was taken.
        entry = None if job.is_forced and not twin else crew.store.lookup_sound(job.fingerprint)
        if entry is not None:
            return Outcome(entry, "found", twin=twin)
        outcome = _bring(job, crew, report)
        crew.brought[job.fingerprint] = job.name
        return outcome


def _look_at(lost: InputLost, crew: Crew, report: Report) -> InputLost:
    """Set a result aside that is damaged, and say what became of it; whoever makes it anew is waited for."""
    if lost.loss is Loss.RESTORED:
        return lost
    step, taken = lost.step, lost.entry
    loss: Loss = lost.loss
    try:
        with crew.store.claim(taken.manifest.fingerprint, _WaitForInput(crew, report, "waiting for input")):
            present = crew.store.lookup_sound(taken.manifest.fingerprint)
            if present is None:
                pass
            elif present.digests != taken.digests or present.manifest.files != taken.manifest.files:
                loss = Loss.REPLACED
            elif loss is Loss.GONE:
                loss = Loss.RESTORED
            else:
                crew.store.set_aside(taken.manifest.fingerprint)
    except _NoUseError:
        pass
    return InputLost(step, taken, loss, was_taken=lost.was_taken)


def _bring(job: Job, crew: Crew, report: Report) -> Outcome:
    """Pull a result, or make it."""
    note = None
    if crew.sharing and job.expected:
        with _held_to_originals(job, crew.store):  # what comes refers to them, too
            entry, note = crew.sharing.pull(job.expected, crew.store, report)
        if entry is not None:
            return Outcome(entry, "pulled")
        if crew.over.is_set():
            raise Cancelled
    if not job.may_run:
        message = (
            f"its result is not in the store, and the remote has none that can be taken; '--until {job.name}' makes it"
        )
        raise StepFailure(message)
    report({"event": "begun"})
    if job.is_forced:  # from the beginning
        shutil.rmtree(crew.store.checkpoints(job.fingerprint), ignore_errors=True)
    return Outcome(_try(job, crew, report), "made", note)


def _try(job: Job, crew: Crew, report: Report) -> Entry:
    """Run a step as often as it may fail."""
    for attempt in range(job.spec.retries + 1):
        try:
            return _attempt(job, crew, report)
        except StepFailure as failure:
            if crew.over.is_set():
                raise Cancelled from None
            if attempt == job.spec.retries or isinstance(failure, InputChanged):
                raise
            pause = min(2.0**attempt, _LONGEST_PAUSE)
            report({"event": "again", "message": in_short(str(failure)), "attempt": attempt + 1, "pause": pause})
            if crew.over.wait(pause):
                raise Cancelled from None
    raise AssertionError  # the last try returns or raises


def _attempt(job: Job, crew: Crew, report: Report) -> Entry:
    is_here, checkpoints = runs_here(job), crew.store.checkpoints(job.fingerprint)
    with crew.store.stage() as staging:
        task = {**job.task, "staging": str(staging.folder)}
        with _held_to_inputs(job, crew.store), _held_to_originals(job, crew.store):
            if is_here:
                reply = _run_here(job.spec, task, crew, report)
            else:
                reply = _run_apart(job, {**task, "checkpoints": str(checkpoints)}, crew, report)
            if reply["event"] == "failed":
                message = f"{reply['message']}{_note_full_disk(crew.store.root)}"
                raise StepFailure(message, reply.get("traceback"))
        work = f"{staging.folder}/{WORK}"
        if os.path.isdir(work):  # noqa: PTH112  pathlib costs as much as all else of a small step
            shutil.rmtree(work)
        entry = crew.store.commit(staging, _manifest(job, reply["outputs"]), supersede=job.is_forced)
    if not is_here and checkpoints.is_dir():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return entry


@contextlib.contextmanager
def _held_to_inputs(job: Job, store: Store) -> Iterator[None]:
    """Put a step off if a result that it takes is replaced meanwhile, as a run with ``--force`` may do, or damaged.

    That goes before what the step says itself: a failure may come of what it was given.
    """
    before = {step: taken.glance() for step, taken in job.inputs.items()}
    _require_sound(job.inputs, store)
    try:
        yield
    finally:
        for step, taken in job.inputs.items():
            now = taken.glance()
            if now != before[step]:
                is_sound = store.is_sound(taken)
                if not is_sound or any(is_another(before[step].get(name, each), each) for name, each in now.items()):
                    shutil.rmtree(store.checkpoints(job.fingerprint), ignore_errors=True)
                    raise InputLost(step, taken, Loss.RESTORED if is_sound else Loss.GONE, was_taken=True)


def _require_sound(inputs: Mapping[str, Entry], store: Store) -> None:
    for step, taken in inputs.items():
        if not store.is_sound(taken):
            raise InputLost(step, taken, Loss.GONE)


@contextlib.contextmanager
def _held_to_originals(job: Job, store: Store) -> Iterator[None]:
    """Let a step fail if a file that it rests on is changed: else its result would have the fingerprint of another."""
    before = [_look_again(each, job, "was changed since the step was planned") for each in job.originals]
    try:
        yield
    finally:
        try:
            for each in before:
                _look_again(each, job, "was changed while the step ran, and its result is not kept")
        except InputChanged:
            shutil.rmtree(store.checkpoints(job.fingerprint), ignore_errors=True)
            raise


def _look_again(original: Original, job: Job, what: str) -> Original:
    found = original.look_again()
    if found is None and original.known is None and original.step:  # size and time were all that spoke for its result
        raise InputLost(original.step, job.inputs[original.step], Loss.OUTDATED)
    if found is None:
        message = f"the file {original.path} {what}; run again"
        raise InputChanged(message)
    return found


def runs_here(job: Job) -> bool:
    """Tell whether a step runs in the runner: not one with a timeout, as a thread cannot be stopped, or with code."""
    return job.spec.is_light and job.spec.timeout is None and not job.runs_code


def _run_here(spec: StepSpec, task: Mapping[str, Any], crew: Crew, report: Report) -> dict[str, Any]:
    def tell(event: Mapping[str, Any]) -> None:
        if crew.over.is_set():
            raise Cancelled
        report(event)

    try:
        return {"event": "done", "outputs": perform(spec, task, tell)}
    except Cancelled:
        raise
    except Exception as error:  # noqa: BLE001  the boundary of a step: whatever it raises is its failure
        return {"event": "failed", "message": describe_error(error)}


def _run_apart(job: Job, task: Mapping[str, Any], crew: Crew, report: Report) -> dict[str, Any]:
    task = {**task, "fields": job.spec.model_dump(mode="json")}
    try:
        has_keras = job.spec.loads_keras or "keras" in job.spec.libraries
        with crew.workers.worker(job.gpus, job.threads, runs_code=job.runs_code, has_keras=has_keras) as worker:
            return worker.run(task, report, job.spec.timeout)
    except RunError as error:
        if crew.over.is_set():
            raise Cancelled from None
        return {"event": "failed", "message": str(error)}


def _note_full_disk(folder: Path) -> str:
    """Say that the disk is full, where it is, and which: HDF5 crashes instead of saying so, others tell no place."""
    with contextlib.suppress(OSError):
        left = shutil.disk_usage(folder).free
        return f"; the disk of the store is full: there are {left} bytes left at {folder}" if left < _LITTLE else ""
    return ""


def _manifest(job: Job, outputs: Mapping[str, Any]) -> Manifest:
    external = {ExternalFile(**each) for output in outputs.values() for each in output["external"]}
    return Manifest(
        fingerprint=job.fingerprint,
        kind=job.spec.kind,
        outputs={name: Output(o["type"], o["digest"], o["description"]) for name, o in outputs.items()},
        external=tuple(sorted(external, key=lambda file: file.path)),
    )
