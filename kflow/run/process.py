"""The runner's side of a worker process: start it, give it a task, and make sure that it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kflow.errors import RunError


class WorkerDied(RunError):  # noqa: N818  it is reported as what it is
    """The worker process ended in the middle of a step."""


@dataclass
class Worker:
    """A worker process, started when it is first needed and replaced when the GPUs change."""

    _process: subprocess.Popen[str] | None = None
    _replies: IO[str] | None = None
    _gpus: tuple[str, ...] = field(default=())

    def run(
        self, task: Mapping[str, Any], gpus: tuple[str, ...], report: Callable[[Mapping[str, Any]], None]
    ) -> dict[str, Any]:
        """Run a step and wait for its end.

        Parameters
        ----------
        task : mapping
            What the worker needs: kind, fields, folders, artifacts, seed.
        gpus : tuple of str
            The GPUs that the step may see; another choice than before needs another process.
        report : callable
            Takes the events on the way.

        Returns
        -------
        dict
            The last event, ``done`` or ``failed``.

        Raises
        ------
        WorkerDied
            If the process ends instead of answering.
        """
        is_warm = self._process is not None and self._process.poll() is None and gpus == self._gpus
        if not is_warm:
            self.stop()
            self._start(gpus)
        try:
            for event in self._answers(task):
                if event["event"] in {"done", "failed"}:
                    return event
                if event["event"] == "started":
                    is_warm = False  # from here on its death is that of the step
                else:
                    report(event)
        except BaseException:
            self.stop()  # at once: it must not go on writing where the runner tidies up
            raise
        death = self._death()
        if is_warm:  # it died while it was idle, and the step has not begun
            return self.run(task, gpus, report)
        raise death

    def _answers(self, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Hand over a task and yield the events that come back, until the worker has no more to say."""
        assert self._process is not None, "it has been started"
        assert self._process.stdin is not None, "it is a pipe"
        assert self._replies is not None, "it has been started"
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            for line in self._replies:
                if not line.endswith("\n"):
                    break  # it died in the middle of a word
                yield json.loads(line)
        except BrokenPipeError:
            return

    def _start(self, gpus: tuple[str, ...]) -> None:
        read_end, write_end = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603  our own module, no shell
            # -P: a random.py in the current folder must not stand in for the standard library's.
            [sys.executable, "-P", "-m", "kflow.run.worker", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            pass_fds=[write_end],
            env=worker_environment(gpus),
            start_new_session=True,  # its own group, so that it can be ended with all that it starts
        )
        os.close(write_end)
        threading.Thread(target=_end_group, args=(self._process.pid,), daemon=True).start()
        self._replies = os.fdopen(read_end, encoding="utf-8")
        self._gpus = gpus

    def _death(self) -> WorkerDied:
        assert self._process is not None, "it has been started"
        code = self._process.wait()
        self.stop()
        if code == -signal.SIGKILL:
            return WorkerDied("the worker process was killed; the machine may have run out of memory")
        if code < 0:
            return WorkerDied(f"the worker process crashed with {signal.Signals(-code).name}")
        return WorkerDied(f"the worker process ended with code {code}")

    def stop(self) -> None:
        """End the process with all that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._replies):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None


def _end_group(pid: int) -> None:
    """Wait for the end of a worker, and end what it leaves behind: that would keep the line of replies open."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError, PermissionError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.killpg(pid, signal.SIGKILL)


def worker_environment(gpus: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of a worker: only its GPUs are visible, hashing is repeatable, TensorFlow is quiet."""
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus) or "-1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "KERAS_BACKEND": "tensorflow",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",  # what a step printed is in its log even if the process crashes
        "PYTHONUTF8": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path(os.environ.get("TMPDIR", "/tmp"), "kflow-matplotlib"))),  # noqa: S108  fonts only
    }
