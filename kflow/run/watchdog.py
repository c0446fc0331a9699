"""The process between the runner and a worker: when either ends, it ends all that the worker has started.

A step may start processes that leave the worker's session, as daemons do. What loses its parent below the watchdog
becomes its child, so nothing gets away from it; and it tells the runner how the worker has ended.
"""

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Collection
from pathlib import Path

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
"""Calls of prctl(2)."""
_RUNNER = 0
"""The descriptor whose other end only the runner holds: standard input, on which tasks come."""


def guard(life: int) -> None:
    """Fork, and go on in the child as the worker; this process ends with it, or with the runner, and ends the rest.

    Parameters
    ----------
    life : int
        The descriptor on which the status of the worker is told, when nothing is left of it.
    """
    adopt_orphans()
    words = hear(signal.SIGCHLD, signal.SIGTERM)
    worker = os.fork()
    if worker:
        status = _wait(worker, words[0])
        end_everything()
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(life, str(status).encode())
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for number in (*words, life):
        os.close(number)
    for name in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    _control(_SET_PDEATHSIG, signal.SIGKILL)  # should the watchdog itself be killed


def adopt_orphans() -> None:
    """Become the parent of all below this process that lose theirs."""
    _control(_SET_CHILD_SUBREAPER, 1)


def _control(option: int, value: int) -> None:
    """Call prctl(2)."""
    import ctypes  # the runner imports this module as well, and has no use for it

    ctypes.CDLL(None).prctl(option, value)


def hear(*numbers: signal.Signals) -> tuple[int, int]:
    """Return a pipe on which signals come as bytes, instead of what they do by default."""
    words, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)  # what it is stands in the words
    return words, wakes


def _wait(worker: int, words: int) -> int:
    """Wait for the end of the worker, or for the word or the end of the runner; return how the worker ended."""
    poll = select.poll()
    poll.register(words, select.POLLIN)
    poll.register(_RUNNER, 0)  # only that it was closed, for what comes there is the worker's
    while True:
        ready = dict(poll.poll())
        heard = os.read(words, 2**16) if words in ready else b""
        ended = reap()
        if worker in ended:
            return ended[worker]
        if signal.SIGTERM in heard:
            return signal.SIGTERM
        if _RUNNER in ready:
            return signal.SIGKILL


def reap() -> dict[int, int]:
    """Take note of the children that have ended, and of those that had been left to this process; return how."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def end_everything(spared: Collection[int] = (), seconds: float = math.inf) -> None:
    """Kill what is below this process until nothing is left; only a process of another user may stay.

    Parameters
    ----------
    spared : collection of int
        Children that stay, with all below them; default none.
    seconds : float
        After which to give up: a process may hang in the kernel; default never.
    """
    until = time.monotonic() + seconds
    pause = 0.001
    while _kill_descendants(spared) and time.monotonic() < until:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _kill_descendants(spared: Collection[int]) -> bool:
    """Kill the living processes below this one, as they are now; tell whether there were any that can be killed."""
    parents = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  no Path for each of them
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                state, parent = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()[:2]
                parents[int(entry)] = (int(parent), state)
    here = {os.getpid()}
    while more := {pid for pid, (parent, _) in parents.items() if parent in here and pid not in {*here, *spared}}:
        here |= more
    found = here - {os.getpid()}
    dead = {pid for pid in found if parents[pid][1] in {b"Z", b"X"} and not _has_threads(pid)}
    for pid in dead:  # else they would be left to process 1, which may be a runner in a container
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return sum(map(_kill, found - dead)) > 0


def _has_threads(pid: int) -> bool:
    """Tell whether a process lives on in threads after its first one has ended, in which state it looks dead."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task")) > 1  # noqa: PTH208  only how many
    return False


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True  # it has just ended, and what it started is to be looked for
    except PermissionError:
        return False
    return True
