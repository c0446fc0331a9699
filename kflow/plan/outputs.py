"""The files that steps write by path: found to be writable, and nobody else's, before anything runs."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kflow.diagnostics import Diagnostic, Mark
from kflow.spec.base import Look, input_paths, modules
from kflow.spec.types import OutputPath
from kflow.spec.workflow import Workflow

_LONGEST = 255
"""Bytes in the name of a file."""
_OF_STORE = ("checkpoints", "compiled", "damaged", "entries", "locks", "runs", "tmp", "verified")
"""The folders of a store."""


def check_outputs(workflow: Workflow, look: Look, store: Path | None, *, writes: bool) -> Iterator[Diagnostic]:
    """Yield what is wrong with the files that steps are to write.

    Parameters
    ----------
    workflow : Workflow
        The sound steps.
    look : Look
        A look at the files.
    store : Path, optional
        The store, in which no step writes by path.
    writes : bool
        Whether the files will be written, and not only made.
    """
    outputs = list(_find_outputs(workflow))
    if not outputs:
        return
    readers, writers = dict(_find_readers(workflow, look)), dict[str, str]()
    itself, kept = _real(Path(workflow.document.source.name).name, look), _folders_of(store, _real(".", look))
    for name, text, _ in outputs:
        writers.setdefault(_real(text, look), name)
    for name, text, mark in outputs:
        where, what = _real(text, look), f"step {name!r} writes {str(text)!r}"
        above = next((each for each in _folders_above(where) if each in writers and not Path(each).is_dir()), None)
        if writers[where] != name:
            yield Diagnostic(f"steps {writers[where]!r} and {name!r} both write {str(text)!r}", mark)
        if where in readers:
            yield Diagnostic(f"{what}, which {readers[where]!r} reads", mark)
        if where == itself:
            yield Diagnostic(f"{what}, which is this workflow itself", mark)
        if above:
            yield Diagnostic(f"{what} as if {above} were a folder, which {writers[above]!r} writes as a file", mark)
        if any(where == each or where.startswith(f"{each}/") for each in kept):
            yield Diagnostic(f"{str(text)!r} lies in the store {store}; choose a place outside of it", mark)
        problem = _check_place(str(text), look.absolute(text), writes=writes)
        if problem:
            yield Diagnostic(problem, mark)


def find_uses(workflow: Workflow, look: Look) -> Iterator[tuple[str, str]]:
    """Yield the real path of each file that a step reads or writes, data or code, with what it does, in words."""
    yield from ((where, f"step {name!r} reads it") for where, name in _find_readers(workflow, look))
    yield from ((_real(text, look), f"step {name!r} writes it") for name, text, _ in _find_outputs(workflow))


def _find_outputs(workflow: Workflow) -> Iterator[tuple[str, OutputPath, Mark | None]]:
    """Yield each path that a step writes to, with the name of the step and where it stands."""
    for step in workflow.steps.values():
        for path, text in step.texts:
            if isinstance(text, OutputPath):
                yield step.name, text, workflow.document.mark(("steps", step.name, *path))


def _find_readers(workflow: Workflow, look: Look) -> Iterator[tuple[str, str]]:
    """Yield each file that a step reads, data or code, with the name of the step."""
    for step in workflow.steps.values():
        for _, file in input_paths(step.texts):
            yield _real(file, look), step.name
        for module in modules(step.texts):
            yield _real(module, look), step.name
            with contextlib.suppress(OSError, SyntaxError, ValueError):  # reported where its names are looked up
                yield from ((_real(file, look), step.name) for file in look.sources(module))


def _real(file: str, look: Look) -> str:
    """Return the one path of a file that may have several, through links."""
    return os.path.realpath(look.absolute(file))


def _folders_above(path: str) -> Iterator[str]:
    while (above := os.path.dirname(path)) != path:  # noqa: PTH120
        yield above
        path = above


def _folders_of(store: Path | None, root: str) -> list[str]:
    """Return where nothing but kflow writes: in all of the store, unless the workflow lies in there itself."""
    if store is None:
        return []
    home = os.path.realpath(store)
    return [f"{home}/{each}" for each in _OF_STORE] if f"{root}/".startswith(f"{home}/") else [home]


def _check_place(text: str, path: str, *, writes: bool) -> str | None:
    """Say why no file can be put in a place; None where it can."""
    try:
        size = len(os.fsencode(os.path.basename(path)))  # noqa: PTH119
        if size > _LONGEST:
            return f"the name of a file has at most {_LONGEST} bytes, this one has {size:,}"
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            return f"{text!r} is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}, not a file to write"
        problem = _check_folder(path, writes=writes and mode is None)
        return f"{text!r} cannot be written: {problem}" if problem else None
    except (OSError, ValueError) as error:  # too long a path, a folder that may not be looked into, half a character
        return f"{text!r} cannot be written: {getattr(error, 'strerror', None) or error}"


def _check_folder(path: str, *, writes: bool) -> str | None:
    """Say why there can be no folder for a file, or none that can be written to; None where there can."""
    folder = next(each for each in _folders_above(path) if _mode(each) is not None)
    if not stat.S_ISDIR(_mode(folder) or 0):
        return f"{folder} is a file, not a folder"
    loose = next((each for each in _folders_above(path) if _mode(each) is None and os.path.islink(each)), None)  # noqa: PTH114
    if loose:  # making the folder would fail
        return f"{loose} is a link that leads nowhere"
    # A file that is there already may be the one that would be written.
    if writes and not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} cannot be written to"
    return None


def _mode(path: str) -> int | None:
    """Return the mode of a file or of what a link leads to; None where nothing is there."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
