"""The manifest of an entry: what lies in it, and how to see that it is whole."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kflow.artifacts import ExternalFile, digest_file

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact in an entry: its type, the digest of its content, and what its type needs to open it."""

    type: str
    digest: str
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What a file of an entry holds: its bytes in number, and their SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an entry holds; it is written last, so an entry exists if and only if its manifest does."""

    fingerprint: str
    kind: str
    outputs: Mapping[str, Output]
    files: Mapping[str, Content] = field(default_factory=dict)
    """The content of each file, by path inside the entry; filled in when the entry is published."""
    external: tuple[ExternalFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the step had to say: metrics, versions."""

    def to_json(self) -> str:
        """Return the text of the manifest."""
        value = {"format": FORMAT, **_fields(self)}
        return json.dumps(value, default=_fields, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest; raises ValueError, KeyError, TypeError or AttributeError when it is none."""
        value = json.loads(text)
        if value.pop("format") != FORMAT:
            msg = "another format of manifest"
            raise ValueError(msg)
        value["outputs"] = {name: Output(**output) for name, output in value["outputs"].items()}
        value["files"] = {name: Content(**each) for name, each in value["files"].items()}
        value["external"] = tuple(ExternalFile(**each) for each in value["external"])
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored result: a folder with a manifest."""

    folder: Path
    manifest: Manifest
    origin: ClassVar[str] = "unchanged"
    """Why nothing needs to be run for it."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each output."""
        return {name: output.digest for name, output in self.manifest.outputs.items()}

    def is_whole(self) -> bool:
        """Tell whether every file is there with its size, and what it refers to outside is unchanged."""
        try:
            files = self.manifest.files.items()
            inside = all((self.folder / name).stat().st_size == content.size for name, content in files)
            return inside and all(each.is_unchanged() for each in self.manifest.external)
        except OSError:
            return False

    @property
    def size(self) -> int:
        """The bytes that it takes, without its manifest."""
        return sum(content.size for content in self.manifest.files.values())

    def stamp(self) -> dict[str, list[int]]:
        """Return what changes when a file is written to: size, time and inode of each."""
        stats = {name: (self.folder / name).stat() for name in self.manifest.files}
        return {name: [each.st_size, each.st_mtime_ns, each.st_ino] for name, each in stats.items()}

    def find_damage(self) -> list[str]:
        """Read every file, and return those that are gone or hold other bytes than were published.

        Raises
        ------
        PermissionError
            If a file may not be read.
        """
        return [name for name, content in self.manifest.files.items() if not _holds(self.folder / name, content)]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def describe_files(folder: Path) -> dict[str, Content]:
    """Return the content of every file below a folder."""
    paths = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {
        str(path.relative_to(folder)): Content(path.stat().st_size, digest_file(path))
        for path in paths
        if path.is_file()
    }


def _holds(path: Path, content: Content) -> bool:
    try:
        return path.stat().st_size == content.size and digest_file(path) == content.sha256
    except PermissionError:  # it may well be as it was published
        raise
    except OSError:
        return False
