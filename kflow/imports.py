"""What Python source imports, told without running it: local files, and libraries with their versions."""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ABSENT = "none"
"""The version of what is not installed."""


def local_imports(tree: ast.Module, folder: Path, top: Path) -> Iterator[Path]:
    """Yield the files beside a module (or below its folder) that its import statements could mean."""
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
            for alias in node.names:
                yield from _module_files(base, [*parts, alias.name])


def _module_files(base: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files that importing a dotted name would run, where they are there: packages on the way, the module."""
    for count in range(1, len(parts) + 1):
        stem = base.joinpath(*parts[:count])
        yield from (stem / "__init__.py", stem.with_name(stem.name + ".py"))


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
    names: set[str] = set()
    for node in (each for tree in trees for each in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    elsewhere = names - sys.stdlib_module_names
    return tuple(sorted(name for name in elsewhere if not _is_local(top / name)))


def _is_local(stem: Path) -> bool:
    return stem.is_dir() or stem.with_name(stem.name + ".py").is_file()


def version_of(distribution: str) -> str:
    """Return the version of an installed package, `ABSENT` if it is not there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ABSENT


def library_versions(names: Iterable[str]) -> Mapping[str, str]:
    """Return, by the name of the package, the versions of what is imported under some names.

    Examples
    --------
    >>> list(library_versions(["yaml", "no_such_module"]))
    ['PyYAML', 'no_such_module']
    """
    found: dict[str, str] = {}
    for name in names:
        version = version_of(name)
        packages = _packages().get(name, ()) if version == ABSENT else ()
        found |= {package: version_of(package) for package in packages} or {name: version}
    return found


@cache
def _packages() -> Mapping[str, list[str]]:
    """Return the packages that each name is imported from: those of ``yaml`` are called PyYAML."""
    from importlib.metadata import packages_distributions

    return {name: sorted(set(packages)) for name, packages in packages_distributions().items()}
