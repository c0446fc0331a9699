"""Batches made in processes of their own: the maker on this side, and the program that runs on the other.

The processes are started anew ("spawn"), never forked: a fork copies TensorFlow's locks without the threads that
would release them. They load what the sequence's own module imports and nothing else, Keras and TensorFlow not.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import pickle
import random
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_NAME = "kflow-batches"
_STARTS_WITHIN = 120.0  # seconds for a new process to import the modules that the sequence comes from


def is_worker() -> bool:
    """Whether this process is one that makes batches for another."""
    return multiprocessing.current_process().name.startswith(_NAME)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A sequence as it is at the beginning of an epoch, for the processes, and the seed of that epoch."""

    pickled: bytes
    seed: int


def take_snapshot(source: Any, seed: int) -> Snapshot:
    """Pickle a sequence.

    Raises
    ------
    TypeError
        When it cannot be pickled, or was defined where another process cannot find it.
    """
    obstacle = find_obstacle(source)
    if obstacle:
        message = (
            f"{type(source).__name__} cannot be sent to worker processes: {obstacle}; "
            "or use threads (use_multiprocessing=False)"
        )
        raise TypeError(message)
    return Snapshot(pickle.dumps(source, pickle.HIGHEST_PROTOCOL), seed)


def find_obstacle(source: Any) -> str | None:
    """Say why a sequence cannot be made again in another process and what to do; None when it can."""
    kind = type(source)
    main = sys.modules["__main__"]
    is_interactive = getattr(main, "__file__", None) is None and getattr(main, "__spec__", None) is None
    if kind.__module__ == "__main__" and is_interactive:
        return (
            f"class {kind.__qualname__} was defined in a notebook or at a prompt, where another process cannot "
            "find it; move it into a .py file and import it"
        )
    error = _pickling_error(source)
    if error is None:
        return None
    culprits = [name for name, value in getattr(source, "__dict__", {}).items() if _pickling_error(value)]
    what = f"its attribute {culprits[0]!r}" if culprits else "it"
    return f"{what} cannot be pickled ({error}); open such things in __getitem__ when they are first needed"


def _pickling_error(value: Any) -> str | None:
    try:
        pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - objects raise what they like when they are pickled
        return f"{type(error).__name__}: {error}"
    return None


class InProcess:
    """Makes batches by a process that lives as long as its worker thread.

    Parameters
    ----------
    title : str
        Whose process it is, and which.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.snapshot: Snapshot | None = None
        self._known: Snapshot | None = None
        self._process: Any = None
        self._pipe: Connection | None = None
        self._stacks: Connection | None = None

    def prepare(self) -> None:
        """Start the process if there is none, and give it the sequence as it is in this epoch.

        Raises
        ------
        RuntimeError
            When the process does not come up.
        """
        if self._process is None:
            self._start()
        if self._known is not self.snapshot:
            assert self._pipe is not None
            assert self.snapshot is not None
            with self._alive("when it was given the sequence"):
                self._pipe.send(("load", self.snapshot.seed))
                self._pipe.send_bytes(self.snapshot.pickled)
            self._known = self.snapshot

    def make(self, index: int) -> Any:
        """Return batch ``index``, or raise what the process raised while making it."""
        assert self._pipe is not None
        with self._alive("while it made the batch"):
            self._pipe.send(("make", index))
            batch, failure = _receive(self._pipe)
        if failure is not None:
            raise failure.revive(self._name())
        return batch

    def stop(self) -> None:
        """Hang up, whereupon the process ends."""
        if self._pipe is not None and self._stacks is not None:
            self._pipe.close()
            self._stacks.close()
            self._process.join(10)
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        process = self._process
        if process is not None and process.is_alive():
            process.kill()

    def name(self, thread: threading.Thread) -> str:
        """Return the name of the process."""
        del thread
        return self._name()

    def stack(self, thread: threading.Thread) -> str:
        """Ask the process where it stands; it answers even while it is stuck."""
        del thread
        said = b""
        with suppress(OSError):
            os.kill(self._process.pid, signal.SIGUSR1)
            while self._stacks is not None and self._stacks.poll(0.2 if said else 5):
                said += os.read(self._stacks.fileno(), 10_000)
        return said.decode(errors="replace")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, their_pipe = context.Pipe()
        self._stacks, their_stacks = context.Pipe(duplex=False)
        # The name tells the code in the process that it is a worker, before any module of the user is imported.
        name = f"{_NAME} {self._title}"
        self._process = context.Process(target=serve, args=(their_pipe, their_stacks), name=name, daemon=True)
        self._process.start()
        their_pipe.close()
        their_stacks.close()
        advice = 'what it printed tells why; a script needs `if __name__ == "__main__":` around what it does, as each '
        with self._alive(f"before it could begin ({advice}process imports it)"):
            if not self._pipe.poll(_STARTS_WITHIN):
                self.kill()
            self._pipe.recv()

    @contextmanager
    def _alive(self, when: str) -> Iterator[None]:
        """Tell how the process ended if it turns out to have done so."""
        try:
            yield
        except (EOFError, OSError):
            message = f"{self._name()} {self._death()} {when}"
            raise RuntimeError(message) from None

    def _name(self) -> str:
        return f"process {self._process.pid} ({self._title})"

    def _death(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"


# --- what crosses the pipe ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way from one process to another."""

    pickled: bytes | None
    text: str
    traceback: str

    def revive(self, where: str) -> BaseException:
        """Return the exception, or one that tells of it if its own class cannot be had here."""
        error: BaseException = RuntimeError(self.text)
        if self.pickled is not None:
            with suppress(Exception):
                error = pickle.loads(self.pickled)  # noqa: S301 - the bytes are from our own process
        error.add_note(f"raised in {where}:\n{self.traceback}")
        return error


def _describe(error: BaseException) -> Failure:
    pickled: bytes | None
    try:
        pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        pickle.loads(pickled)  # noqa: S301 - some exceptions can be pickled but not be made again
    except Exception:  # noqa: BLE001 - then its text goes alone
        pickled = None
    text = "".join(traceback.format_exception_only(error)).rstrip()
    return Failure(pickled, text, "".join(traceback.format_exception(error)).rstrip())


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch or a failure, ready to be sent: the memory of arrays as it lies there, and all else pickled."""

    pickled: bytes
    buffers: tuple[memoryview, ...]

    def send(self, pipe: Connection) -> None:
        """Send it."""
        pipe.send(tuple(each.nbytes for each in self.buffers))
        pipe.send_bytes(self.pickled)
        for each in self.buffers:
            if each.nbytes:
                pipe.send_bytes(each)


def _pack(batch: Any, failure: Failure | None = None) -> Parcel:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps((batch, failure), 5, buffer_callback=buffers.append)
    return Parcel(pickled, tuple(each.raw() for each in buffers))


def _receive(pipe: Connection) -> tuple[Any, Failure | None]:
    """Receive what was sent; arrays can be written to, as if they had been made here."""
    sizes = pipe.recv()
    pickled = pipe.recv_bytes()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        if buffer:
            pipe.recv_bytes_into(buffer)
    answer: tuple[Any, Failure | None] = pickle.loads(pickled, buffers=buffers)  # noqa: S301 - from our own process
    return answer


# --- the other process -------------------------------------------------------------------------------------


def serve(pipe: Connection, stacks: Connection) -> None:
    """Make the batches that are asked for until the other side hangs up or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then hangs up
    faulthandler.register(signal.SIGUSR1, file=stacks.fileno())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send("ready")
    bench = _Bench()
    with suppress(EOFError, BrokenPipeError):
        while True:
            what, number = pipe.recv()
            if what == "load":
                bench.load(pipe.recv_bytes(), number)
            else:
                bench.make(number).send(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # at once: the end of an interpreter waits for whatever the libraries of a sequence have started


class _Bench:
    """The sequence in the process that makes its batches."""

    source: Any = None
    seed = 0
    broken: Failure | None = None

    def load(self, pickled: bytes, seed: int) -> None:
        """Make the sequence of an epoch again."""
        self.seed = seed
        try:
            self.source = pickle.loads(pickled)  # noqa: S301 - from our own process
        except BaseException as error:  # noqa: BLE001 - the answer to the first question tells it
            error.add_note("the sequence could not be made again in this process; see that its module can be imported")
            self.broken = _describe(error)

    def make(self, index: int) -> Parcel:
        """Make a batch; what goes wrong is an answer, too."""
        if self.broken is not None:
            return _pack(None, self.broken)
        _seed_generators(self.seed, index)
        try:
            return _pack(self.source[index])
        except BaseException as error:  # noqa: BLE001 - it is raised on the other side
            return _pack(None, _describe(error))


def _seed_generators(seed: int, index: int) -> None:
    """Let what is drawn for a batch depend on the epoch and the batch, and not on which process makes it."""
    random.seed(f"{seed} {index}")
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed([seed % 2**32, index])


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, even while a batch is being made."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
