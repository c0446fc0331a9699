"""Workers that make batches ahead of their consumer: threads, each making batches itself or by a process of its own.

Batches are handed over in the order in which they were asked for, whatever the number of workers.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from kflow.core.limits import whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

GIVES_UP_AFTER = 600.0
"""The seconds that a worker may take for one batch when nobody says otherwise."""

_GLANCE = 0.5  # how often a waiting consumer looks whether the workers were stopped, in seconds


class Maker(Protocol):
    """What one worker thread makes batches with."""

    def prepare(self) -> None:
        """Get ready for the next batch; the time it takes is not counted as the batch's."""

    def make(self, index: int, /) -> Any:
        """Return batch ``index``."""

    def stop(self) -> None:
        """Give back what it holds; called by the worker thread when there is nothing more to do."""

    def kill(self) -> None:
        """Break off what it does, if that can be done; called from other threads."""

    def name(self, thread: threading.Thread) -> str:
        """Name what runs the code of the batches."""

    def stack(self, thread: threading.Thread) -> str:
        """Tell where that code stands now; empty if it cannot be told."""


class InThread:
    """Makes batches in the worker thread itself."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def prepare(self) -> None:
        """Nothing is needed."""

    def stop(self) -> None:
        """Nothing is held."""

    def kill(self) -> None:
        """Nothing can be done: Python's threads cannot be killed."""

    def name(self, thread: threading.Thread) -> str:
        """Return the name of the thread."""
        return f"thread {thread.name!r}"

    def stack(self, thread: threading.Thread) -> str:
        """Return the innermost lines that the thread is in."""
        frame = sys._current_frames().get(thread.ident or 0)
        return "".join(traceback.format_stack(frame)[-4:]) if frame else ""


def require_limits(workers: Any, max_queue_size: Any, timeout: Any, *, least: int) -> None:
    """Refuse what cannot be a number of workers or of batches, or a time to wait.

    Raises
    ------
    ValueError
        If one of the first two is no whole number or too small, or the last neither None nor a number above 0.
    """
    whole_number("workers", workers, least)
    whole_number("max_queue_size", max_queue_size, least)
    if timeout is not None and not (hasattr(timeout, "__float__") and timeout > 0):
        msg = f"timeout must be a number of seconds above 0, or None for the default, not {timeout!r}"
        raise ValueError(msg)


@dataclass(slots=True)
class Task:
    """A batch that was asked for, and who makes it since when."""

    index: int
    future: Future[Any] = field(default_factory=Future)
    maker: Maker | None = None
    thread: threading.Thread | None = None
    began: float | None = None


class Pool:
    """Worker threads with their makers.

    Parameters
    ----------
    name : str
        Whose workers these are; the threads are named after it.
    makers : sequence of Maker
        One for each thread.
    timeout : float
        The seconds that a batch may take from the moment when a worker begins it.
    """

    def __init__(self, name: str, makers: Sequence[Maker], timeout: float) -> None:
        self.name, self.timeout, self.is_open = name, timeout, True
        self._makers = tuple(makers)
        self._todo: SimpleQueue[Task | None] = SimpleQueue()
        # Daemon threads, so that one that is stuck in a batch does not keep the interpreter from ending.
        self._threads = [
            threading.Thread(target=_work, args=(self._todo, maker), name=f"{name} worker {number}", daemon=True)
            for number, maker in enumerate(self._makers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, index: int) -> Task:
        """Ask for a batch."""
        task = Task(index)
        self._todo.put(task)
        return task

    def in_order(self, indices: Iterable[int], ahead: int) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, batch)`` in the order of the indices, ``ahead`` of them being made beforehand.

        Raises
        ------
        Exception
            What the making of a batch raised, the same object, with the index of the batch as a note.
        TimeoutError
            When a batch takes longer than the time-out; the workers have then been killed.
        """
        todo = iter(indices)
        waiting = deque(self.submit(index) for index in islice(todo, ahead))
        try:
            while waiting and self._wait(waiting[0]):
                task = waiting.popleft()
                batch = _result(task)
                waiting.extend(self.submit(index) for index in islice(todo, 1))
                index = task.index
                del task  # or the batch would stay in memory until the next one is ready
                yield index, batch
                del batch
        finally:
            for task in waiting:
                task.future.cancel()

    def close(self) -> None:
        """Let the workers end as soon as they have made the batches that they are at."""
        self.is_open = False
        with suppress(Empty):
            while True:
                task = self._todo.get_nowait()
                if task is not None:
                    task.future.cancel()
        for _ in self._threads:
            self._todo.put(None)

    def join(self, timeout: float | None) -> None:
        """Wait until the workers have ended, for ``timeout`` seconds at most."""
        ends = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(None if ends is None else max(0.0, ends - time.monotonic()))

    def kill(self) -> None:
        """Break off what the workers do, as far as that can be done."""
        self.close()
        for maker in self._makers:
            maker.kill()

    def _wait(self, task: Task) -> bool:
        """Wait for a batch; return whether there is one, which there is not when the workers were stopped."""
        while not task.future.done():
            left = _GLANCE if task.began is None else task.began + self.timeout - time.monotonic()
            if left <= 0:
                stuck = self._stuck(task)
                self.kill()
                raise stuck
            wait([task.future], min(left, _GLANCE))
            if not self.is_open:
                break
        return self.is_open and not task.future.cancelled()

    def _stuck(self, task: Task) -> TimeoutError:
        """Return the error that names the worker, the batch and the place in the code."""
        assert task.thread is not None
        assert task.maker is not None
        message = (
            f"batch {task.index} of {self.name} is not ready after {self.timeout:g} s: "
            f"{task.maker.name(task.thread)} is stuck; see what it waits for, or set a longer timeout"
        )
        error = TimeoutError(message)
        stack = task.maker.stack(task.thread).rstrip()
        if stack:
            error.add_note(f"it stands at:\n{stack}")
        return error


def raise_noted(error: BaseException, index: int) -> NoReturn:
    """Raise an exception that says in a note which batch it is about.

    A StopIteration and a GeneratorExit mean something else in the generators that batches go through: a RuntimeError
    tells of them, with their traceback.
    """
    if isinstance(error, StopIteration | GeneratorExit):
        name = type(error).__name__
        message = f"__getitem__ raised {name} in batch {index}: an iterator that it uses may have ended early"
        told = RuntimeError(message).with_traceback(error.__traceback__)
        told.__cause__ = error
        for note in getattr(error, "__notes__", ()):  # Keras drops the cause
            told.add_note(note)
        error = told
    error.add_note(f"raised while making batch {index}")
    raise error


def _result(task: Task) -> Any:
    """Return the batch, or raise what its making raised."""
    error = task.future.exception()
    if error is None:
        return task.future.result()
    raise_noted(error, task.index)


def _work(todo: SimpleQueue[Task | None], maker: Maker) -> None:
    """Make batches until there is None to make."""
    while (task := todo.get()) is not None:
        if task.future.set_running_or_notify_cancel():
            _make(task, maker)
        del task  # a batch must not stay in memory while its worker waits for the next task
    maker.stop()


def _make(task: Task, maker: Maker) -> None:
    """Make one batch, or keep what went wrong for the one who waits for it."""
    task.maker, task.thread = maker, threading.current_thread()
    try:
        maker.prepare()
        task.began = time.monotonic()
        task.future.set_result(maker.make(task.index))
    except BaseException as error:  # noqa: BLE001 - it is raised where the batch is waited for
        task.future.set_exception(error)
