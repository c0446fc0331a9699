"""The types of artifact, one module each: how a value is stored, opened and digested.

A module of this package has ``save(value, folder) -> Saved``, which writes below `folder`, and
``load(description, folder) -> value``. Its heavy imports stand inside the functions.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file of the workspace that an artifact refers to instead of copying it."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "ExternalFile":
        """Note a file as it is now."""
        stat = path.stat()
        return cls(str(path), stat.st_size, stat.st_mtime_ns)

    def is_unchanged(self) -> bool:
        """Tell whether the file still has the size and time that were noted; False when it is gone."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  pathlib costs as much again
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Saved:
    """A stored value: the digest of its content, what is needed to open it, and what it refers to outside."""

    digest: str
    description: Mapping[str, Any]
    external: tuple[ExternalFile, ...] = ()


def file_outside(type_name: str, description: Mapping[str, Any], digest: str) -> tuple[str, str] | None:
    """Return path and SHA-256 of the file that a stored value refers to; None for one that holds all itself."""
    if type_name == "file" and "path" in description:
        return description["path"], digest
    if type_name == "array" and "source" in description:
        return description["source"]["path"], description["source"]["content"]
    return None


class ArtifactType(Protocol):
    """What a module of this package offers."""

    def save(self, value: Any, folder: Path) -> Saved:
        """Store a value below a folder."""

    def load(self, description: Mapping[str, Any], folder: Path) -> Any:
        """Open a stored value."""


TYPES = {
    "array": "kflow.artifacts.array",
    "file": "kflow.artifacts.file",
    "history": "kflow.artifacts.history",
    "image": "kflow.artifacts.image",
    "metrics": "kflow.artifacts.metrics",
    "model": "kflow.artifacts.model",
    "objects": "kflow.artifacts.objects",
}


@cache
def artifact_type(name: str) -> ArtifactType:
    """Return the module of an artifact type."""
    return cast(ArtifactType, import_module(TYPES[name]))


_SMALL, _BLOCK = 2**14, 2**18
"""Bytes to read first, and then at a time: clearing room for the second takes longer than to read a small file."""


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb", buffering=0) as stream:
        digest = hashlib.sha256(stream.read(_SMALL))
        if more := stream.read(_SMALL):
            digest.update(more)
            block = memoryview(bytearray(_BLOCK))
            while size := stream.readinto(block):
                digest.update(block[:size])
        return digest.hexdigest()


def is_made_by_step(path: Path, folder: Path) -> bool:
    """Tell whether a file lies where the step worked whose output goes to a folder: only such a one may be moved."""
    # What lies there may be a link, or its path lead out.
    return os.path.realpath(path).startswith(f"{os.path.realpath(folder.parent)}{os.sep}")


def digest_json(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
