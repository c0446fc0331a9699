"""Which steps may start: those whose needs are done, as long as the machine has enough for them. Pure."""

import os
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Demand:
    """What a step takes of the machine while it runs."""

    cpus: int = 1
    memory: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has, in processors, bytes and GPUs, and how many steps may run at once."""

    cpus: int
    memory: int
    gpus: int = 0
    jobs: int | None = None
    """The user's own number of steps at once; the processors are then not counted."""

    def has_room(self, running: Sequence[Demand]) -> bool:
        """Tell whether any further step could be started at all."""
        return not running or (len(running) < (self.jobs or self.cpus))

    def admits(self, demand: Demand, running: Sequence[Demand]) -> bool:
        """Tell whether a step fits beside those that are running; a lone step always does, but for its GPUs."""
        if demand.gpus > self.gpus - sum(each.gpus for each in running):
            return False
        if not running:
            return True
        if self.jobs is not None:
            has_room = len(running) < self.jobs
        else:
            has_room = demand.cpus <= self.cpus - sum(each.cpus for each in running)
        return has_room and demand.memory <= self.memory - sum(each.memory for each in running)


@dataclass
class Schedule:
    """The steps of a run, each waiting, ready, running or finished.

    Parameters
    ----------
    needs : mapping of str to sequence of str
        For each step, in the order of the run, the steps that must be done before.

    Examples
    --------
    >>> schedule = Schedule({"a": (), "b": ("a",), "c": ()})
    >>> list(schedule.ready())
    ['a', 'c']
    >>> schedule.start("a")
    >>> schedule.finish("a", good=True)
    >>> list(schedule.ready())
    ['b', 'c']
    """

    needs: Mapping[str, Sequence[str]]
    _names: tuple[str, ...] = field(init=False)
    _place: dict[str, int] = field(init=False)
    _missing: dict[str, int] = field(init=False)
    _followers: dict[str, list[str]] = field(init=False)
    _ready: list[int] = field(init=False)
    _held_up: dict[str, set[str]] = field(default_factory=dict)
    """For each step that is done again, or has failed, those that were put off until it is done."""

    def __post_init__(self) -> None:
        self._names = tuple(self.needs)
        self._place = {name: place for place, name in enumerate(self._names)}
        self._missing = {name: len(set(before)) for name, before in self.needs.items()}
        self._followers = {name: [] for name in self.needs}
        for name, before in self.needs.items():
            for each in dict.fromkeys(before):
                self._followers[each].append(name)
        self._ready = [self._place[name] for name, count in self._missing.items() if not count]

    def ready(self) -> Iterator[str]:
        """Yield the steps that could start now, in the order of the run; it may change meanwhile."""
        place = -1
        while (index := bisect_right(self._ready, place)) < len(self._ready):
            place = self._ready[index]
            yield self._names[place]

    def followers(self, name: str) -> Sequence[str]:
        """Return the steps that need one."""
        return self._followers[name]

    def start(self, name: str) -> None:
        """Take a step that is ready."""
        del self._ready[bisect_left(self._ready, self._place[name])]

    def redo(self, name: str) -> None:
        """Let a step that had finished be done again; those that need it and were not started wait for it."""
        self._held_up[name] = set()
        for each in self._followers[name]:
            if self._is_ready(each):
                self.start(each)
                self.put_off(each)
            elif self._missing[each]:
                self._await(each)
        self.put_off(name)

    def put_off(self, name: str) -> None:
        """Let a step that was started be started once more, when all that it needs and is done again is done."""
        self._await(name)
        if not self._missing[name]:
            insort(self._ready, self._place[name])

    def _await(self, name: str) -> None:
        """Let a step wait for those of its needs that are done again."""
        for each in self.needs[name]:
            held_up = self._held_up.get(each)
            if held_up is not None and name not in held_up:
                held_up.add(name)
                self._missing[name] += 1

    def _is_ready(self, name: str) -> bool:
        index = bisect_left(self._ready, self._place[name])
        return index < len(self._ready) and self._ready[index] == self._place[name]

    def finish(self, name: str, *, good: bool) -> None:
        """Note the end of a step that was started; what hangs on one that failed will never be ready."""
        if not good:
            self._held_up.setdefault(name, set())  # also for one that is put off later
            return
        for each in self._held_up.pop(name, self._followers[name]):
            self._missing[each] -= 1
            if not self._missing[each]:
                insort(self._ready, self._place[each])


def machine(gpus: int, jobs: int | None = None) -> Capacity:
    """Return what this machine, or the container around this process, has."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Capacity(cpus, _memory(), gpus, jobs)


def _memory() -> int:
    """Return the bytes of this machine, or those that its control group (version 2) may use."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return there
