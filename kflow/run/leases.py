"""The GPUs of the machine: each is that of one step at a time, of all the runs that see it."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_PAUSE = 0.5
"""Seconds between two looks whether a GPU is free."""
HELD = "KFLOW_HELD_GPUS"
"""The variable that tells a run which GPUs are held for the step that it was started by: their bus ids."""


@dataclass
class Leases:
    """The GPUs that a run may use, and which of them its steps have.

    Beside other runs it is a lock that keeps them apart, on the folder in which the driver describes a GPU: there is
    nothing to make, to permit or to clean up, and a lock ends with its process. A file in it would not do: the driver
    holds up a suspend of the machine while one is open. Where the driver shows no folder, as for a MIG slice or in some
    containers, the steps of this run alone are kept apart.
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
                had = self._take_free(count, stack) if count else ()
                if len(had) == count:
                    yield had
                    return
            wait(_PAUSE)  # holding none: another run may wait for the same ones

    def _take_free(self, count: int, stack: contextlib.ExitStack) -> tuple[str, ...]:
        """Take GPUs that nobody has, at most so many; they are given back with the stack."""
        had: list[str] = []
        with self._lock:
            for gpu in self.gpus:
                if len(had) < count and gpu not in self._taken and _keep_others_out(self._folders.get(gpu), stack):
                    self._taken.add(gpu)
                    stack.callback(self._taken.discard, gpu)
                    had.append(gpu)
        return tuple(had)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """The folders to lock: not of what is held for the step that has started this run."""
        from kflow.core.parallel.devices import find_gpu_folders

        held = os.environ.get(HELD, "").split(",")
        return {gpu: folder for gpu, folder in find_gpu_folders(self.gpus).items() if folder.name not in held}


def held_gpus(gpus: Sequence[str]) -> str:
    """Return what `HELD` is to say in the process of a step."""
    from kflow.core.parallel.devices import find_gpu_folders

    before = os.environ.get(HELD)
    return ",".join([*([before] if before else []), *(folder.name for folder in find_gpu_folders(gpus).values())])


def _keep_others_out(folder: Path | None, stack: contextlib.ExitStack) -> bool:
    """Lock a folder until the stack ends; tell whether nobody else has it, as far as can be told."""
    if folder is None:
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
