"""Blocks of an array done in several threads, for what takes time is memory that one processor waits for."""

from __future__ import annotations

import os
import threading
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["do_each"]

_THREADS = 4  # the most that are used: a few can make use of all the bandwidth that there is
_AT_ONCE = 2  # neighbours that a thread takes: between blocks of two threads lies a page that both may have to wait for


def do_each(blocks: Iterable[tuple[int, int]], do: Callable[[int, int], None], *, threads: int) -> None:
    """Do something with each block, in threads of which one is the caller's.

    Parameters
    ----------
    blocks : iterable of tuple of int
        The start and the stop of each block. Which thread does one must make no difference.
    do : callable
        Takes start and stop; what it raises is raised here, when all threads have ended.
    threads : int
        How many are worth it; there are no more than four, nor than there are processors.

    Examples
    --------
    >>> done = []
    >>> do_each([(0, 2), (2, 3)], lambda start, stop: done.append((start, stop)), threads=1)
    >>> done
    [(0, 2), (2, 3)]
    """
    taken = iter(list(blocks))  # that of a list gives each block once, whatever the threads do
    failures: list[BaseException] = []

    def work() -> None:
        try:
            # Each takes the next blocks, for a processor that was idle may be long in coming.
            while not failures and (neighbours := list(islice(taken, _AT_ONCE))):
                for start, stop in neighbours:
                    do(start, stop)
        except BaseException as error:  # noqa: BLE001  # it is raised below
            failures.append(error)

    helpers = []
    for _ in range(min(_THREADS, len(os.sched_getaffinity(0)), threads) - 1):
        helper = threading.Thread(target=work)
        try:
            helper.start()
        except RuntimeError:  # no more threads are to be had, for instance because Python is about to end
            break
        helpers.append(helper)
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[0]
