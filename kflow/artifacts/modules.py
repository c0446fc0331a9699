"""User modules, imported from the source that was fingerprinted, and forgotten when a step ends."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Self
from zipimport import zipimporter

from kflow.artifacts import digest_file
from kflow.imports import changed_sources, counted_sources
from kflow.python_path import is_installed, source_path


@dataclass(frozen=True, slots=True)
class _Code:
    """The user code that is in a fingerprint."""

    files: Mapping[str, tuple[str, str]]
    """By real path, the path as it is told and the SHA-256."""
    libraries: Mapping[str, str]
    """The versions of libraries, as `kflow.imports.library_versions` gives them."""
    root: Path | None = None
    """The folder of the workflow; None outside a step."""
    others: frozenset[str] = frozenset()
    """Folders whose files count otherwise, or are no user's."""


_NONE = _Code({}, {})
_fingerprinted: ContextVar[_Code] = ContextVar("_fingerprinted", default=_NONE)
"""The code of the step under way."""


@contextlib.contextmanager
def holding_code_to(
    root: Path, digests: Mapping[str, str], libraries: Mapping[str, str], others: Iterable[str] = ()
) -> Iterator[None]:
    """Refuse user code, for the length of a block, that is not in the fingerprint of the step as it is.

    Else its result would be stored under the fingerprint of other code.

    Parameters
    ----------
    root : Path
        The folder of the workflow, where the paths start.
    digests : mapping of str to str
        The SHA-256 of each file.
    libraries : mapping of str to str
        The versions of the libraries, of which those count that are imported from their sources.
    others : iterable of str, optional
        The real paths of folders whose files count otherwise: the stored results that the step takes, and the package
        of its kind.
    """
    files = {os.path.realpath(root / path): (path, digest) for path, digest in digests.items()}
    token = _fingerprinted.set(_Code(files, libraries, root, frozenset(others)))
    try:
        yield
    finally:
        _fingerprinted.reset(token)


def require_fingerprinted(source: str | Path, digest: str) -> str:
    """Return the digest of a file, unless another one is in the fingerprint of the step under way.

    Raises
    ------
    ValueError
        If the file was changed since the step was planned.
    """
    path, planned = _fingerprinted.get().files.get(os.path.realpath(source), ("", digest))
    if planned != digest:
        message = f"{path} was changed since the step was planned; run again"
        raise ValueError(message)
    return digest


def _require_all_fingerprinted() -> None:
    """Make sure of everything that has been imported, after that."""
    code = _fingerprinted.get()
    for path in code.files:
        require_fingerprinted(path, digest_file(Path(path)))
    for library in changed_sources(code.libraries):
        message = f"the library {library} was changed since the step was planned; run again"
        raise ValueError(message)


@contextlib.contextmanager
def imported(objects: Mapping[str, tuple[Path, str]]) -> Iterator[dict[str, Any]]:
    """Import user modules for the length of a block, and forget them at its end.

    Parameters
    ----------
    objects : mapping of str to tuple of (Path, str)
        For each name the file and the symbol in it.

    Yields
    ------
    dict
        The objects by name.

    Raises
    ------
    AttributeError
        If a module does not define a symbol.
    """
    path_before, modules_before = list(sys.path), set(sys.modules)
    places = _Places.of({file.parent for file, _ in objects.values()})
    loaded: dict[Path, ModuleType] = {}
    local: dict[str, ModuleType] = {}
    try:
        with _compiling(places), _refusing_uncounted({file for file, _ in objects.values()}):
            result = {}
            for name, (file, symbol) in objects.items():
                if file not in loaded:
                    # Modules of one folder share what they import.
                    sys.modules.update({each: local[each] for each in local if places.hold(local[each], file.parent)})
                    loaded[file] = _import(file)
                    _set_aside(places, file, modules_before, local)
                if not hasattr(loaded[file], symbol):
                    message = f"{file.name} defines no {symbol!r}"
                    raise AttributeError(message)
                result[name] = getattr(loaded[file], symbol)
            _require_all_fingerprinted()
            # For what they import while they run.
            sys.modules.update(local)
            sys.path.extend(str(file.parent) for file in loaded)
            yield result
    finally:
        sys.path[:] = path_before
        for name in set(sys.modules) - modules_before:
            if places.hold(sys.modules[name]):
                del sys.modules[name]


def _import(file: Path) -> ModuleType:
    spec = spec_from_loader(file.stem, _SourceLoader(file.stem, str(file)))
    assert spec is not None, "the loader is given"
    assert spec.loader is not None, "the loader is given"
    module = module_from_spec(spec)
    if file.stem not in sys.modules:
        sys.modules[file.stem] = module
    # At the end of the path: a user's random.py must not stand in for the standard library's.
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


def _set_aside(places: "_Places", file: Path, before: set[str], local: dict[str, ModuleType]) -> None:
    """Take the local modules of a user module out of the way of the next one's.

    Raises
    ------
    ValueError
        If another file has come as a module of the same name: an import while they run could get the wrong one.
    """
    for name in set(sys.modules) - before:
        if places.hold(sys.modules[name], file.parent):
            module = sys.modules.pop(name)
            if local.setdefault(name, module).__file__ != module.__file__:
                message = f"two different files are the module {name!r}; rename one of them"
                raise ValueError(message)


# --- what no fingerprint counts --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Watch:
    """Tells which files the code of a step must not execute, as a change in them would not change its fingerprint."""

    counted: frozenset[str]
    folders: frozenset[str]
    """The project: the folder of the workflow, and those of the step's modules."""
    places: "_Places"
    path: frozenset[str]
    """Python's path before any code of the user's, and the folders that are in it for the modules."""
    root: str

    @classmethod
    def of(cls, code: _Code, root: Path, named: Collection[Path]) -> Self:
        """Return the watch over a step in a folder, and over the modules that it names."""
        folders = {os.path.realpath(root), *map(os.path.dirname, code.files)}
        counted = {*code.files, *map(os.path.realpath, [*named, *counted_sources(code.libraries)])}
        # Generated code, as TensorFlow's own, lies in the folder for temporary files.
        others = code.others | {str(Path(__file__).parents[1]), os.path.realpath(tempfile.gettempdir())}
        path = frozenset([*sys.path, *(str(file.parent) for file in named)])
        return cls(frozenset(counted), frozenset(folders), _Places.of((), others), path, os.path.realpath(root))

    def require_counted(self, file: str) -> None:
        """Refuse a file of the user's that is not counted.

        Raises
        ------
        ValueError
            If it lies in the project, or in a folder that the user's code has put into Python's path.
        """
        if not file.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)):
            return
        path, added = os.path.realpath(file), set(sys.path) - self.path
        added &= set(map(str, source_path())) if added else set()
        if path not in self.counted and self.places.have_below(path, self.folders.union(map(os.path.realpath, added))):
            told = os.path.relpath(path, self.root) if _is_below(path, self.root) else path
            message = (
                f"{told} was to be executed, and the fingerprint of the step does not count it, so that a change in it "
                f"would not be seen; {self._advise(path)}"
            )
            raise ValueError(message)

    def _advise(self, path: str) -> str:
        folders = {Path(each).parent for each in self.counted if _is_below(path, str(Path(each).parent))}
        for folder in sorted(folders):
            parts = Path(path).relative_to(folder).with_suffix("").parts
            if all(map(str.isidentifier, parts)):
                return f"name it in an import statement, such as 'import {'.'.join(parts)}', which need not be reached"
        return "move it beside the module that the step names, or into a folder there, and import it from there"


_watch: _Watch | None = None
"""That over the step under way; a worker does one at a time, whatever threads its code starts."""


@contextlib.contextmanager
def _refusing_uncounted(named: Collection[Path]) -> Iterator[None]:
    """Refuse to execute files, for the length of a block, that the fingerprint does not count; the step names some."""
    global _watch  # noqa: PLW0603  an audit hook can be given nothing, and never be taken back
    code = _fingerprinted.get()
    if code.root is None:
        yield
        return
    _add_hook()
    _watch = _Watch.of(code, code.root, named)
    try:
        yield
    finally:
        _watch = None


@cache
def _add_hook() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Look at every module before it is executed, however it was found: compiled ones are told as imports."""
    if _watch is None:
        return
    if event == "exec":
        _watch.require_counted(arguments[0].co_filename)
    elif event == "import" and arguments[1]:
        _watch.require_counted(arguments[1])


# --- places and bytecode ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Places:
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
        tops = [each for each in folders if _is_below(path, each)]
        return any(not any(_is_below(other, top) and _is_below(path, other) for other in self.others) for top in tops)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


class _SourceLoader(SourceFileLoader):
    """Compiles a module each time, also one that is imported late, while a step is at work.

    Bytecode counts as that of any source of the same size and second, so it could be that of other code than the
    fingerprint's; and Python would write it beside the source, into the store's entries.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        require_fingerprinted(path, hashlib.sha256(source).hexdigest())
        return self.source_to_code(source, path)


@contextlib.contextmanager
def _compiling(places: _Places) -> Iterator[None]:
    """Let the modules in some places, and of libraries in source, be found anew and compiled from their source."""
    make_finder = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceLoader, SOURCE_SUFFIXES))

    folders = places.folders.union(map(str, source_path()))

    def is_meant(folder: str) -> bool:
        return folder in folders or (places.have_below(f"{folder}/", folders) and not is_installed(Path(folder)))

    def hook(folder: str) -> Any:
        if not is_meant(folder):
            raise ImportError
        if Path(folder).is_file():
            archive = zipimporter(folder)
            archive.invalidate_caches()  # Python remembers where things lie in it, for good
            return archive
        return make_finder(folder)

    def forget() -> None:
        for folder in filter(is_meant, list(sys.path_importer_cache)):
            del sys.path_importer_cache[folder]

    forget()
    sys.path_hooks.insert(0, hook)
    try:
        yield
    finally:
        sys.path_hooks.remove(hook)
        forget()
