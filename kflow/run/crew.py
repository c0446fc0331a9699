"""What the thread of a step is given, and what comes of it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kflow.errors import RunError
from kflow.run.given import Original
from kflow.run.leases import Leases
from kflow.run.sharing import Sharing
from kflow.run.workers import Workers
from kflow.spec.base import StepSpec
from kflow.store.entry import Entry
from kflow.store.remote import Expected
from kflow.store.store import Store

BEGUN: Mapping[str, Any] = {"event": "begun"}
"""What a step reports when it begins to be run; it is known by its identity, as a kind may report what it likes."""
Report = Callable[[Mapping[str, Any]], None]
_LONGEST = 600
"""Characters of a failure that are told."""


class StepFailure(RunError):  # noqa: N818  it is the outcome of a step
    """A step failed; ``traceback`` is that of its process, where there is one."""

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class InputChanged(StepFailure):
    """A file that the step rests on is not the one in its fingerprint any more; another try would not help."""


class NoUse(RunError):  # noqa: N818  it is the outcome of a step
    """The run has failed and starts no more steps, and this one had not begun."""


class Cancelled(RunError):  # noqa: N818  it is the outcome of a step
    """The run is over, and the step with it."""


def in_short(text: str) -> str:
    """Cut off what is no sentence any more; the log of a step has it whole."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


@dataclass(frozen=True, slots=True)
class Job:
    """A step that is to be run: all that its thread needs to know."""

    name: str
    spec: StepSpec
    fingerprint: str
    task: Mapping[str, Any]
    gpus: int
    """How many it wants."""
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
    leases: Leases = field(default_factory=Leases)
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
class WaitToBegin:
    """The wait of a step for what it needs to begin; it is told once, and ends when the run is over or has failed."""

    crew: Crew
    report: Report
    event: str = "waiting"
    is_told: bool = False

    def __call__(self, seconds: float) -> None:
        """Wait for some seconds, or raise what ends the wait."""
        if self.crew.starts_no_more.is_set():
            raise NoUse
        if not self.is_told:
            self.report({"event": self.event})
            self.is_told = True
        if self.crew.over.wait(seconds):
            raise Cancelled
