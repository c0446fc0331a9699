"""The processes that steps run in, as the runner holds them: forked from a server, and told to end by way of it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kflow.spec.base import COMPUTING_THREADS

_PATIENCE = 5.0
"""Seconds to wait for a process that was told to end."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker may use: the GPUs that it sees, and the threads that it computes with."""

    gpus: tuple[str, ...] = ()
    threads: int = COMPUTING_THREADS


@dataclass(eq=False)
class Process:
    """A worker with its watchdog, whose status stands for both: -n after signal n, as that of `subprocess.Popen`."""

    tasks: IO[str]
    replies: IO[str]
    printed: int
    """A descriptor: what it prints, to be closed by who reads it."""
    _line: socket.socket
    _server: "subprocess.Popen[bytes]"
    _status: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and that of all that it has started; return the status, or raise `TimeoutError`."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        try:
            if self._status is None:
                self._line.settimeout(timeout)
                told = self._line.recv(32)
                self._status = os.waitstatus_to_exitcode(int(told)) if told else self._server.wait()
                self._line.close()
            return self._status
        finally:
            self._lock.release()

    def is_alive(self) -> bool:
        """Tell whether it has not ended."""
        try:
            self.wait(0)
        except (TimeoutError, BlockingIOError):
            return True
        return False

    def end(self) -> None:
        """End it with all that it has started."""
        self._order(b"t")
        close(self.tasks)  # should the server be dead, the watchdog heeds this
        try:
            self.wait(_PATIENCE)
        except TimeoutError:
            self._order(b"k")
            with contextlib.suppress(TimeoutError):
                self.wait(_PATIENCE)
        close(self.replies)

    def _order(self, word: bytes) -> None:
        self._server.send_signal(signal.SIGCONT)  # somebody may have stopped it
        with contextlib.suppress(OSError):  # it has ended
            self._line.send(word)


@dataclass(eq=False)
class ForkServer:
    """A process that forks workers of one sort (`kflow.run.forkserver`), started when it is first needed."""

    seat: Seat = Seat()
    imports: tuple[str, ...] = ()
    """The modules that it imports for all of them; what it imports must not see GPUs."""
    _process: "subprocess.Popen[bytes] | None" = None
    _socket: socket.socket | None = None
    _said: IO[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fork(self) -> Process:
        """Return a new process; should the server be dead, its first word is its end."""
        (read_task, write_task), (read_reply, write_reply), (read_print, write_print) = (os.pipe() for _ in range(3))
        line, its_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends = [read_task, write_print, write_reply, its_line.fileno()]
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            server = self._process
            assert server is not None, "it has been started"
            assert self._socket is not None, "it has been started"
            with contextlib.suppress(ConnectionError):  # it has just died
                socket.send_fds(self._socket, [b"w"], ends)
        its_line.close()
        for number in ends[:-1]:
            os.close(number)
        tasks, replies = os.fdopen(write_task, "w", encoding="utf-8"), os.fdopen(read_reply, encoding="utf-8")
        return Process(tasks, replies, read_print, line, server)

    def _start(self) -> None:
        self._close()
        self._socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = os.fdopen(os.memfd_create("kflow"), "w+b")
        self._process = subprocess.Popen(  # noqa: S603  our own module, no shell
            # -P: a random.py in the current folder must not stand in for the standard library's.
            [sys.executable, "-P", "-m", "kflow.run.forkserver", *self.imports],
            stdin=its_end.fileno(),
            stdout=self._said,
            stderr=self._said,
            env=worker_environment(self.seat),
            start_new_session=True,  # Ctrl-C in a terminal is for the runner
        )
        its_end.close()

    def last_words(self) -> str:
        """Return the last line of what the server itself has printed, if it has ended; workers print elsewhere."""
        if self._said is None or self._process is None or self._process.poll() is None:
            return ""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """End the server, and all that is left of its workers."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        for each in (self._socket, self._said):
            close(each)
        if process is None:
            return
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def close(stream: "IO[str] | IO[bytes] | socket.socket | None") -> None:
    """Close a line to a process that may have ended."""
    if stream:
        with contextlib.suppress(OSError, ValueError):  # another thread may be at work with it
            stream.close()


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
