"""The GPUs of the machine: each is that of one step at a time, of all the runs that see it."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PAUSE = 0.5
"""Seconds between two looks whether a GPU is free."""


@dataclass
class Leases:
    """The GPUs that a run may use, and which of them its steps have.

    Beside other runs it is a lock that keeps them apart, on the file in which the driver describes a GPU: there is
    nothing to make, to permit or to clean up, and a lock ends with its process. Where the driver shows none, as for
    a MIG slice or in some containers, the steps of this run alone are kept apart.
    """

    gpus: tuple[str, ...] = ()
    """Their names, as `visible_gpus` gives them."""
    _taken: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def take(self, count: int, wait: Callable[[float], None]) -> Iterator[tuple[str, ...]]:
        """Have a number of GPUs for the length of a block, all of them at once.

        While there are not that many, `wait` is called again and again with the seconds that it should take; what it
        raises ends the wait.
        """
        while True:
            with contextlib.ExitStack() as stack:
                had = self._take_free(count, stack)
                if len(had) == count:
                    yield had
                    return
            wait(_PAUSE)  # holding none: another run may wait for the same ones

    def _take_free(self, count: int, stack: contextlib.ExitStack) -> tuple[str, ...]:
        """Take GPUs that nobody has, at most so many; they are given back with the stack."""
        from kflow.core.parallel.devices import describing_file

        had: list[str] = []
        with self._lock:
            for gpu in self.gpus:
                if len(had) < count and gpu not in self._taken and _keep_others_out(describing_file(gpu), stack):
                    self._taken.add(gpu)
                    stack.callback(self._taken.discard, gpu)
                    had.append(gpu)
        return tuple(had)


def _keep_others_out(file: Path | None, stack: contextlib.ExitStack) -> bool:
    """Lock a file until the stack ends; tell whether nobody else has it, as far as can be told."""
    if file is None:
        return True
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
