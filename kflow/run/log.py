"""The logs of steps: what a worker prints goes to the log of the step that it runs, up to a limit."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

HEAD = 16 * 2**20
"""Bytes that are kept of the beginning of what a step prints."""
TAIL = 2**20
"""Bytes that are kept of its end, where the reason of a failure stands."""


@dataclass
class StepLog:
    """A file with the beginning and the end of what a step printed."""

    path: Path
    head: int = HEAD
    tail: int = TAIL
    _stream: BinaryIO | None = None
    _written: int = 0
    _left_out: int = 0
    _end: deque[bytes] = field(default_factory=deque)
    _end_size: int = 0

    def write(self, data: bytes) -> None:
        """Keep what was printed; a full disk takes no log, and the step goes on."""
        room = self.head - self._written
        with contextlib.suppress(OSError):
            if room > 0:
                self._stream = self._stream or self.path.open("ab", buffering=0)
                self._stream.write(data[:room])
        self._written += min(len(data), max(room, 0))
        if len(data) > room:
            self._keep_end(data[max(room, 0) :])

    def _keep_end(self, data: bytes) -> None:
        self._end.append(data)
        self._end_size += len(data)
        while self._end_size - len(self._end[0]) >= self.tail:
            self._left_out += len(self._end[0])
            self._end_size -= len(self._end.popleft())

    def close(self) -> None:
        """Write the end after the beginning, with a word on what lay between."""
        with contextlib.suppress(OSError):
            if self._stream and self._end:
                note = f"\n... {self._left_out} bytes are left out here ...\n" if self._left_out else ""
                self._stream.write(note.encode() + b"".join(self._end))
            if self._stream:
                self._stream.close()
        self._stream = None
        self._end.clear()


@dataclass
class Pump:
    """Takes what a worker prints, and hands it to the log of the step under way.

    A worker ends the output of each step with a mark, a text that no step can know; what came before it
    belongs to the step.
    """

    descriptor: int
    _log: StepLog | None = None
    _echo: Callable[[str], None] | None = None
    _mark: bytes = b""
    _ended: threading.Event = field(default_factory=threading.Event)
    _line: bytes = b""

    def start(self) -> None:
        """Begin to read, in a thread of its own."""
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, log: StepLog, mark: str, echo: Callable[[str], None] | None) -> None:
        """Say whose output comes next, before the step is handed over."""
        self._ended.clear()
        self._log, self._mark, self._echo = log, mark.encode(), echo

    def end(self) -> None:
        """Wait until all that the step printed is in its log."""
        self._ended.wait(5)  # a process that the step left behind may hold the line open
        if self._echo and self._line:
            self._echo(self._line.decode("utf-8", "replace"))
        if self._log:
            self._log.close()
        self._log, self._echo, self._line = None, None, b""

    def _read(self) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(self.descriptor, 2**16):
                held = self._pass_on(held + chunk)
        self._write(held)
        self._ended.set()
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def _pass_on(self, data: bytes) -> bytes:
        """Hand on what surely belongs to the step; return what may be the beginning of the mark."""
        before, found, after = data.partition(self._mark) if self._mark else (data, b"", b"")
        if found:
            self._write(before)
            self._ended.set()
            return after
        start = data.rfind(self._mark[:1], -len(self._mark)) if self._mark else -1
        if start < 0 or not self._mark.startswith(data[start:]):
            start = len(data)
        self._write(data[:start])
        return data[start:]

    def _write(self, data: bytes) -> None:
        if self._log and data:
            self._log.write(data)
            self._tell(data)

    def _tell(self, data: bytes) -> None:
        """Show whole lines; one without an end is shown in pieces."""
        if self._echo is None:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > 2**13:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._echo(line.decode("utf-8", "replace"))
