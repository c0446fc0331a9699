"""The runner's side of workers: give them tasks, use them again where that is right, and tell how they died."""

import contextlib
import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.errors import RunError
from kflow.run.log import Pump, StepLog
from kflow.run.process import ForkServer, Process, Seat
from kflow.spec.base import COMPUTING_THREADS

Report = Callable[[Mapping[str, Any]], None]
_OVER = "the run is over"


class WorkerDied(RunError):  # noqa: N818  it is reported as what it is
    """The worker process ended in the middle of a step."""


@dataclass(eq=False)
class Worker:
    """A worker process, started when it is first needed and kept warm between steps."""

    server: ForkServer = field(default_factory=ForkServer)
    _process: Process | None = None
    _pump: Pump | None = None
    _is_late: bool = False
    _is_over: bool = False
    _kills_before: int = 0

    def run(self, task: Mapping[str, Any], report: Report, timeout: float | None = None) -> dict[str, Any]:
        """Run a step and wait for its end.

        Parameters
        ----------
        task : mapping
            What the worker needs: kind, fields, folders, artifacts, seed.
        report : callable
            Takes the events on the way; what the step prints as well, if the task says ``echo``.
        timeout : float, optional
            Seconds after which the process is ended with all that it started.

        Returns
        -------
        dict
            The last event, ``done`` or ``failed``.

        Raises
        ------
        WorkerDied
            If the process ends instead of answering.
        """
        is_warm = self._process is not None and self._process.is_alive()
        if not is_warm:
            self.stop()
            self._start()
        self._is_late = False
        watch = threading.Timer(timeout, self._end_late) if timeout else None
        if watch:
            watch.daemon = True
            watch.start()
        try:
            for event in self._answers(task, report):
                if event["event"] in {"done", "failed"}:
                    return event
                if event["event"] == "started":
                    is_warm = False  # from here on its death is that of the step
                else:
                    report(event)
        except BaseException:
            self.stop()  # at once: it must not go on writing where the runner tidies up
            raise
        finally:
            if watch:
                watch.cancel()
                watch.join()  # it may be at work, and must not end what comes next
            if self._pump:
                self._pump.end()
        death = self._death(timeout)
        if is_warm and not self._is_late:  # it died while it was idle, and the step has not begun
            return self.run(task, report, timeout)
        raise death

    def _answers(self, task: Mapping[str, Any], report: Report) -> Iterator[dict[str, Any]]:
        """Hand over a task and yield the events that come back, until the worker has no more to say."""
        process = self._process
        assert process is not None, "it has been started"
        assert self._pump is not None, "it has been started"
        mark = f"\0{secrets.token_hex(16)}\0"
        echo = (lambda line: report({"event": "output", "line": line})) if task.get("echo") else None
        self._pump.begin(StepLog(Path(task["log"])), mark, echo)
        try:
            process.tasks.write(json.dumps({**task, "mark": mark}) + "\n")
            process.tasks.flush()
            for line in process.replies:
                if not line.endswith("\n"):
                    break  # it died in the middle of a word
                yield json.loads(line)
        except (BrokenPipeError, ValueError):  # it is dead, or was ended by another thread
            return

    def _start(self) -> None:
        self._kills_before = _count_memory_kills()
        try:
            self._process = self.server.fork()
            self._pump = Pump(self._process.printed)
            self._pump.start()
        except (OSError, RuntimeError) as error:  # too many descriptors, processes or threads
            self.stop()
            message = f"no worker process could be started: {error}"
            raise WorkerDied(message) from None
        if self._is_over:  # the run has ended meanwhile
            self.stop()
            self.server.stop()
            raise RunError(_OVER)

    def _end_late(self) -> None:
        self._is_late = True
        if self._process is not None:
            self._process.end()

    def _death(self, timeout: float | None) -> WorkerDied:
        process = self._process
        if process is None:  # it was retired
            raise RunError(_OVER)
        if self._is_late:  # it has been ended, or will be as soon as there is one
            self.stop()
            return WorkerDied(f"it was stopped after its timeout of {timeout:g} s")
        code = process.wait()
        self.stop()
        words = process.last_words()
        return WorkerDied(self._describe(code) + (f"; its last words: {words}" if words else ""))

    def _describe(self, code: int) -> str:
        """Say how the process ended, by its status."""
        if code == -signal.SIGKILL:
            if _count_memory_kills() > self._kills_before:
                return "the worker process was killed by the kernel, for there was not enough memory"
            return "the worker process was killed; the machine may have run out of memory"
        if code == -signal.SIGTERM:
            return "the worker process was stopped with SIGTERM"
        if code < 0:
            return f"the worker process crashed with {signal.Signals(-code).name}"
        return f"the worker process ended with code {code}, as if by os._exit(), before the step was done"

    def refuse(self) -> None:
        """Let no other process be started, not even one that another thread is about to start."""
        self._is_over = True

    def stop(self) -> None:
        """End the process with all that it started."""
        process, self._process = self._process, None
        if process is not None:
            process.end()


@dataclass
class Workers:
    """The workers of a run: idle ones are used again, where nothing that ran in them can change what comes next.

    One that saw a GPU is not, for TensorFlow gives its memory back only when the process ends; its server forks no
    other one. Neither is one that has executed code of the user's, and such a step gets one that nothing has run in:
    a module may set up NumPy or TensorFlow for the whole process, or work only where they are not set up yet.
    """

    _idle: list[Worker] = field(default_factory=list)
    """The one that was used last is the last."""
    _busy: list[Worker] = field(default_factory=list)
    _servers: dict[tuple[int, bool], ForkServer] = field(default_factory=dict)
    """By the number of threads, and whether they have imported Keras: code can tell whether that is loaded."""
    _most: int = 0
    """As many as have been busy at once."""
    _is_closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def worker(
        self, gpus: tuple[str, ...], threads: int | None, *, runs_code: bool = False, has_keras: bool = False
    ) -> Iterator[Worker]:
        """Lend a worker for one step.

        Parameters
        ----------
        gpus : tuple of str
            The GPUs that it may see.
        threads : int, optional
            The threads that it computes with; None for a step to which they do not matter.
        runs_code : bool
            Whether the step executes code of the user's; default False.
        has_keras : bool
            Whether the step computes with Keras; default False.
        """
        with self._lock:
            if self._is_closed:
                raise RunError(_OVER)
            worker = None if gpus or runs_code else self._take(threads)
            worker = worker or Worker(self._server(gpus, threads or COMPUTING_THREADS, has_keras=has_keras))
            self._busy.append(worker)
            self._most = max(self._most, len(self._busy))
            surplus = self._take_surplus()
        for each in surplus:
            each.stop()
        is_kept = not gpus and not runs_code
        try:
            yield worker
        finally:
            if not is_kept:
                worker.stop()
            if gpus:
                worker.server.stop()
            with self._lock:
                self._busy.remove(worker)
                if is_kept and not self._is_closed:
                    self._idle.append(worker)

    def _take(self, threads: int | None) -> Worker | None:
        """Take the idle worker that fits and was used last."""
        for worker in reversed(self._idle):
            if threads in {None, worker.server.seat.threads}:
                self._idle.remove(worker)
                return worker
        return None

    def _server(self, gpus: tuple[str, ...], threads: int, *, has_keras: bool) -> ForkServer:
        """Return a server that forks what a step needs."""
        if gpus:  # TensorFlow might look for them as soon as it is imported, and what it then sets up outlives no fork
            return ForkServer(Seat(gpus, threads))
        key = threads, has_keras
        if key not in self._servers:
            self._servers[key] = ForkServer(Seat((), threads), ("keras",) if has_keras else ())
        return self._servers[key]

    def _take_surplus(self) -> list[Worker]:
        """Take the idle workers that are too many, as each has TensorFlow in memory; those unused for longest go.

        One more may be kept than have been busy at once, so that steps with and without code can take turns.
        """
        count = max(0, len(self._busy) + len(self._idle) - self._most - 1)
        surplus, self._idle = self._idle[:count], self._idle[count:]
        return surplus

    def stop(self) -> None:
        """End all of them; no further one is lent."""
        with self._lock:
            self._is_closed = True
            workers = [*self._idle, *self._busy]
            servers = {id(each): each for each in [*self._servers.values(), *(worker.server for worker in workers)]}
            self._idle = []
        for worker in workers:
            worker.refuse()
        for server in servers.values():  # first, as one that still imports heeds nothing else
            server.stop()
        for worker in workers:
            worker.stop()


def _count_memory_kills() -> int:
    """Return how often the kernel has killed a process of this container for want of memory; 0 where it cannot be told.

    From ``memory.events`` of control groups, version 2.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
