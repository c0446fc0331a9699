"""What Python source imports, told without running it: local files, and libraries with their versions."""

import ast
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.python_path import (
    ENDINGS,
    candidates,
    editable_places,
    find_first,
    find_module,
    holds,
    ignore,
    list_files,
    read_names,
    search_path,
    source_path,
    was_installed,
)

if TYPE_CHECKING:
    from importlib.metadata import Distribution

ABSENT = "none"
"""The version of what is not installed."""
SOURCES = "sources of "
"""Stands before the name of a library whose sources count instead of its version."""


# --- local modules ----------------------------------------------------------------------------------------


def local_imports(tree: ast.Module, folder: Path, top: Path, parse: Callable[[Path], ast.Module]) -> Iterator[Path]:
    """Yield the files beside a module (or below its folder) that its import statements could mean, there or not.

    Parameters
    ----------
    tree : ast.Module
        The module.
    folder : Path
        The folder that it lies in, where relative imports start.
    top : Path
        The folder where other imports start.
    parse : callable
        Reads another module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(top, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = top
            if node.level:
                base = folder
                for _ in range(node.level - 1):
                    base = base.parent
            parts = node.module.split(".") if node.module else []
            yield from _module_files(base, parts)
            package = base.joinpath(*parts)
            if any(alias.name == "*" for alias in node.names):
                yield package  # a file may come
            for alias in node.names:
                for name in _exported(package, parse) if alias.name == "*" else [alias.name]:
                    yield from _module_files(package, [name])


def _module_files(base: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files that importing a dotted name could run: packages on the way, the module, compiled ones."""
    for count in range(1, len(parts) + 1):
        stem = base.joinpath(*parts[:count])
        yield stem / "__init__.py"
        yield from (stem.with_name(stem.name + ending) for ending in ENDINGS)


def _exported(package: Path, parse: Callable[[Path], ast.Module]) -> Iterator[str]:
    """Yield the names that ``from package import *`` takes, as far as they may be modules of the package."""
    try:
        nodes = list(ast.walk(parse(package / "__init__.py")))
    except OSError:  # a namespace, or no package at all: nothing is imported besides
        return
    lists = [node.value for node in nodes if isinstance(node, ast.Assign) and _is_all(node.targets[0])]
    names = [each for value in lists if isinstance(value, ast.List | ast.Tuple) for each in value.elts]
    texts = [each.value for each in names if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    yield from texts
    is_literal = len(texts) == len(names) and all(isinstance(value, ast.List | ast.Tuple) for value in lists)
    if not is_literal or sum(map(_is_all, nodes)) > len(lists):  # it is worked out: any module may be in it
        yield from (each.name.partition(".")[0] for each in sorted(package.iterdir()))


def _is_all(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "__all__"


# --- which of two comes first -----------------------------------------------------------------------------


def require_first(tree: ast.Module, top: Path, note: Callable[[Path], None] = ignore) -> None:
    """Refuse what a module imports from a folder at the end of Python's path if another of that name lies before it.

    Whichever were run, somebody would have meant the other one. The standard library is what its names mean.

    Parameters
    ----------
    tree : ast.Module
        The module.
    top : Path
        The folder.
    note : callable, optional
        Takes every path that was looked at elsewhere, there or not.

    Raises
    ------
    ValueError
        With both files.
    """
    for name in _foreign_names([tree]):
        local = find_module(top, name)
        first = find_first(name, note) if local else None
        if local and first and os.path.realpath(local) != os.path.realpath(first):
            here = local.relative_to(top)
            message = f"{name!r} is {here} beside it and also {first}, which comes first for Python; rename {here}"
            raise ValueError(message)


def require_absolute(tree: ast.Module, file: Path, symbol: str) -> None:
    """Refuse a relative import at the top level of a module that a step names: it is run as part of no package.

    One in a function, or below an ``if`` or a ``try``, need not be reached.

    Parameters
    ----------
    tree : ast.Module
        The module.
    file : Path
        Where it lies.
    symbol : str
        The file as the step names it, and the name in it.

    Raises
    ------
    ImportError
        With a message, and what to write instead.
    """
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            told, _, name = symbol.rpartition(":")
            line = f"{told}:{node.lineno}: '{ast.unparse(node)}'"
            message = f"{line} fails, as a module that a step names is part of no package"
            above = f"name a module above the package that has 'from {file.parent.name}.{file.stem} import {name}'"
            absolute = _absolute(node)
            raise ImportError(message, f"write '{absolute}', or {above}" if absolute else above)


def _absolute(node: ast.ImportFrom) -> str:
    """Return the absolute import that does the same, as imports start at the module's own folder; '' if none does."""
    if node.level > 1 or (not node.module and node.names[0].name == "*"):
        return ""
    return ast.unparse(ast.ImportFrom(node.module, node.names, 0) if node.module else ast.Import(node.names))


# --- libraries --------------------------------------------------------------------------------------------


def find_libraries(trees: Iterable[ast.Module], top: Path, note: Callable[[Path], None] = ignore) -> tuple[str, ...]:
    r"""Return the names, in order, that modules import from neither their own folder alone nor the standard library.

    Parameters
    ----------
    trees : iterable of ast.Module
        The modules.
    top : Path
        The folder that their imports start at.
    note : callable, optional
        Takes every path that was looked at elsewhere, there or not.

    Examples
    --------
    >>> find_libraries([ast.parse("import os, numpy.linalg\nfrom keras import layers")], Path("/nowhere"))
    ('keras', 'numpy')
    """
    return tuple(name for name in _foreign_names(trees, note) if not _is_local(top, name, note))


def _is_local(top: Path, name: str, note: Callable[[Path], None]) -> bool:
    """Say whether all that a name can mean lies in a folder: a bare one yields to a package, or joins its namespace."""
    if find_module(top, name):
        return True
    if not any(each.exists() for each in candidates(top, name)) or find_first(name, note):
        return False
    parts = [*(folder / name for folder in search_path()), *editable_places(name)]
    return all(os.path.realpath(part) == os.path.realpath(top / name) for part in parts if part.is_dir())


def _foreign_names(trees: Iterable[ast.Module], note: Callable[[Path], None] = ignore) -> list[str]:
    """Return the top-level names that modules import, in order; those of the standard library if a user has one too."""
    names: set[str] = set()
    for node in (each for tree in trees for each in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    found = names - sys.stdlib_module_names
    folders = source_path()  # most of them stand before the standard library
    for name in names - found:
        for folder in folders:
            for each in candidates(folder, name):
                note(each)
            if find_module(folder, name):
                found.add(name)
    return sorted(found)


def version_of(distribution: str) -> str:
    """Return the version of an installed package, `ABSENT` if it is not there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ABSENT


def library_versions(names: Iterable[str], note: Callable[[Path], None] = ignore) -> Mapping[str, str]:
    """Return, by the name of the package, the versions of what is imported under some names.

    For a library that is imported from its sources, as from a folder in ``PYTHONPATH`` or an editable install, these
    count, and the libraries that it imports.

    Parameters
    ----------
    names : iterable of str
        The names that are imported.
    note : callable, optional
        Takes every path that was looked at, there or not.

    Examples
    --------
    >>> list(library_versions(["yaml", "no_such_module"]))
    ['PyYAML', 'no_such_module']
    """
    found: dict[str, str] = {}
    todo = list(names)
    done: set[str] = set()
    while todo:
        name = todo.pop(0)
        if name in done:
            continue
        done.add(name)
        versions = {package: version_of(package) for package in _packages_of(name)}
        if files := _source_files(name, note):
            versions = {each: text for each, text in versions.items() if text != ABSENT}
            versions[f"{SOURCES}{name}"] = _digest(files)
            todo += _foreign_names(_parse_each(files))
        found |= versions
    return found


def changed_sources(versions: Mapping[str, str]) -> list[str]:
    """Return the libraries whose sources are not those that `library_versions` found."""
    return [name for name, digest in _planned(versions).items() if _digest(_source_files(name)) != digest]


def counted_sources(versions: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of the libraries whose sources count."""
    for name in _planned(versions):
        yield from _source_files(name).values()


def _planned(versions: Mapping[str, str]) -> Mapping[str, str]:
    return {key.removeprefix(SOURCES): digest for key, digest in versions.items() if key.startswith(SOURCES)}


def _packages_of(name: str) -> list[str]:
    """Return the packages that a name is imported from: that of ``yaml`` is called PyYAML.

    The package that has the name itself may be another one, and bring nothing, as ``bs4`` beside beautifulsoup4.
    """
    packages = {each for found in _distributions().get(name, ()) for each in found.metadata.get_all("Name") or ()}
    return sorted(packages) or [name]


@cache
def _distributions() -> "Mapping[str, list[Distribution]]":
    """Return what is installed, by the names that it is imported under.

    `importlib.metadata.packages_distributions` tells the same, and takes ten times as long.
    """
    from importlib.metadata import distributions

    found: dict[str, list[Distribution]] = {}
    for each in distributions():
        with contextlib.suppress(UnicodeDecodeError):  # a list that cannot be read tells of no module
            names = (each.read_text("top_level.txt") or "").split()
            for name in names or _recorded_names(each.read_text("RECORD") or ""):
                found.setdefault(name, []).append(each)
    return found


def _recorded_names(record: str) -> set[str]:
    """Return the names that can be imported of the files that a distribution has brought."""
    tops = {line.partition("/")[0] if "/" in line else line.partition(",")[0] for line in record.splitlines()}
    return {name for top in tops if (name := top.partition(".")[0]).isidentifier()}


# --- libraries in source ----------------------------------------------------------------------------------


def _source_files(name: str, note: Callable[[Path], None] = ignore) -> dict[str, Path]:
    """Return the files of a library that is imported from its sources, by their paths in it; none for another."""
    found: dict[str, Path] = {}
    for folder in source_path():
        places = candidates(folder, name)
        for each in [folder, *places] if folder.is_file() else places:
            note(each)
        is_whole = find_module(folder, name) is not None
        if any(each.exists() for each in places) and was_installed(folder, name):
            if is_whole:
                return found
            continue  # a part of a namespace, which counts by its version
        files = {folder.name: folder} if holds(folder, name) else list_files(places, note)
        if is_whole:
            return files
        found = files | found  # a part of a namespace
    return found | list_files(editable_places(name), note)


def _digest(files: Mapping[str, Path]) -> str:
    import hashlib

    digests = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {inside}\n" for inside, file in sorted(files.items())]
    return hashlib.sha256("".join(digests).encode("utf-8", "surrogateescape")).hexdigest()


def _parse_each(files: Mapping[str, Path]) -> Iterator[ast.Module]:
    """Yield the modules of a library that are Python: not those for another version of it."""
    for source in _read_each(files.values()):
        with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
            yield ast.parse(source)


def _read_each(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        if file.suffix == ".py":
            yield file.read_bytes()
        elif names := [] if file.name.endswith(ENDINGS) else read_names(file):
            import zipfile

            with zipfile.ZipFile(file) as opened:
                yield from (opened.read(name) for name in names if name.endswith(".py"))
