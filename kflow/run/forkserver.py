"""The process that workers are forked from: it has imported what takes long, and computes nothing itself.

A forked worker has TensorFlow after milliseconds, where a program of its own takes seconds. That is sound as long as
TensorFlow is no more than imported: its threads, which a fork would lose, start when it first computes.

Each message on standard input, a socket, asks for a worker and brings the ends of its five lines: for its tasks, what
it prints, its replies, orders to this process, and its life. On the last one this process says `FORKED`, then the
watchdog the status of the worker (that of waitpid); it ends when nothing is left of what the worker has started.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable

from kflow.run import watchdog

FORKED, TERMINATE, KILL = b"+", b"t", b"k"
"""What is said of a worker that there is now, and the orders that its watchdog gets SIGTERM or SIGKILL."""
_TASKS, _PRINTED, _REPLIES, _ORDERS, _LIFE = range(LINES := 5)
"""The descriptors that come with a message."""
_RUNNER = 0
_SIGNALS = {TERMINATE: (signal.SIGTERM, signal.SIGCONT), KILL: (signal.SIGKILL,)}
"""Somebody may have stopped a watchdog: it has to go on to heed SIGTERM."""
_PATIENCE = 5.0
"""Seconds that one worker may take to be ended, while the others wait."""


def main() -> None:
    """Import the modules that are named by the arguments, and fork workers until the runner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides what Ctrl-C means
    runner = socket.socket(fileno=os.dup(_RUNNER))
    is_forkable = _import(sys.argv[1:], runner)
    replies = _Server(runner).serve()
    if not is_forkable:
        os.set_inheritable(replies, True)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "kflow.run.worker", str(replies)])  # noqa: S606
    if "numpy.random" in sys.modules:  # what is drawn without a seed must be different in each, as anywhere else
        sys.modules["numpy.random"].seed()
    from kflow.run import worker

    worker.main(replies)


def _import(modules: list[str], runner: socket.socket) -> bool:
    """Import what a worker needs, unless the runner ends meanwhile; tell whether a fork is sound after that.

    It is not where an import has started threads, as a library other than TensorFlow may do. Those of OpenBLAS,
    which come with NumPy, do not count: it makes them anew after a fork.
    """
    done, is_done = os.pipe()
    watch = threading.Thread(target=_end_with, args=(runner, done))
    watch.start()
    importlib.import_module("kflow.run.worker")
    importlib.import_module("numpy")
    before = _count_threads()
    for name in modules:
        with contextlib.suppress(Exception):  # the step will tell
            importlib.import_module(name)
    os.close(is_done)
    watch.join()
    os.close(done)
    gc.freeze()  # else the collector would write to memory that the workers share
    return threading.active_count() == 1 and _has_fewer_threads_than(before)


def _has_fewer_threads_than(before: int) -> bool:
    """Tell whether no thread has come while one has gone, which may take the system a moment."""
    for _ in range(100):
        if _count_threads() < before:
            return True
        time.sleep(0.01)
    return False


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208  only how many


def _end_with(runner: socket.socket, done: int) -> None:
    """End this process when the runner ends, until the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(runner, 0)
    poll.register(done, 0)
    if not any(number == done for number, _ in poll.poll()):
        os._exit(1)


class _Server:
    """The loop that forks workers, with the lines of each."""

    def __init__(self, runner: socket.socket) -> None:
        watchdog.adopt_orphans()
        self._runner = runner
        self._words = watchdog.hear(signal.SIGCHLD)
        self._lines: dict[int, tuple[int, int]] = {}
        """Orders and life, by the number of the watchdog."""

    def serve(self) -> int:
        """Fork a worker for each message; return, in that worker, the descriptor for its replies."""
        while True:
            ready = self._wait()
            for pid in watchdog.reap():
                self._see_off(pid)
            for pid, (orders, _) in self._lines.items():
                if orders in ready:
                    _obey(pid, orders)
            if self._runner.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._runner, 16, LINES)
                if not message:
                    watchdog.end_everything()
                    os._exit(0)
                if len(descriptors) < LINES:  # this process has no room for them
                    _close_all(descriptors)
                elif not self._fork(descriptors):
                    return descriptors[_REPLIES]

    def _wait(self) -> set[int]:
        """Wait until somebody has something to say; return whose descriptors they are."""
        poll = select.poll()
        for number in (self._runner.fileno(), self._words[0], *(orders for orders, _ in self._lines.values())):
            poll.register(number, select.POLLIN)
        ready = {number for number, _ in poll.poll()}
        if self._words[0] in ready:
            os.read(self._words[0], 2**16)
        return ready

    def _see_off(self, pid: int) -> None:
        """Let go of a watchdog that has ended; should it have been killed, what it watched is below this process."""
        if pid in self._lines:
            lines = self._lines.pop(pid)
            watchdog.end_everything(spared=set(self._lines), seconds=_PATIENCE)
            _close_all(lines)

    def _fork(self, descriptors: list[int]) -> bool:
        """Fork a worker below a watchdog of its own; tell whether this process still is the server."""
        try:
            pid = os.fork()
        except OSError:  # there are too many processes: the runner hears the end of a life that was none
            _close_all(descriptors)
            return True
        if pid:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(descriptors[_LIFE], FORKED)
            self._lines[pid] = descriptors[_ORDERS], descriptors[_LIFE]
            _close_all(descriptors[:_ORDERS])
            return True
        os.setsid()
        self._let_go()
        for source, *places in ((descriptors[_TASKS], 0), (descriptors[_PRINTED], 1, 2)):
            for place in places:
                os.dup2(source, place)
        _close_all(descriptors[i] for i in (_TASKS, _PRINTED, _ORDERS))
        os.set_inheritable(descriptors[_REPLIES], False)  # what a step starts must not keep the line open
        watchdog.guard(descriptors[_LIFE])
        return False

    def _let_go(self) -> None:
        """Close what belongs to the server alone."""
        signal.set_wakeup_fd(-1)
        self._runner.close()
        _close_all(self._words)
        for lines in self._lines.values():
            _close_all(lines)


def _close_all(descriptors: Iterable[int]) -> None:
    for number in descriptors:
        os.close(number)


def _obey(pid: int, orders: int) -> None:
    """Do to a watchdog what the runner says; one to which nobody can give orders is not wanted any more."""
    for number in _SIGNALS[os.read(orders, 1) or KILL]:
        os.kill(pid, number)


if __name__ == "__main__":
    main()
