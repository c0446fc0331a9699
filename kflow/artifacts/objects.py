"""Custom objects: names, and the source they come from, copied so that it stays what it was."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_file, digest_json
from kflow.artifacts.modules import require_fingerprinted


@dataclass(frozen=True, slots=True)
class ObjectSources:
    """Where custom objects are defined: for each name a module and a symbol, and all files that they need."""

    objects: Mapping[str, tuple[Path, str]]
    sources: Mapping[Path, tuple[Path, ...]]
    """For each module, itself and the local modules that it imports."""
    libraries: Mapping[str, str]
    """The versions of the libraries that they import: with others the same source may do something else."""


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
            identity[str(inside)] = require_fingerprinted(source, digest_file(target))
        places[module] = Path(str(number), module.name)
    objects = {name: [str(places[module]), symbol] for name, (module, symbol) in value.objects.items()}
    libraries = dict(value.libraries)
    return Saved(digest_json([objects, identity, libraries]), {"objects": objects, "libraries": libraries})


def _relative(source: Path, top: Path) -> Path:
    """Return the place of a source below the folder of its module; one from above goes beside it."""
    return source.relative_to(top) if source.is_relative_to(top) else Path(source.name)


def load(description: Mapping[str, Any], folder: Path) -> StoredObjects:
    """Return where each object is defined; nothing is imported yet."""
    return StoredObjects({name: (folder / module, symbol) for name, (module, symbol) in description["objects"].items()})
