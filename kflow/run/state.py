"""The state of a run under way, and how the user wants it to be carried out."""

import queue
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import to_json

from kflow.errors import PromiseError
from kflow.plan.planner import Action, Planner
from kflow.plan.resolve import Bound
from kflow.run import events
from kflow.run.crew import Crew
from kflow.run.journal import Journal
from kflow.run.record import RunRecord
from kflow.run.schedule import Capacity, Demand, Schedule
from kflow.run.sharing import Sharing
from kflow.run.threads import Threads
from kflow.store.entry import Entry
from kflow.store.store import Store
from kflow.workspace import Workspace


class Promise(Protocol):
    """What a run is held to."""

    def check_action(self, action: Action) -> list[str]:
        """Say how a step, when its turn has come, is another."""

    def check_outputs(self, step: str, digests: Mapping[str, str], metrics: Mapping[str, float]) -> list[str]:
        """Say which outputs and metrics of a step are others."""

    def refuse(self, misses: list[str]) -> PromiseError:
        """Return the error that ends the run."""


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
    exports: bool = True
    """Whether the files that the user asked for by path are put in place, and others are told of."""
    lock: Promise | None = None
    """What every step and output must be equal to: a lock, or a saved plan."""
    sharing: Sharing | None = None
    """The remote that is looked into, and perhaps written to."""


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
    journal: Journal | None = None
    """None where the store cannot be written; then no step can be run."""
    unwritten: str | None = None
    """Why there is no record."""
    began: float = field(default_factory=time.monotonic)
    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """The digests of the outputs so far, by ``step.output``."""
    decided: dict[str, Action] = field(default_factory=dict)
    running: dict[str, "Running"] = field(default_factory=dict)
    yielding: set[str] = field(default_factory=set)
    """The steps that are not run by force: another run has replaced what they gave, they were run already, or what
    they gave counts if that which it was made of is made with the same bytes."""
    made: dict[str, Entry] = field(default_factory=dict)
    """What each step of this run has made, whether that counts by now or not."""
    put_off: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """How often each step was put off because what it takes of another one was damaged, and whether it had begun."""
    at: str | None = None
    """The step that is attended to: what ends the run is put down to it."""
    threads: Threads = field(default_factory=Threads)
    pushing: list[str] = field(default_factory=list)
    """The steps whose results are on their way to the remote; one that is done again may be so twice."""
    has_failed: bool = False
    inbox: "queue.SimpleQueue[tuple[str, Any]]" = field(default_factory=queue.SimpleQueue)
    """What the threads of the steps have to say: the step, and an event, an entry or what went wrong."""

    def note(self, name: str, *, is_end: bool) -> None:
        """Put down what is now known of a step; the end of one is on the disk soon."""
        if self.journal:
            metrics = self.record.metrics.get(name)
            told = to_json(metrics, inf_nan_mode="strings").decode() if metrics else ""
            self.journal.note(name, self.record.steps[name].model_dump_json(), told, is_end=is_end)


@dataclass(frozen=True, slots=True)
class Running:
    """A step under way."""

    demand: Demand
    began: float
    has_log: bool
    """Whether it may have a log: a process of its own."""
    inputs: Mapping[str, Entry]
    """The entry of each step that it takes an output of."""


def is_selected(run: Run, name: str) -> bool:
    """Tell whether a step may be run, and not only looked up."""
    return run.wishes.selected is None or name in run.wishes.selected
