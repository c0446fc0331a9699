"""A watch over what the code of a step executes: what no fingerprint counts is refused."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Self

from kflow.python_path import find_module, is_installed, is_standard, search_path, source_path, was_brought
from kflow.signature import TICK, state

_KFLOW = os.path.realpath(Path(__file__).parents[1])
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  where libraries write, whatever TMPDIR says


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that user modules lie in, and those in them that are no user's: an environment in a project."""

    folders: frozenset[str]
    others: frozenset[str]

    @classmethod
    def of(cls, folders: Collection[Path], others: Collection[str] = ()) -> Self:
        """Return the places of modules in some folders, and what in them is no user's."""
        installed = [each for each in sys.path if each.endswith(("/site-packages", "/dist-packages"))]
        no_users = {sys.prefix, sys.base_prefix, *installed, *others}
        return cls(frozenset(map(str, folders)), frozenset(no_users).union(map(os.path.realpath, no_users)))

    def hold(self, module: ModuleType, folder: Path | None = None) -> bool:
        """Say whether a user's module lies below a folder, or any of them."""
        folders = self.folders if folder is None else {str(folder)}
        return self.have_below(getattr(module, "__file__", None) or "", folders)

    def have_below(self, path: str, folders: Collection[str]) -> bool:
        """Say whether a path lies below some of the folders, but not in an environment that does."""
        tops = [each for each in folders if is_below(path, each)]
        return any(not any(is_below(other, top) and is_below(path, other) for other in self.others) for top in tops)


def is_below(path: str, folder: str) -> bool:
    """Say whether a path lies below a folder."""
    return path.startswith(f"{folder}/")


@dataclass(frozen=True, slots=True)
class Watch:
    """Tells which files the code of a step must not execute, as a change in them would not change its fingerprint."""

    counted: frozenset[str]
    folders: frozenset[str]
    """The project: the folder of the workflow, and those of the step's modules."""
    places: Places
    others: frozenset[str]
    """Folders whose files count otherwise, or are kflow's own."""
    path: tuple[Path, ...]
    """Python's path, but for environments, before any code of the user's."""
    root: str
    has_code: bool
    """Whether it has code of the user's at all: a kind of step may import what it needs."""
    began: int
    """Nanoseconds since the epoch."""

    @classmethod
    def of(
        cls, root: Path, counted: Iterable[str | Path], folders: Collection[str], others: Iterable[str], has_code: bool
    ) -> Self:
        """Return the watch over a step in a folder, with what its fingerprint counts, and the folders of its code."""
        real = os.path.realpath(root)
        no_users = frozenset({*others, _KFLOW})
        return cls(
            frozenset(map(os.path.realpath, counted)),
            frozenset({real, *folders}),
            # Generated code, as TensorFlow's own, lies in the folder for temporary files.
            Places.of((), no_users | {os.path.realpath(tempfile.gettempdir())}),
            no_users,
            tuple(source_path()),
            real,
            has_code,
            time.time_ns(),
        )

    def require_counted(self, file: str) -> None:
        """Refuse a file of the user's that is not counted.

        Raises
        ------
        ValueError
            If it lies in the project, or is neither installed nor made by a library.
        """
        if not file.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)):
            return
        path = os.path.realpath(file)
        # Code that was compiled elsewhere, or from a text, names what is not there.
        if (
            self._is_counted(path)
            or not _is_there(path)
            or self._is_generated(path)
            or was_brought(Path(path), self.path)
        ):
            return
        if self.places.have_below(path, self.folders) or (self.has_code and self._is_users(path)):
            told = os.path.relpath(path, self.root) if is_below(path, self.root) else path
            message = (
                f"{told} was to be executed, and the fingerprint of the step does not count it, so that a change in it "
                f"would not be seen; {self._advise(path)}"
            )
            raise ValueError(message)

    def _is_counted(self, path: str) -> bool:
        """Say whether a file counts, or the zip file that it lies in."""
        return path in self.counted or any(str(each) in self.counted for each in Path(path).parents)

    def _is_users(self, path: str) -> bool:
        """Say whether a file outside of the project is a user's: not those of libraries, and what they generate."""
        if any(is_below(path, other) for other in self.others) or is_installed(Path(path), ()):
            return False
        return not (_is_scratch(path) and (self._is_new(path) or _is_loaded_by_library()))

    def _is_generated(self, path: str) -> bool:
        """Say whether a library has written a file during the step; that may be in the project, if TMPDIR is."""
        return _is_scratch(path) and self._is_new(path) and _is_loaded_by_library()

    def _is_new(self, path: str) -> bool:
        return state(path)[2] > self.began - TICK

    def _advise(self, path: str) -> str:
        folders = {Path(each).parent for each in self.counted if is_below(path, str(Path(each).parent))}
        folders |= {real for each in self.path if is_below(path, str(real := each.resolve()))}
        for folder in sorted(folders):
            parts = Path(path).relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not all(map(str.isidentifier, parts)):
                continue
            if self._is_taken(parts[0], folder):
                file = Path(path).relative_to(folder).parts[0]
                return f"rename {file}, as {parts[0]!r} is another module, and name it in an import statement"
            return f"name it in an import statement, such as 'import {'.'.join(parts)}', which need not be reached"
        return "move it beside the module that the step names, or into a folder there, and import it from there"

    def _is_taken(self, name: str, folder: Path) -> bool:
        """Say whether a name in a folder would import something else."""
        if name in sys.stdlib_module_names:
            return True
        found = next((found for each in search_path() if (found := find_module(each, name))), None)
        return found is not None and not found.resolve().is_relative_to(folder)


def _is_there(path: str) -> bool:
    """Say whether a path is a file, or in a zip file."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)  # noqa: PTH120  a text
    return os.path.isfile(path)  # noqa: PTH113


def _is_scratch(path: str) -> bool:
    """Say whether a path lies where programs put what they generate: for temporary files, or hidden in the home."""
    temporary = {os.path.realpath(each) for each in (tempfile.gettempdir(), *_TEMPORARY)}
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111  there may be none
    cache_home = os.environ.get("XDG_CACHE_HOME")
    caches = {f"{home}/.", *([f"{os.path.realpath(cache_home)}/"] if cache_home else [])}
    return path.startswith((*(f"{each}/" for each in temporary), *caches))


def _is_loaded_by_library() -> bool:
    """Say whether the code of a library has asked for what is executed: TensorFlow writes modules and executes them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith("<") and not is_standard(file):
            return is_installed(Path(os.path.realpath(file))) and not is_below(os.path.realpath(file), _KFLOW)
        frame = frame.f_back
    return False


_watch: Watch | None = None
"""That over the step under way; a worker does one at a time, whatever threads its code starts."""
_refusals: list[ValueError] = []
"""What it has refused; code of the step, or a library, may have caught the error."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Let a block, that of a step, end with the first thing that a watch in it has refused.

    Raises
    ------
    ValueError
        If something was refused, whatever became of the error.
    """
    global _watch  # noqa: PLW0603  an audit hook can be given nothing, and never be taken back
    _refusals.clear()
    try:
        yield
    except Exception:
        if _refusals:
            raise _refusals[0] from None
        raise
    else:
        if _refusals:
            raise _refusals[0]
    finally:
        _watch = None


def watch_from_now(watch: Watch) -> None:
    """Refuse what a watch refuses until the step ends: its classes may be asked again when its result is saved."""
    global _watch  # noqa: PLW0603
    _add_hook()
    _watch = watch


@cache
def _add_hook() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Look at every module before it is executed, however it was found: compiled ones are told as imports."""
    if _watch is None:
        return
    try:
        if event == "exec":
            _watch.require_counted(arguments[0].co_filename)
        elif event == "import" and arguments[1]:
            _watch.require_counted(arguments[1])
    except ValueError as refusal:
        _refusals.append(refusal)
        raise
