"""User modules, imported from the source that was fingerprinted, and forgotten when a step ends."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any
from zipimport import zipimporter

from kflow.artifacts import digest_file
from kflow.artifacts.watch import Places, Watch, refusing, watch_from_now
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
    end: contextlib.ExitStack | None = None
    """What is done when the step ends."""


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
    with refusing(), contextlib.ExitStack() as end:
        token = _fingerprinted.set(_Code(files, libraries, root, frozenset(others), end))
        end.callback(_fingerprinted.reset, token)
        yield


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
    """Import user modules for the length of a block, and forget them at its end; in a step, when the step ends.

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
    with contextlib.ExitStack() as block:
        # A class of the user's is asked again when the result of its step is saved.
        yield _import_all(objects, _fingerprinted.get().end or block)


def _import_all(objects: Mapping[str, tuple[Path, str]], end: contextlib.ExitStack) -> dict[str, Any]:
    """Return some objects of user modules, which are forgotten at the end."""
    modules_before = set(sys.modules)
    places = Places.of({file.parent for file, _ in objects.values()})
    loaded: dict[Path, ModuleType] = {}
    local: dict[str, ModuleType] = {}
    _refuse_uncounted({file for file, _ in objects.values()})
    end.callback(_forget, places, list(sys.path), modules_before)
    end.enter_context(_compiling(places))
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
    return result


def _forget(places: Places, path: list[str], modules: Collection[str]) -> None:
    """Make Python's path and its modules those of before, but for libraries."""
    sys.path[:] = path
    for name in set(sys.modules).difference(modules):
        if places.hold(sys.modules[name]):
            del sys.modules[name]


def _refuse_uncounted(named: Collection[Path]) -> None:
    """Refuse to execute files, until the step ends, that its fingerprint does not count; it names some."""
    code = _fingerprinted.get()
    if code.root is not None:
        counted: list[str | Path] = [*code.files, *named, *counted_sources(code.libraries)]
        watch_from_now(Watch.of(code.root, counted, {*map(os.path.dirname, code.files)}, code.others, bool(named)))


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


def _set_aside(places: Places, file: Path, before: set[str], local: dict[str, ModuleType]) -> None:
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


# --- bytecode -------------------------------------------------------------------------------------------


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
def _compiling(places: Places) -> Iterator[None]:
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
