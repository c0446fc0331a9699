"""What Python source imports, told without running it: local files, and libraries with their versions."""

import ast
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ABSENT = "none"
"""The version of what is not installed."""
SOURCES = "sources of "
"""Stands before the name of a library whose sources count instead of its version."""
_ENDINGS = (".py", *EXTENSION_SUFFIXES)
_INSTALLED = frozenset({"site-packages", "dist-packages"})


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
        yield from (stem.with_name(stem.name + ending) for ending in _ENDINGS)


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


# --- libraries --------------------------------------------------------------------------------------------


def find_libraries(trees: Iterable[ast.Module], top: Path) -> tuple[str, ...]:
    r"""Return the names, in order, that modules import from neither their own folder nor the standard library.

    Parameters
    ----------
    trees : iterable of ast.Module
        The modules.
    top : Path
        The folder that their imports start at.

    Examples
    --------
    >>> find_libraries([ast.parse("import os, numpy.linalg\nfrom keras import layers")], Path("/nowhere"))
    ('keras', 'numpy')
    """
    return tuple(name for name in _foreign_names(trees) if not any(each.exists() for each in _candidates(top, name)))


def _foreign_names(trees: Iterable[ast.Module]) -> list[str]:
    """Return the top-level names that modules import, but for the standard library's, in order."""
    names: set[str] = set()
    for node in (each for tree in trees for each in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return sorted(names - sys.stdlib_module_names)


def _candidates(folder: Path, name: str) -> list[Path]:
    """Return what may be imported under a name from a folder of Python's path: a package, a module, a compiled one."""
    return [folder / name, *(folder / f"{name}{ending}" for ending in _ENDINGS)]


def version_of(distribution: str) -> str:
    """Return the version of an installed package, `ABSENT` if it is not there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ABSENT


def library_versions(names: Iterable[str], note: Callable[[Path], None] = lambda _: None) -> Mapping[str, str]:
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
        version = version_of(name)
        packages = _packages().get(name, ()) if version == ABSENT else ()
        versions = {package: version_of(package) for package in packages} or {name: version}
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


@cache
def _packages() -> Mapping[str, list[str]]:
    """Return the packages that each name is imported from: those of ``yaml`` are called PyYAML."""
    from importlib.metadata import packages_distributions

    return {name: sorted(set(packages)) for name, packages in packages_distributions().items()}


# --- libraries in source ----------------------------------------------------------------------------------


def source_path() -> list[Path]:
    """Return the folders of Python's path that nothing was installed into, in order: those of the user's own."""
    # The first one is the folder of the program, or the current one; workers do without it.
    path = sys.path if sys.flags.safe_path else sys.path[1:]
    own = Path(__file__).parents[1]
    return [folder for folder in map(Path, filter(None, path)) if folder != own and _is_users(folder)]


def _is_users(folder: Path) -> bool:
    if not _INSTALLED.isdisjoint(folder.parts) or folder.is_relative_to(Path(os.__file__).parent):
        return False
    try:
        return not any(each.suffix == ".dist-info" for each in folder.iterdir())
    except OSError:  # a zip file, or nothing
        return False


def _source_files(name: str, note: Callable[[Path], None] = lambda _: None) -> dict[str, Path]:
    """Return the files of a library that is imported from its sources, by their paths in it; none for another."""
    for folder in source_path():
        candidates = _candidates(folder, name)
        for each in candidates:
            note(each)
        if files := _list_files(candidates, note):
            return files
    return _list_files(_editable_places(name), note)


def _editable_places(name: str) -> Iterator[Path]:
    """Yield where the finders of editable installs find a library."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if "editable" in str(getattr(finder, "__module__", "")) else None
        if spec:
            places = map(Path, spec.submodule_search_locations or filter(None, [spec.origin]))
            yield from (place for place in places if _INSTALLED.isdisjoint(place.parts))


def _list_files(places: Iterable[Path], note: Callable[[Path], None]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place in places:
        if place.is_file():
            note(place)
            found[place.name] = place
        for folder, folders, names in os.walk(place):
            note(Path(folder))  # a file may come
            folders[:] = sorted(each for each in folders if each.isidentifier() and each != "__pycache__")
            files = [Path(folder, each) for each in sorted(names) if each.endswith(_ENDINGS)]
            for file in files:
                note(file)
            found |= {str(file.relative_to(place.parent)): file for file in files}
    return found


def _digest(files: Mapping[str, Path]) -> str:
    import hashlib

    digests = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {inside}\n" for inside, file in sorted(files.items())]
    return hashlib.sha256("".join(digests).encode("utf-8", "surrogateescape")).hexdigest()


def _parse_each(files: Mapping[str, Path]) -> Iterator[ast.Module]:
    """Yield the modules of a library that are Python: not those for another version of it."""
    for file in files.values():
        if file.suffix == ".py":
            with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
                yield ast.parse(file.read_bytes())
