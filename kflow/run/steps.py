"""One step, in a thread of its own: claim its fingerprint, let it run, try again if it may, publish what it made."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import ExternalFile
from kflow.errors import RunError
from kflow.run.crew import (
    BEGUN,
    Cancelled,
    Crew,
    InputChanged,
    Job,
    NoUse,
    Outcome,
    Report,
    StepFailure,
    WaitToBegin,
    in_short,
)
from kflow.run.given import Given
from kflow.run.inputs import InputLost, held_to_inputs, held_to_originals, look_at, require_sound
from kflow.run.worker import WORK, describe_error, perform
from kflow.spec.base import StepSpec
from kflow.store.entry import Entry, Manifest, Output

_LONGEST_PAUSE = 60.0
_LITTLE = 2**20
"""Bytes; a disk with less is full, for a library that writes in blocks."""


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
    NoUse
        If the run has failed and starts no more steps, before this one had begun.
    InputLost
        If a result that it takes does not hold the bytes that were published, or not to the end.
    OSError
        If the store cannot be written.
    """
    try:
        return _carry_out(job, crew, report)
    except InputLost as lost:  # only now, as whoever waits for another step is not to hold up those who wait for this
        raise look_at(lost, crew, report) from None


def _carry_out(job: Job, crew: Crew, report: Report) -> Outcome:
    require_sound(job.inputs, crew.store)
    with crew.store.claim(job.fingerprint, WaitToBegin(crew, report)):
        twin = crew.brought.get(job.fingerprint)
        twin = twin if twin != job.name else None
        # What a twin has made by force may be taken already: a second result would be another than what was taken.
        entry = None if job.is_forced and not twin else crew.store.lookup_sound(job.fingerprint)
        if entry is not None:
            return Outcome(entry, "found", twin=twin)
        outcome = _bring(job, crew, report)
        crew.brought[job.fingerprint] = job.name
        return outcome


def _bring(job: Job, crew: Crew, report: Report) -> Outcome:
    """Pull a result, or make it."""
    note = None
    if crew.sharing and job.expected:
        with held_to_originals(job):  # what comes refers to them, too
            entry, note = crew.sharing.pull(job.expected, crew.store, report)
        if entry is not None:
            return Outcome(entry, "pulled")
        if crew.over.is_set():
            raise Cancelled
    if crew.starts_no_more.is_set():
        raise NoUse
    if not job.may_run:
        message = (
            f"its result is not in the store, and the remote has none that can be taken; '--until {job.name}' makes it"
        )
        raise StepFailure(message)
    with crew.leases.take(job.gpus, WaitToBegin(crew, report, "waiting for GPUs")) as gpus:
        report(BEGUN)
        if job.is_forced:  # from the beginning
            shutil.rmtree(crew.store.checkpoints(job.fingerprint), ignore_errors=True)
        return Outcome(_try(job, gpus, crew, report), "made", note)


def _try(job: Job, gpus: tuple[str, ...], crew: Crew, report: Report) -> Entry:
    """Run a step as often as it may fail."""
    for attempt in range(job.spec.retries + 1):
        try:
            return _attempt(job, gpus, crew, report)
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


def _attempt(job: Job, gpus: tuple[str, ...], crew: Crew, report: Report) -> Entry:
    is_here, checkpoints = runs_here(job), crew.store.checkpoints(job.fingerprint)
    with crew.store.stage() as staging:
        task = {**job.task, "staging": str(staging.folder)}
        with held_to_inputs(job, crew.store) as entries, held_to_originals(job) as originals:
            if is_here:
                reply = _run_here(job.spec, task, crew, report)
            else:
                more = {"checkpoints": str(checkpoints), "given": Given(entries, originals).to_task()}
                reply = _run_apart(job, gpus, task | more, crew, report)
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


def _run_apart(job: Job, gpus: tuple[str, ...], task: Mapping[str, Any], crew: Crew, report: Report) -> dict[str, Any]:
    task = {**task, "fields": job.spec.model_dump(mode="json")}
    try:
        has_keras = job.spec.loads_keras or "keras" in job.spec.libraries
        with crew.workers.worker(gpus, job.threads, runs_code=job.runs_code, has_keras=has_keras) as worker:
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
