"""Custom objects: names, and the source they come from, copied so that it stays what it was."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kflow.artifacts import Saved, digest_file, digest_json

_fingerprinted: ContextVar[Mapping[str, tuple[str, str]] | None] = ContextVar("_fingerprinted", default=None)
"""The user code in the fingerprint of the step under way: by real path, the path as it is told and the SHA-256."""


@dataclass(frozen=True, slots=True)
class ObjectSources:
    """Where custom objects are defined: for each name a module and a symbol, and all files that they need."""

    objects: Mapping[str, tuple[Path, str]]
    sources: Mapping[Path, tuple[Path, ...]]
    """For each module, itself and the local modules that it imports."""


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """Custom objects in the store, not imported yet: for each name a module and a symbol."""

    objects: Mapping[str, tuple[Path, str]]


def save(value: ObjectSources, folder: Path) -> Saved:
    """Copy the modules, each with what it imports in the same relative places."""
    places: dict[Path, Path] = {}
    identity: dict[str, Any] = {}
    for number, (module, sources) in enumerate(value.sources.items()):
        for source in sources:
            inside = Path(str(number), _relative(source, module.parent))
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            identity[str(inside)] = _require_fingerprinted(source, digest_file(target))
        places[module] = Path(str(number), module.name)
    objects = {name: [str(places[module]), symbol] for name, (module, symbol) in value.objects.items()}
    return Saved(digest_json([objects, identity]), {"objects": objects})


@contextlib.contextmanager
def holding_code_to(root: Path, digests: Mapping[str, str]) -> Iterator[None]:
    """Refuse user code, for the length of a block, that was changed since the step was fingerprinted.

    Else its result would be stored under the fingerprint of other code. The paths start at the folder of the workflow.
    """
    token = _fingerprinted.set({os.path.realpath(root / path): (path, digest) for path, digest in digests.items()})
    try:
        yield
    finally:
        _fingerprinted.reset(token)


def _require_fingerprinted(source: str | Path, digest: str) -> str:
    path, planned = (_fingerprinted.get() or {}).get(os.path.realpath(source), ("", digest))
    if planned != digest:
        message = f"{path} was changed since the step was planned; run again"
        raise ValueError(message)
    return digest


def _relative(source: Path, top: Path) -> Path:
    """Return the place of a source below the folder of its module; one from above goes beside it."""
    return source.relative_to(top) if source.is_relative_to(top) else Path(source.name)


def load(description: Mapping[str, Any], folder: Path) -> StoredObjects:
    """Return where each object is defined; nothing is imported yet."""
    return StoredObjects({name: (folder / module, symbol) for name, (module, symbol) in description["objects"].items()})


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
    loaded: dict[Path, ModuleType] = {}
    local: dict[str, ModuleType] = {}
    try:
        result = {}
        for name, (file, symbol) in objects.items():
            if file not in loaded:
                # Modules of one folder share what they import.
                sys.modules.update({each: local[each] for each in local if _lies_below(local[each], file.parent)})
                loaded[file] = _import(file)
                _set_aside(file, modules_before, local)
            if not hasattr(loaded[file], symbol):
                message = f"{file.name} defines no {symbol!r}"
                raise AttributeError(message)
            result[name] = getattr(loaded[file], symbol)
        for path in _fingerprinted.get() or {}:  # now, as what was changed before has been imported
            _require_fingerprinted(path, digest_file(Path(path)))
        # For what they import while they run.
        sys.modules.update(local)
        sys.path.extend(str(file.parent) for file in loaded)
        yield result
    finally:
        sys.path[:] = path_before
        folders = {file.parent for file, _ in objects.values()}
        for name in set(sys.modules) - modules_before:
            if any(_lies_below(sys.modules[name], folder) for folder in folders):
                del sys.modules[name]


def _import(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    if file.stem not in sys.modules:
        sys.modules[file.stem] = module
    # At the end of the path: a user's random.py must not stand in for the standard library's.
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


def _set_aside(file: Path, before: set[str], local: dict[str, ModuleType]) -> None:
    """Take the local modules of a user module out of the way of the next one's.

    Raises
    ------
    ValueError
        If another file has come as a module of the same name: an import while they run could get the wrong one.
    """
    for name in set(sys.modules) - before:
        if _lies_below(sys.modules[name], file.parent):
            module = sys.modules.pop(name)
            if local.setdefault(name, module).__file__ != module.__file__:
                message = f"two different files are the module {name!r}; rename one of them"
                raise ValueError(message)


def _lies_below(module: ModuleType, folder: Path) -> bool:
    return (getattr(module, "__file__", None) or "").startswith(f"{folder}/")
