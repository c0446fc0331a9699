"""What holds a step to its inputs: a result counts only if they were what its fingerprint says, all the time."""

import contextlib
from collections.abc import Iterator, Mapping
from enum import StrEnum

from kflow.errors import RunError
from kflow.run.crew import Crew, InputChanged, Job, Report, WaitToBegin
from kflow.run.given import Original
from kflow.store.entry import Entry, Glance, was_replaced
from kflow.store.store import Store


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


@contextlib.contextmanager
def held_to_inputs(job: Job, store: Store) -> Iterator[dict[str, Glance]]:
    """Put a step off if a result that it takes is replaced meanwhile, as a run with ``--force`` may do, or damaged.

    That goes before what the step says itself: a failure may come of what it was given.
    """
    before = {taken.place: taken.glance() for taken in job.inputs.values()}
    require_sound(job.inputs, store)
    try:
        yield dict(before)
    finally:
        for step, taken in job.inputs.items():
            now = taken.glance()
            if now != before[taken.place]:
                is_sound = store.is_sound(taken)
                if not is_sound or was_replaced(before[taken.place], now):
                    raise InputLost(step, taken, Loss.RESTORED if is_sound else Loss.GONE, was_taken=True)


def require_sound(inputs: Mapping[str, Entry], store: Store) -> None:
    """Put a step off if a result that it takes does not hold the bytes that were published."""
    for step, taken in inputs.items():
        if not store.is_sound(taken):
            raise InputLost(step, taken, Loss.GONE)


@contextlib.contextmanager
def held_to_originals(job: Job) -> Iterator[list[Original]]:
    """Let a step fail if a file that it rests on is changed: else its result would have the fingerprint of another."""
    before = [_look_again(each, job, "was changed since the step was planned") for each in job.originals]
    try:
        yield before
    finally:
        for each in before:
            _look_again(each, job, "was changed while the step ran, and its result is not kept")


def _look_again(original: Original, job: Job, what: str) -> Original:
    found = original.look_again()
    if found is None and original.known is None and original.step:  # size and time were all that spoke for its result
        raise InputLost(original.step, job.inputs[original.step], Loss.OUTDATED)
    if found is None:
        message = f"the file {original.path} {what}; run again"
        raise InputChanged(message)
    return found


def look_at(lost: InputLost, crew: Crew, report: Report) -> InputLost:
    """Set a result aside that is damaged, and say what became of it; whoever makes it anew is waited for."""
    if lost.loss is Loss.RESTORED:
        return lost
    taken = lost.entry
    loss: Loss = lost.loss
    with crew.store.claim(taken.manifest.fingerprint, WaitToBegin(crew, report, "waiting for input")):
        present = crew.store.lookup_sound(taken.manifest.fingerprint)
        if present is None:
            pass
        elif present.digests != taken.digests or present.manifest.files != taken.manifest.files:
            loss = Loss.REPLACED
        elif loss is Loss.GONE:
            loss = Loss.RESTORED
        else:
            crew.store.set_aside(taken.manifest.fingerprint)
    return InputLost(lost.step, taken, loss, was_taken=lost.was_taken)
