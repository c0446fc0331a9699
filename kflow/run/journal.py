"""The journal of a run under way: a line for each step that begins or ends, so that a crash loses none that ended.

When the run is over its record is written anew, whole, and the journal goes.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

JOURNAL = "journal.jsonl"


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # what counts has been synced
            os.close(self._descriptor)

    def note(self, step: str, state: dict[str, Any], *, is_end: bool) -> None:
        """Append what is now known of a step; the end of one is on the disk when this returns.

        Raises
        ------
        OSError
            If the disk is full.
        """
        line = json.dumps({"step": step, "state": state}).encode() + b"\n"
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if is_end:
                os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None


def read_journal(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a journal says of steps, oldest first; a line that was cut off is left out."""
    try:
        text = (folder / JOURNAL).read_bytes()
    except OSError:
        return
    for line in text.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            note = json.loads(line)
            yield str(note["step"]), dict(note["state"])
