"""The runner's side of worker processes: start them, give them tasks, and make sure that they end."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kflow.errors import RunError
from kflow.run.log import Pump, StepLog
from kflow.run.worker import PREPARE
from kflow.spec.base import COMPUTING_THREADS

Report = Callable[[Mapping[str, Any]], None]
_PATIENCE = 5.0
"""Seconds to wait for a watchdog that was told to end."""
SPARE = 1
"""As many workers are prepared at most: each has TensorFlow in memory, and loading it slows down the step under way."""
_MARK = "KFLOW_WORKER"
"""An environment variable that all has which a worker has started."""


class WorkerDied(RunError):  # noqa: N818  it is reported as what it is
    """The worker process ended in the middle of a step."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker may use: the GPUs that it sees, and the threads that it computes with."""

    gpus: tuple[str, ...] = ()
    threads: int = COMPUTING_THREADS


@dataclass(eq=False)
class Worker:
    """A worker process, started when it is first needed and kept warm between steps."""

    seat: Seat = Seat()
    has_keras: bool = False
    """Whether it was prepared for a step that computes with Keras."""
    _process: subprocess.Popen[str] | None = None
    _replies: IO[str] | None = None
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
        is_warm = self._process is not None and self._process.poll() is None
        if not is_warm:
            self.stop()
            self._start()
        self._is_late = False
        watch = threading.Timer(timeout, self._end_late) if timeout else None
        try:
            if watch:
                watch.daemon = True
                watch.start()
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
            if self._pump:
                self._pump.end()
        death = self._death(timeout)
        if is_warm and not self._is_late:  # it died while it was idle, and the step has not begun
            return self.run(task, report, timeout)
        raise death

    def prepare(self) -> None:
        """Start the process before there is a step for it, and let it import what takes long."""
        self._start()
        assert self._process is not None, "it has been started"
        assert self._process.stdin is not None, "it is a pipe"
        if self.has_keras:
            with contextlib.suppress(BrokenPipeError):  # it is dead, and the step will get another one
                self._process.stdin.write(json.dumps(PREPARE) + "\n")
                self._process.stdin.flush()

    def _answers(self, task: Mapping[str, Any], report: Report) -> Iterator[dict[str, Any]]:
        """Hand over a task and yield the events that come back, until the worker has no more to say."""
        assert self._process is not None, "it has been started"
        assert self._process.stdin is not None, "it is a pipe"
        assert self._replies is not None, "it has been started"
        assert self._pump is not None, "it has been started"
        mark = f"\0{secrets.token_hex(16)}\0"
        echo = (lambda line: report({"event": "output", "line": line})) if task.get("echo") else None
        self._pump.begin(StepLog(Path(task["log"])), mark, echo)
        try:
            self._process.stdin.write(json.dumps({**task, "mark": mark}) + "\n")
            self._process.stdin.flush()
            for line in self._replies:
                if not line.endswith("\n"):
                    break  # it died in the middle of a word
                yield json.loads(line)
        except BrokenPipeError:
            return

    def _start(self) -> None:
        read_end, write_end = os.pipe()
        output, printed = os.pipe()
        self._kills_before = _count_memory_kills()
        mark = secrets.token_hex(16)
        self._process = subprocess.Popen(  # noqa: S603  our own module, no shell
            # -P: a random.py in the current folder must not stand in for the standard library's.
            [sys.executable, "-P", "-m", "kflow.run.watchdog", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            text=True,
            encoding="utf-8",
            pass_fds=[write_end],
            env={**worker_environment(self.seat), _MARK: mark},
            start_new_session=True,  # its own group, so that it can be ended should the watchdog be killed
        )
        os.close(write_end)
        os.close(printed)
        threading.Thread(target=_end_group, args=(self._process.pid, mark), daemon=True).start()
        self._replies = os.fdopen(read_end, encoding="utf-8")
        self._pump = Pump(output)
        self._pump.start()
        if self._is_over:  # the run has ended meanwhile
            self.stop()
            message = "the run is over"
            raise RunError(message)

    def _end_late(self) -> None:
        self._is_late = True
        if self._process is not None:
            _end(self._process)

    def _death(self, timeout: float | None) -> WorkerDied:
        assert self._process is not None, "it has been started"
        code = self._process.wait()
        self.stop()
        if self._is_late:
            return WorkerDied(f"it was stopped after its timeout of {timeout:g} s")
        if code == -signal.SIGKILL:
            if _count_memory_kills() > self._kills_before:
                return WorkerDied("the worker process was killed by the kernel, for there was not enough memory")
            return WorkerDied("the worker process was killed; the machine may have run out of memory")
        if code == -signal.SIGTERM:
            return WorkerDied("the worker process was stopped with SIGTERM")
        if code < 0:
            return WorkerDied(f"the worker process crashed with {signal.Signals(-code).name}")
        return WorkerDied(f"the worker process ended with code {code}, as if by os._exit(), before the step was done")

    def retire(self) -> None:
        """End the process, and let no other one be started, not even one that another thread is about to start."""
        self._is_over = True
        self.stop()

    def stop(self) -> None:
        """End the process with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        _end(process)
        _close(self._replies)


@dataclass
class Workers:
    """The workers of a run: idle ones are used again, where nothing that ran in them can change what comes next.

    One that saw a GPU is not, for TensorFlow gives its memory back only when the process ends. Neither is one that has
    executed code of the user's, and such a step gets one that nothing has run in: a module may set up NumPy or
    TensorFlow for the whole process, or work only where they are not set up yet. Others are prepared meanwhile.
    """

    _idle: list[Worker] = field(default_factory=list)
    """The one that was used last is the last."""
    _prepared: list[Worker] = field(default_factory=list)
    """Those that no step has run in, the oldest in front."""
    _busy: list[Worker] = field(default_factory=list)
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
                message = "the run is over"
                raise RunError(message)
            worker = None if gpus else self._take(threads, has_keras, runs_code=runs_code)
            worker = worker or Worker(Seat(gpus, threads or COMPUTING_THREADS))
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
            with self._lock:
                self._busy.remove(worker)
                if is_kept and not self._is_closed:
                    self._idle.append(worker)

    def _take(self, threads: int | None, has_keras: bool, *, runs_code: bool) -> Worker | None:
        """Take an idle worker that fits, unless nothing may have run in it, or else a prepared one."""
        idle = [] if runs_code else [each for each in reversed(self._idle) if threads in {None, each.seat.threads}]
        for worker in idle:
            self._idle.remove(worker)
            return worker
        for worker in self._find_prepared(threads, has_keras):
            self._prepared.remove(worker)
            return worker
        return None

    def _find_prepared(self, threads: int | None, has_keras: bool) -> list[Worker]:
        return [each for each in self._prepared if (each.seat.threads, each.has_keras) == (threads, has_keras)]

    def _take_surplus(self) -> list[Worker]:
        """Take the idle workers that are too many, as each has TensorFlow in memory; those unused for longest go.

        One more may be kept than have been busy at once, so that steps with and without code can take turns.
        """
        count = max(0, len(self._busy) + len(self._idle) - self._most - 1)
        surplus, self._idle = self._idle[:count], self._idle[count:]
        return surplus

    def prepare(self, threads: int, count: int, *, has_keras: bool) -> None:
        """Have workers at hand, while others are busy, for as many steps to come that cannot use these again.

        Parameters
        ----------
        threads : int
            The threads that they compute with.
        count : int
            The number of steps; no more than `SPARE` are prepared.
        has_keras : bool
            Whether the steps compute with Keras.
        """
        with self._lock, contextlib.suppress(OSError):  # the steps can do without
            while not self._is_closed and len(self._prepared) < SPARE:
                if len(self._find_prepared(threads, has_keras)) >= count:
                    return
                worker = Worker(Seat((), threads), has_keras)
                self._prepared.append(worker)
                worker.prepare()

    def stop(self) -> None:
        """End all of them; no further one is lent."""
        with self._lock:
            self._is_closed = True
            workers = [*self._idle, *self._prepared, *self._busy]
            self._idle, self._prepared = [], []
        for worker in workers:
            worker.retire()


def _end(watchdog: "subprocess.Popen[str]") -> None:
    """End a watchdog, which ends all that its worker has started; should it not, the rest is for `_end_group`."""
    watchdog.terminate()
    watchdog.send_signal(signal.SIGCONT)  # somebody may have stopped it
    _close(watchdog.stdin)
    try:
        watchdog.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        watchdog.kill()
        watchdog.wait()


def _close(stream: IO[str] | None) -> None:
    if stream:
        with contextlib.suppress(OSError, ValueError):  # another thread may be at work with it
            stream.close()


def _end_group(pid: int, mark: str) -> None:
    """Wait for the end of a watchdog; one that was killed leaves what it watched to be ended here."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError, PermissionError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.killpg(pid, signal.SIGKILL)
    sign = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                if sign in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)


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


def worker_environment(seat: Seat) -> dict[str, str]:
    """Return the environment of a worker: only its GPUs are visible, hashing is repeatable, TensorFlow is quiet.

    The numbers in a ``CUDA_VISIBLE_DEVICES`` of the user's count in the order that was in force for the user.
    """
    return {
        **os.environ,
        **({} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        "CUDA_VISIBLE_DEVICES": ",".join(seat.gpus) or "-1",
        "KERAS_BACKEND": "tensorflow",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONOPTIMIZE": "",  # whether asserts of the user's hold is in no fingerprint
        "PYTHONUNBUFFERED": "1",  # what a step printed is in its log even if the process crashes
        "PYTHONUTF8": "1",
        # The order of a sum, and with it its last bits, depends on the number of threads.
        "TF_NUM_INTRAOP_THREADS": str(seat.threads),
        "OMP_NUM_THREADS": str(seat.threads),
        "OPENBLAS_NUM_THREADS": str(seat.threads),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path(os.environ.get("TMPDIR", "/tmp"), "kflow-matplotlib"))),  # noqa: S108  fonts only
    }
