"""Locks: they tell whether somebody is at work, and end with the process that holds them.

Where the file system does not lock, a folder counts as held, so that nothing under work is taken away. A file system
that grants every lock to everybody is found out by `exclude`.
"""

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_LONGEST_PAUSE = 0.3
"""Seconds between two looks whether a lock is free."""
_MOMENT = 2.0
"""Seconds to wait for somebody who only looks at an entry."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold a folder for the length of a block, and give its descriptor; it may be renamed or removed meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def exclude(folder: Path) -> bool:
    """Tell whether a lock on a folder keeps another one out, as it should."""
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return False
    return False


@contextlib.contextmanager
def claimed(path: str, number: int, wait: Callable[[float], None]) -> Iterator[None]:
    """Hold one byte of a file for the length of a block; a file with a lock on each would take longer to make.

    While another one holds it, `wait` is called again and again with the seconds that it should take; what it raises
    ends the wait. Where the file system does not lock, nobody waits.
    """
    descriptor = open_lock(path)
    try:
        # Of the open file, not of the process: threads keep each other out as well.
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
        pause = 0.01
        while not _lock(descriptor, wanted):
            wait(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wanted: bytes) -> bool:
    """Tell whether there is nobody left to wait for."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def open_lock(path: str) -> int:
    """Return the descriptor of a file for locks; it is made where there is none, with its folder."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o644)


def is_held(folder: Path) -> bool:
    """Tell whether a living process holds a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared: two that only ask do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def guarded(path: str, kind: int) -> Iterator[None]:
    """Keep those who look something up and those who remove it apart, for the moment that each takes.

    Parameters
    ----------
    path : str
        The file to lock; it is made where there is none. Where it cannot be, or is not locked, nobody is kept out.
    kind : int
        ``fcntl.LOCK_SH`` to look, ``fcntl.LOCK_EX`` to remove.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a store that cannot be written, or a file system that does not lock
            descriptor = open_lock(path)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, kind)
        yield


class AtWorkError(Exception):
    """Somebody else holds what is to be claimed."""


def wait_briefly() -> Callable[[float], None]:
    """Return a wait, for `claimed`, that ends with an `AtWorkError` when it takes longer than a mere look."""
    end = time.monotonic() + _MOMENT

    def wait(seconds: float) -> None:
        if time.monotonic() > end:
            raise AtWorkError
        time.sleep(seconds)

    return wait


def refuse_to_wait(seconds: float) -> None:
    """Wait for nobody: see `claimed`."""
    del seconds
    raise AtWorkError
