"""The state of a run under way, and how the user wants it to be carried out."""

import queue
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.plan.planner import Action, Planner
from kflow.plan.resolve import Bound
from kflow.run import events
from kflow.run.journal import Journal
from kflow.run.lock import Lock
from kflow.run.record import RunRecord
from kflow.run.schedule import Capacity, Demand, Schedule
from kflow.run.sharing import Sharing
from kflow.run.steps import Crew
from kflow.store.entry import Entry
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
    exports: bool = True
    """Whether the files that the user asked for by path are put in place."""
    lock: Lock | None = None
    """What every step and output must be equal to."""
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
    journal: Journal
    began: float = field(default_factory=time.monotonic)
    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """The digests of the outputs so far, by ``step.output``."""
    decided: dict[str, Action] = field(default_factory=dict)
    running: dict[str, "Running"] = field(default_factory=dict)
    pushing: set[str] = field(default_factory=set)
    """The steps whose results are on their way to the remote."""
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


def is_selected(run: Run, name: str) -> bool:
    """Tell whether a step may be run, and not only looked up."""
    return run.wishes.selected is None or name in run.wishes.selected
