"""What happens during a run, for whoever wants to tell it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.diagnostics import Diagnostic, Source
from kflow.store.entry import Output


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
    """A step is this far.

    ``data['event']`` is download, retry, note, batch, epoch, output, put off, waiting, waiting for input,
    waiting for GPUs, resumed, again, refused or remote.
    """

    step: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepReused:
    """A step's result was in the store, or was got from elsewhere."""

    step: str
    kind: str
    origin: str | None = None


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
    unwritten: str | None = None
    """Why there is no record, where the store cannot be written."""


Event = RunStarted | StepStarted | StepProgress | StepReused | StepFinished | StepFailed | RunFinished
Reporter = Callable[[Event], None]


def summarize(outputs: Iterable[Output]) -> str:
    """Say in short what a step made."""
    parts = []
    for output in outputs:
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
