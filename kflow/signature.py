"""What can be told of a file without reading it: enough to know that it is the one that was read before.

Nothing here needs more than `os`: a run that has nothing to do consists of little else.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

State = tuple[int, int, int, int, int]
"""Size, time of the last write, time of the last change of any kind, inode and mode."""

ABSENT: State = (-1, -1, -1, -1, -1)
TICK = 100_000_000
"""Nanoseconds: more than a clock tick of any kernel, which is what file times are taken from."""
_SECOND = 1_000_000_000


def state(path: str | os.PathLike[str]) -> State:
    """Return the state of a file or folder; `ABSENT` where there is none.

    Raises
    ------
    OSError
        If it cannot be told.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  pathlib costs as much again
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode)


def states(paths: Iterable[str]) -> list[int]:
    """Return the states of many files, one after the other in one flat list."""
    found: list[int] = []
    for path in paths:
        found += state(path)
    return found


def is_another(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Tell whether another file was put in the place of one between two moments: the first may have held other bytes.

    Parameters
    ----------
    before, now : sequence
        The state of the file at each moment; what follows it is not looked at.

    Examples
    --------
    >>> is_another((1, 5, 5, 7, 0o100644), (1, 6, 6, 7, 0o100644)), is_another((1, 5, 5, 7, 0), (1, 5, 9, 8, 0))
    (False, True)
    """
    # Its times say nothing, so that bytes are not noticed which were changed and put back in one file: HDF5 writes to a
    # file that is only read, if it may. Nor does its inode alone: some file systems give another at every look.
    return bool(now[3] != before[3] and now[2] != before[2])


def is_untouched(before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Tell whether nothing was done to a file between two moments.

    Parameters
    ----------
    before, now : sequence
        The state of the file at each moment; what follows it is not looked at.

    Examples
    --------
    >>> is_untouched((1, 5, 5, 7, 0o100644), (1, 5, 5, 8, 0o100644)), is_untouched((1, 5, 5, 7, 0), (1, 5, 9, 7, 0))
    (True, False)
    """
    # Not by its inode, as some file systems give another at every look: another file shows in its times as well.
    return bool(before[:3] == now[:3] and before[4] == now[4])


def is_settled(seen: State, moment: int) -> bool:
    """Tell whether a file was last changed so long before a moment that any later change would show in its times.

    Parameters
    ----------
    seen : State
        The state of the file.
    moment : int
        Nanoseconds since the epoch.

    Examples
    --------
    >>> is_settled((1, 5, 5, 7, 0o100644), moment=10**9), is_settled((1, 5, 5, 7, 0o100644), moment=6)
    (True, False)
    """
    # A file system that counts in whole seconds, or in two, may show two changes as one for that long.
    is_coarse = seen[1] % _SECOND == 0
    return max(seen[1], seen[2]) < moment - (3 * _SECOND if is_coarse else TICK)
