"""The errors that kflow raises on purpose; each class owns the exit code of the command that it ends."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # diagnostics lie above errors, so only their names are known here
    from kflow.diagnostics import Diagnostic, Source


_FULL = "make room, and 'kflow run' goes on: what was finished is kept"
_CLOSED, _HIDDEN = "make it writable", "make it readable"
_OTHER_STORE = ", or name another store with --store or KFLOW_STORE"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EIO: "the disk has a fault, of which the system's log may tell more; what was finished is kept",
}


def describe_disk_error(error: OSError, place: object, store: object = None) -> str:
    """Say what a disk did not do, where, and what to do next.

    Parameters
    ----------
    error : OSError
        What the system said.
    place : object
        The file or folder, where the error names none.
    store : object, optional
        The folder of the store, if the command could use another one.

    Examples
    --------
    >>> print(describe_disk_error(OSError(errno.ENOSPC, "No space left on device"), ".kflow"))
    .kflow: No space left on device; make room, and 'kflow run' goes on: what was finished is kept
    """
    advice = _ADVICE.get(error.errno or 0)
    where = error.filename2 or error.filename or place
    if advice is _CLOSED and is_hidden(str(where)):
        advice = _HIDDEN
    if advice in {_CLOSED, _HIDDEN} and store and f"{where}/".startswith(f"{store}/"):
        advice += _OTHER_STORE
    text = f"{where}: {error.strerror or error}"
    return f"{text}; {advice}" if advice else text


def listed(names: Iterable[str], most: int = 10) -> str:
    """List names for a message, and say where there are more.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    known = list(names)
    return ", ".join(known[:most] + ["..."] * (len(known) > most))


def is_hidden(path: str) -> bool:
    """Tell whether there is, or may be, a file that may not be read, or a folder that may not be looked into."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116
    except PermissionError:  # a folder above it is closed
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK)


class KflowError(Exception):
    """Any error that kflow raises on purpose; ``exit_code`` is what the command ends with.

    Examples
    --------
    >>> KflowError.exit_code, UsageError.exit_code, Interrupted.exit_code
    (1, 2, 130)
    """

    exit_code: ClassVar[int] = 1


class WorkflowError(KflowError):
    """A workflow file has problems; all that were found are in ``diagnostics``.

    Parameters
    ----------
    diagnostics : iterable of Diagnostic
        Everything that was found, in any order; kept as a tuple.
    source : Source
        The text that all of them point into.

    Examples
    --------
    >>> from kflow.diagnostics import Diagnostic, Mark, Source
    >>> source = Source("a.yaml", "step: {}")
    >>> print(WorkflowError([Diagnostic("unknown field 'step'", Mark(1, 1, 4))], source))
    a.yaml:1:1: unknown field 'step'
    step: {}
    ^^^^
    1 problem
    """

    exit_code = 2

    def __init__(self, diagnostics: Iterable[Diagnostic], source: Source) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        self.source = source
        super().__init__(self.diagnostics, source)  # the arguments, so that the error can be pickled

    def __str__(self) -> str:
        return self.source.report(self.diagnostics)


class RunError(KflowError):
    """A run failed after its workflow was found to be right."""

    exit_code = 1


class PromiseError(RunError):
    """What would be run, or what came of it, is not what a lock or a saved plan says."""


class UsageError(KflowError):
    """A value given on the command line is wrong."""

    exit_code = 2


class GoneError(UsageError):
    """An option names what the workflow does not have.

    Parameters
    ----------
    message : str
        What is wrong with the option.
    change : str
        The same of a workflow that had it when the option was written down.
    """

    def __init__(self, message: str, change: str) -> None:
        self.change = change
        super().__init__(message, change)  # the arguments, so that the error can be pickled

    def __str__(self) -> str:
        return str(self.args[0])


class Interrupted(KflowError):  # noqa: N818 - being stopped by the user is no error
    """The user stopped the run; the code is that of a process ended by SIGINT."""

    exit_code = 130
