"""The journal of a run under way: a line for each step that begins or ends, so that a crash loses none that ended.

When the run is over its record is written anew, whole, and the journal goes.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kflow import durable

JOURNAL = "journal.jsonl"
LAG = 0.1
"""Seconds after the end of a step until the journal is on the disk: small steps share the time that it takes.

What a power cut takes away within them is found again by the next run: the results themselves are on the disk.
"""


class Journal:
    """Appends to the journal of a run.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o644)
        self._due: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # what counts has been synced
            os.close(self._descriptor)

    def note(self, step: str, state: str, metrics: str = "", *, is_end: bool) -> None:
        """Append what is now known of a step, as JSON; the end of one will be on the disk soon, see `catch_up`.

        Raises
        ------
        OSError
            If the disk is full.
        """
        more = f', "metrics": {metrics}' if metrics else ""
        line = f'{{"step": {json.dumps(step)}, "state": {state}{more}}}\n'.encode()
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        if is_end and self._due is None:
            self._due = time.monotonic() + LAG

    def catch_up(self) -> float | None:
        """Put what ended on the disk when that is due; return the seconds until then, None where there is nothing.

        Raises
        ------
        OSError
            If the disk is full.
        """
        if self._due is None:
            return None
        left = self._due - time.monotonic()
        if left > 0:
            return left
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self._due = None
        return None


def read_journal(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    """Yield what a journal says of steps, with their metrics, oldest first; a line that was cut off is left out."""
    try:
        text = durable.read_bytes(folder / JOURNAL)
    except OSError:
        return
    for line in text.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            note = json.loads(line)
            metrics = note.get("metrics", {})  # older journals have none
            # A text stands for what is no number, as in a record.
            yield str(note["step"]), dict(note["state"]), {name: float(each) for name, each in metrics.items()}
