"""Python's path as workers have it: what is found under a name there, what is installed, and what is a user's."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ENDINGS = (".py", *EXTENSION_SUFFIXES)
"""Of what can be imported."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def ignore(_: object) -> None:
    """Take a path that was looked at, for those who keep none."""


def source_path() -> list[Path]:
    """Return the folders and zip files of Python's path that are no environment's: those of the user's own."""
    own = Path(__file__).parents[1]
    return [folder for folder in search_path() if folder != own and not _is_environments(folder)]


def is_installed(file: Path, path: "Iterable[Path] | None" = None) -> bool:
    """Say whether a file is of the standard library, or lies where libraries are installed, by their versions.

    `path` is Python's, as `source_path` gives it, if it was another one before.

    Examples
    --------
    >>> import yaml
    >>> is_installed(Path(os.__file__)), is_installed(Path(yaml.__file__)), is_installed(Path("/home/me/layers.py"))
    (True, True, False)
    """
    if _is_environments(file):
        return True
    return was_brought(file, source_path() if path is None else path)


def was_brought(file: Path, path: Iterable[Path]) -> bool:
    """Say whether a file belongs to a distribution in a folder of Python's path that is no environment's."""
    for folder in path:
        real = f"{os.path.realpath(folder)}/"  # texts, as it is asked for every module
        if str(file).startswith(real) and was_installed(folder, str(file)[len(real) :].partition("/")[0].split(".")[0]):
            return True
    return False


def _is_environments(place: Path) -> bool:
    return not _INSTALLED.isdisjoint(place.parts) or is_standard(str(place))


def is_standard(place: str) -> bool:
    """Say whether a path lies in the standard library.

    Examples
    --------
    >>> is_standard(os.__file__), is_standard("/home/me/os.py")
    (True, False)
    """
    return f"{place}/".startswith(_standard_folders()) and _INSTALLED.isdisjoint(place.split("/"))


@cache
def _standard_folders() -> tuple[str, ...]:
    folder = os.path.dirname(os.__file__)  # noqa: PTH120  texts, as it is asked for every module
    archive = f"{os.path.dirname(folder)}/python{sys.version_info.major}{sys.version_info.minor}.zip"  # noqa: PTH120
    return f"{folder}/", f"{os.path.realpath(folder)}/", f"{archive}/"


def was_installed(folder: Path, name: str) -> bool:
    """Say whether a module in a folder belongs to a distribution there, as after ``pip install --target``."""
    try:
        names = _installed_names(folder, os.stat(folder).st_mtime_ns)  # noqa: PTH116
    except OSError:
        return False
    return name in names


@lru_cache(64)
def _installed_names(folder: Path, _: int) -> frozenset[str]:
    """Return the names of the modules of all distributions in a folder that was last changed at a time."""
    names = set()
    for about in folder.glob("*.dist-info"):
        listed = _read_lines(about / "RECORD") or _read_lines(about / "top_level.txt")
        names |= {line.partition("/")[0].partition(".")[0] for line in listed or [about.name.partition("-")[0]]}
    return frozenset(names)


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # not every installer writes it
        return []


# --- names ------------------------------------------------------------------------------------------------


def find_first(name: str, note: Callable[[Path], None] = ignore) -> Path | None:
    """Return the module or package that Python finds under a name without the folder of a user's module."""
    for folder in search_path():
        for each in [folder] if _is_environments(folder) else candidates(folder, name):
            note(each)  # a file may come; into an environment one seldom does
        if found := find_module(folder, name):
            return found
    return next((found for place in editable_places(name) if (found := find_module(place.parent, name))), None)


def find_module(folder: Path, name: str) -> Path | None:
    """Return the file that makes a module or package in a folder, or the zip file that holds one.

    A bare folder, without ``__init__.py``, is none: it yields to any module or package, as Python has it.
    """
    place = f"{folder}/{name}"  # texts, and no error where it may not look: each module asks for each of its imports
    stems = [f"{place}/__init__", place] if os.path.isdir(place) else [place]  # noqa: PTH112
    files = (stem + ending for stem in stems for ending in ENDINGS)
    found = next(filter(os.path.isfile, files), None)
    return Path(found) if found else folder if holds(folder, name) else None


def search_path() -> list[Path]:
    """Return Python's path as workers have it: without the folder of the program, or the current one."""
    return [Path(each) for each in (sys.path if sys.flags.safe_path else sys.path[1:]) if each]


def candidates(folder: Path, name: str) -> list[Path]:
    """Return what may be imported under a name from a folder of Python's path: a package, a module, a compiled one."""
    return [folder / name, *(folder / f"{name}{ending}" for ending in ENDINGS)]


def editable_places(name: str) -> Iterator[Path]:
    """Yield where the finders of editable installs find a library, or parts of it."""
    for finder in sys.meta_path:
        module = str(getattr(finder, "__module__", ""))
        if "editable" not in module:
            continue
        spec = finder.find_spec(name, None)
        found = list(spec.submodule_search_locations or filter(None, [spec.origin])) if spec else []
        # Those of setuptools: parts of a namespace, and packages that lie elsewhere than the one that they are in.
        mapping = getattr(sys.modules.get(module), "MAPPING", {})
        found += [place for part, place in mapping.items() if part.startswith(f"{name}.")]
        yield from (place for place in map(Path, dict.fromkeys(found)) if _INSTALLED.isdisjoint(place.parts))


# --- files ------------------------------------------------------------------------------------------------


def holds(archive: Path, name: str) -> bool:
    """Say whether a zip file in Python's path holds a module; it counts as a whole."""
    return any(each.startswith((f"{name}/", f"{name}.py")) for each in read_names(archive))


def read_names(archive: Path) -> list[str]:
    """Return the names of what is in a zip file, none for anything else."""
    if not os.path.isfile(archive):  # noqa: PTH113
        return []
    import zipfile

    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (OSError, zipfile.BadZipFile):  # Python passes over it as well
        return []


def list_files(places: Iterable[Path], note: Callable[[Path], None]) -> dict[str, Path]:
    """Return what can be imported in some places, by its path from there; not what is no part of a package."""
    found: dict[str, Path] = {}
    for place in places:
        if place.is_file():
            note(place)
            found[place.name] = place
        seen: set[str] = set()
        for folder, folders, names in os.walk(place, followlinks=True):
            note(Path(folder))  # a file may come
            folders[:] = sorted(each for each in folders if each.isidentifier() and each != "__pycache__")
            if (real := os.path.realpath(folder)) in seen:  # a link to where it has been, which may be above it
                folders.clear()
                continue
            seen.add(real)
            files = [Path(folder, each) for each in sorted(names) if each.endswith(ENDINGS)]
            for file in files:
                note(file)
            found |= {str(file.relative_to(place.parent)): file for file in files}
    return found
