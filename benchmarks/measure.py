"""Candidates measured side by side: each round calls every one in turn, so that a noisy minute hurts them alike."""

import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took, children included: seconds, and the bytes of its largest process."""

    cpu: float
    wall: float
    memory: int
    code: int


def spend(command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None) -> Cost:
    """Run a command in a folder; return what it and its children took. What it prints is dropped."""
    began = time.perf_counter()
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=environ, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024, process.returncode)


@dataclass(frozen=True, slots=True)
class Medians:
    """The median wall and CPU seconds of each candidate of one run."""

    wall: Mapping[str, float]
    cpu: Mapping[str, float]
    rounds: int


def measure(candidates: Mapping[str, Callable[[], object]], rounds: int = 7) -> Medians:
    """Call every candidate once a round, after one round that does not count; return the medians.

    The result of a call is dropped before the next one begins, so that nobody pays for another's memory.
    """
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            gc.collect()
            began, worked = time.perf_counter(), time.process_time()
            call()
            if number:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - worked)
    return Medians(
        {name: statistics.median(times) for name, times in wall.items()},
        {name: statistics.median(times) for name, times in cpu.items()},
        rounds,
    )


def show(title: str, medians: Medians, baseline: str, targets: Mapping[str, float] | None = None) -> None:
    """Print a table of the ratios to the baseline, with the targets that stand in an issue."""
    print(f"\n{title} (medians of {medians.rounds}, ratio to {baseline!r})")  # noqa: T201
    print(f"  {'':44}{'wall':>8}{'CPU':>8}{'wall s':>10}{'target':>10}")  # noqa: T201
    for name, seconds in medians.wall.items():
        ratios = (seconds / medians.wall[baseline], medians.cpu[name] / max(medians.cpu[baseline], 1e-9))
        target = f"<= {targets[name]:g}" if targets and name in targets else ""
        print(f"  {name:44}{ratios[0]:8.2f}{ratios[1]:8.2f}{seconds:10.4f}{target:>10}")  # noqa: T201
