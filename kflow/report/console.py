"""Events on a terminal: a line for each step, and a progress bar where somebody watches.

Where the output is no terminal there are plain lines only, one for each epoch.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from kflow.diagnostics import render, visible
from kflow.report.tables import describe_bytes, near
from kflow.run import events

_WIDTH = 34
_WORDS = {
    "output": "    {step} | {line}",
    "put off": "    the stored result of {upstream} {loss}; {step} is put off until it is sound",
    "waiting for input": "    {step} waits for a result that it takes, which is being made anew",
    "waiting for GPUs": "    {step} waits for GPUs that other runs have",
    "waiting": "    {step} waits for the same result, which is being made already",
    "retry": "    {text}",
    "note": "    {step}: {text}",
    "resumed": "    {step} goes on after {epochs} epochs that were done before it was interrupted",
    "refused": "    warning: what the remote has of {step} is refused: {message}; it is not taken",
    "remote": "    warning: {message}",
    "again": "    {step} failed: {message}; it is tried again in {pause:g} s",
}
"""What is told in one line while a step runs."""


@dataclass
class Console:
    """Writes events to a stream."""

    stream: IO[str] = field(default_factory=lambda: sys.stdout)
    is_debug: bool = False
    _bar: "Bar | None" = None
    _percent: int = -1

    def __call__(self, event: events.Event) -> None:
        """Tell an event.

        When whoever reads this has gone (``kflow run FILE | head``, a closed terminal), the run goes on
        untold; the record has it all.
        """
        try:
            self._tell(event)
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def close(self) -> None:
        """Take the progress bar away, and give the cursor back."""
        with contextlib.suppress(OSError):
            self._end_bar()

    def _tell(self, event: events.Event) -> None:
        if not isinstance(event, events.StepProgress):
            self._end_bar()
        match event:
            case events.RunStarted():
                self._line(f"run {event.run}")
            case events.StepReused():
                origin = f": {event.origin}" if event.origin else ""
                self._line(f"  {_title(event.step, event.kind)}  reused{origin}")
            case events.StepStarted():
                self._line(f"  {_title(event.step, event.kind)}  starts: {event.reason}")
            case events.StepProgress():
                self._progress(event.step, event.data)
            case events.StepFinished():
                summary = f": {event.summary}" if event.summary else ""
                self._line(f"  {_title(event.step, event.kind)}  done in {_seconds(event.duration)}{summary}")
            case events.StepFailed():
                self._fail(event)
            case events.RunFinished():
                self._finish(event)

    # --- while a step runs -----------------------------------------------------------------------------

    def _progress(self, step: str, data: Mapping[str, Any]) -> None:
        if data["event"] in _WORDS:
            self._line(_WORDS[data["event"]].format(step=step, **data))
            return
        if data["event"] not in {"download", "batch", "epoch"}:
            return  # a kind of somebody else's may tell more than there are words for here
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = self._bar or Bar.open(self.stream)
            self._bar.show(step, data)
        if data["event"] == "epoch":
            self._line(f"    epoch {data['epoch']}/{data['epochs']}  {_numbers(data['metrics'])}")
        elif data["event"] == "download" and not self.stream.isatty() and data["total"]:
            percent = 100 * data["done"] // data["total"] // 25 * 25
            if percent > self._percent:
                self._percent = percent
                self._line(f"    {percent} % of {describe_bytes(data['total'])}")

    def _end_bar(self) -> None:
        self._percent = -1
        if self._bar:
            self._bar.close()
            self._bar = None

    # --- at the end ------------------------------------------------------------------------------------

    def _fail(self, event: events.StepFailed) -> None:
        self._line("")
        for line in render(event.diagnostic, event.source).splitlines():
            self._line(line)
        if event.log:
            self._line(f"  the full log is in {near(event.log)}")
        if self.is_debug and event.traceback:
            for line in event.traceback.splitlines():
                self._line(f"  {line}")

    def _finish(self, event: events.RunFinished) -> None:
        counts = ", ".join(f"{count} {status}" for status, count in event.counts.items() if count)
        self._line("")
        self._line(f"{event.workflow} {event.status} in {_seconds(event.duration)}: {counts}")
        for step, metrics in event.metrics.items():
            self._line(f"  {'metrics of ' + step:{_WIDTH}}{_numbers(metrics)}")
        for name, path in event.files.items():
            self._line(f"  {name:{_WIDTH}}{near(path)}")
        if event.record:
            self._line(f"  {'run record':{_WIDTH}}{near(event.record)}")
        if event.unwritten:
            self._line(f"  {'no run record':{_WIDTH}}{event.unwritten}")

    def _line(self, text: str) -> None:
        # What comes from files and libraries must not steer the terminal.
        line = visible(text)
        if self._bar:
            self._bar.print(line)
        else:
            self.stream.write(line + "\n")
            self.stream.flush()


@dataclass(frozen=True)
class Bar:
    """A progress bar at the bottom of a terminal."""

    progress: Any
    task: Any

    @classmethod
    def open(cls, stream: IO[str]) -> "Bar":
        """Show an empty bar."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("   {task.description}", markup=False),
            BarColumn(30),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        progress = Progress(*columns, console=RichConsole(file=stream, emoji=False), transient=True)
        progress.start()
        return cls(progress, progress.add_task("", total=None, note=""))

    def show(self, step: str, data: Mapping[str, Any]) -> None:
        """Move the bar."""
        if data["event"] == "download":
            note = f"{describe_bytes(data['done'])}" + (f" of {describe_bytes(data['total'])}" if data["total"] else "")
            self.progress.update(self.task, description=step, completed=data["done"], total=data["total"], note=note)
            return
        done = (data["epoch"] - 1) * data["batches"] + data["batch"]
        self.progress.update(
            self.task,
            description=f"{step}  epoch {data['epoch']}/{data['epochs']}",
            completed=done,
            total=data["epochs"] * data["batches"],
            note=visible(_numbers(data["metrics"])),
        )

    def print(self, line: str) -> None:
        """Write a line above the bar."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


def _title(step: str, kind: str) -> str:
    return f"{step} ({kind})".ljust(_WIDTH - 4)


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _seconds(duration: float) -> str:
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, seconds = divmod(round(duration), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d} min"
