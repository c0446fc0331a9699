"""The process that workers are forked from: it has imported what takes long, and computes nothing itself.

A forked worker has TensorFlow after milliseconds, where a program of its own takes seconds. That is sound as long as
TensorFlow is no more than imported: its threads, which a fork would lose, start when it first computes.

Each message on standard input, a socket, asks for a worker and brings the ends of its four lines: for its tasks, what
it prints, its replies, and one with this process. On that one the runner says ``t`` or ``k``, and the watchdog gets
SIGTERM or SIGKILL; the answer is its status (that of waitpid) when it has ended, and all that it left behind.
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

from kflow.run import watchdog

_TASKS, _PRINTED, _REPLIES, _LINE = range(LINES := 4)
"""The descriptors that come with a message."""
_RUNNER = 0
_ORDERS = {b"t": (signal.SIGTERM, signal.SIGCONT), b"k": (signal.SIGKILL,)}
"""Somebody may have stopped a watchdog: it has to go on to heed SIGTERM."""


def main() -> None:
    """Import the modules that are named by the arguments, and fork workers until the runner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides what Ctrl-C means
    runner = socket.socket(fileno=os.dup(_RUNNER))
    is_forkable = _import(sys.argv[1:], runner)
    replies = _Server(runner).serve()
    if not is_forkable:
        os.set_inheritable(replies, True)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "kflow.run.worker", str(replies)])  # noqa: S606
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
    """The loop that forks workers, and the lines on which the runner hears of each."""

    def __init__(self, runner: socket.socket) -> None:
        watchdog.adopt_orphans()
        self._runner = runner
        self._words = watchdog.hear(signal.SIGCHLD)
        self._lines: dict[int, socket.socket] = {}
        """By the number of the watchdog."""

    def serve(self) -> int:
        """Fork a worker for each message; return, in that worker, the descriptor for its replies."""
        while True:
            ready = self._wait()
            for pid, status in watchdog.reap().items():
                self._tell_end(pid, status)
            for pid, line in self._lines.items():
                if line.fileno() in ready:
                    _obey(pid, line)
            if self._runner.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._runner, 16, LINES)
                if not message:
                    watchdog.end_everything()
                    os._exit(0)
                if not self._fork(descriptors):
                    return descriptors[_REPLIES]

    def _wait(self) -> set[int]:
        """Wait until somebody has something to say; return whose descriptors they are."""
        poll = select.poll()
        for number in (self._runner.fileno(), self._words[0]):
            poll.register(number, select.POLLIN)
        for line in self._lines.values():
            poll.register(line, select.POLLIN)
        ready = {number for number, _ in poll.poll()}
        if self._words[0] in ready:
            os.read(self._words[0], 2**16)
        return ready

    def _tell_end(self, pid: int, status: int) -> None:
        """Say how a watchdog has ended; should it have been killed, what it watched is now below this process."""
        line = self._lines.pop(pid, None)
        if line is not None:
            watchdog.end_everything(spared=set(self._lines))
            with contextlib.suppress(OSError):  # nobody listens any more
                line.send(str(status).encode())
            line.close()

    def _fork(self, descriptors: list[int]) -> bool:
        """Fork a worker below a watchdog of its own; tell whether this process still is the server."""
        line = socket.socket(fileno=descriptors[_LINE])
        pid = os.fork()
        if pid:
            self._lines[pid] = line
            for number in descriptors[:_LINE]:
                os.close(number)
            return True
        os.setsid()
        self._let_go(line)
        for source, *places in ((descriptors[_TASKS], 0), (descriptors[_PRINTED], 1, 2)):
            for place in places:
                os.dup2(source, place)
            os.close(source)
        os.set_inheritable(descriptors[_REPLIES], False)  # what a step starts must not keep the line open
        watchdog.guard()
        return False

    def _let_go(self, line: socket.socket) -> None:
        """Close what belongs to the server alone."""
        signal.set_wakeup_fd(-1)
        for number in self._words:
            os.close(number)
        for each in (self._runner, line, *self._lines.values()):
            each.close()


def _obey(pid: int, line: socket.socket) -> None:
    """Do to a watchdog what the runner says; one whose line is closed is not wanted any more."""
    try:
        order = line.recv(1)
    except OSError:
        order = b""
    for number in _ORDERS[order or b"k"]:
        os.kill(pid, number)


if __name__ == "__main__":
    main()
