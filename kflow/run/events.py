"""What happens during a run, for whoever wants to tell it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.diagnostics import Diagnostic, Source


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins."""

    run: str
    workflow: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins, for a reason."""

    step: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step is this far; ``data['event']`` is download, retry, batch or epoch."""

    step: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepReused:
    """A step's result was in the store."""

    step: str
    kind: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step is done, with what it has to say in short."""

    step: str
    kind: str
    duration: float
    summary: str


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A step failed: where in the file, why, and where the full log is."""

    step: str
    diagnostic: Diagnostic
    source: Source
    log: Path | None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ended; what it made and where that lies."""

    run: str
    workflow: str
    status: str
    duration: float
    counts: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    record: Path | None = None


Event = RunStarted | StepStarted | StepProgress | StepReused | StepFinished | StepFailed | RunFinished
Reporter = Callable[[Event], None]
