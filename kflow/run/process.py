"""The processes that steps run in, as the runner holds them: forked from a server, and told to end by way of it."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kflow.run.forkserver import FORKED, KILL, TERMINATE
from kflow.run.leases import HELD, held_gpus
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
    _replies: socket.socket
    _orders: int
    _life: int
    """A pipe: what the server and the watchdog tell, and its end when nothing is left of the worker."""
    _server: "subprocess.Popen[bytes]"
    _said: IO[bytes]
    _told: bytes = b""
    _status: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ordering: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and that of all that it has started; return the status, or raise `TimeoutError`."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        try:
            if self._status is None:
                self._wake_server()
                self._hear(timeout)
                self._settle(self._find_status())
            assert self._status is not None, "it has just been settled"
            return self._status
        finally:
            self._lock.release()

    def _hear(self, timeout: float | None) -> None:
        """Take what is told until there is no one left to tell it."""
        until = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._life, select.POLLIN)
        while poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000):
            word = os.read(self._life, 32)
            if not word:
                return
            self._told += word
        raise TimeoutError

    def _find_status(self) -> int:
        """Return what the watchdog told; if it could not, it was killed, or the server died before there was one."""
        told = self._told.removeprefix(FORKED)
        if told:
            return os.waitstatus_to_exitcode(int(told))
        with contextlib.suppress(subprocess.TimeoutExpired):
            if FORKED not in self._told:
                return self._server.wait(1)
        return -signal.SIGKILL

    def _settle(self, status: int) -> None:
        """Take note of the end, after which there is nobody to give orders to."""
        with self._ordering:
            self._status = status
            os.close(self._orders)
        os.close(self._life)

    def is_alive(self) -> bool:
        """Tell whether it has not ended."""
        try:
            self.wait(0)
        except TimeoutError:
            return True
        return False

    def end(self) -> None:
        """End it with all that it has started; one that the server has not come to yet ends when it does."""
        self._order(TERMINATE)
        close(self.tasks)  # should the server be dead, or not have come to it, the watchdog heeds this
        if self.is_alive() and FORKED in self._told:
            try:
                self.wait(_PATIENCE)
            except TimeoutError:
                self._order(KILL)
                with contextlib.suppress(TimeoutError):
                    self.wait(_PATIENCE)
        with contextlib.suppress(OSError):
            self._replies.shutdown(socket.SHUT_RD)  # who reads them must not wait any longer
        close(self.replies)
        close(self._replies)
        if self._lock.acquire(blocking=False):
            if self._status is None:  # nothing is known of it, and it will end
                self._settle(-signal.SIGKILL)
            self._lock.release()

    def last_words(self) -> str:
        """Return the last line of what the server itself has printed, if it has ended; workers print elsewhere."""
        if self._server.poll() is None:
            return ""
        with contextlib.suppress(ValueError, OSError):  # it was stopped
            size = os.fstat(self._said.fileno()).st_size
            lines = os.pread(self._said.fileno(), 2**16, max(0, size - 2**16)).decode("utf-8", "replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def _order(self, word: bytes) -> None:
        self._wake_server()
        with self._ordering, contextlib.suppress(OSError):  # the server may have ended
            if self._status is None:
                os.write(self._orders, word)

    def _wake_server(self) -> None:
        self._server.send_signal(signal.SIGCONT)  # somebody may have stopped it


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
        """Return a new process; should the server be dead, its first word is its end.

        Raises
        ------
        OSError
            If this process or the machine has no room for another one.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            read_task, write_task = _pipe(theirs, ours)
            read_print, write_print = _pipe(ours, theirs)
            read_order, write_order = _pipe(theirs, ours)
            read_life, write_life = _pipe(ours, theirs)
            replies, its_replies = socket.socketpair()
            ours.callback(replies.close)
            theirs.callback(its_replies.close)
            ends = [read_task, write_print, its_replies.fileno(), read_order, write_life]
            with self._lock:
                if self._process is None or self._process.poll() is not None:
                    self._start()
                server, line, said = self._process, self._socket, self._said
                assert server is not None and line is not None and said is not None, "it has been started"  # noqa: PT018
                with contextlib.suppress(ConnectionError):  # it has just died
                    socket.send_fds(line, [b"w"], ends)
            ours.pop_all()
            tasks = os.fdopen(write_task, "w", encoding="utf-8")
            lines = replies.makefile("r", encoding="utf-8")
            return Process(tasks, lines, read_print, replies, write_order, read_life, server, said)

    def _start(self) -> None:
        self._close()
        self._said = self._said or os.fdopen(os.memfd_create("kflow"), "w+b")
        self._socket, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self._process = subprocess.Popen(  # noqa: S603  our own module, no shell
                # -P: a random.py in the current folder must not stand in for the standard library's.
                [sys.executable, "-P", "-m", "kflow.run.forkserver", *self.imports],
                stdin=its_end.fileno(),
                stdout=self._said,
                stderr=self._said,
                env=worker_environment(self.seat),
                start_new_session=True,  # Ctrl-C in a terminal is for the runner
            )

    def stop(self) -> None:
        """End the server, and all that is left of its workers."""
        with self._lock:
            self._close()
            close(self._said)
            self._said = None

    def _close(self) -> None:
        process, self._process = self._process, None
        close(self._socket)
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # somebody may have stopped it
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Return the ends of a pipe, which are closed with these."""
    ends = os.pipe()
    for stack, end in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, end)
    return ends


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
        **({HELD: held_gpus(seat.gpus)} if seat.gpus else {}),
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
        "MKL_NUM_THREADS": str(seat.threads),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path(os.environ.get("TMPDIR", "/tmp"), "kflow-matplotlib"))),  # noqa: S108  fonts only
    }
