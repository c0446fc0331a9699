"""Locks on folders: they tell whether somebody still works there, and end with the process that holds them.

Where the file system does not lock, a folder counts as held, so that nothing under work is taken away. Where it only
pretends to lock, the name of the folder tells as well: it has the process that works there.
"""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for the length of a block; it may be renamed or removed meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


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


def signed_name() -> str:
    """Return a name for a folder that no other has, and that says which process of which machine works there."""
    return f"{uuid.uuid4().hex}-{os.getpid()}-{os.uname().nodename}"


def may_be_alive(name: str) -> bool:
    """Tell whether the process that signed a name may still run; of another machine's nothing is known.

    Examples
    --------
    >>> may_be_alive(signed_name()), may_be_alive("a name without a process")
    (True, False)
    """
    _, _, owner = name.partition("-")
    process, _, machine = owner.partition("-")
    if not process.isdecimal() or machine != os.uname().nodename:
        return process.isdecimal()
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
