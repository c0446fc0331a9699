"""The manifest of an entry: what lies in it, and how to see that it is whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kflow.artifacts import ExternalFile

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact in an entry: its type, the digest of its content, and what its type needs to open it."""

    type: str
    digest: str
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an entry holds; it is written last, so an entry exists if and only if its manifest does."""

    fingerprint: str
    kind: str
    outputs: Mapping[str, Output]
    files: Mapping[str, int]
    """The size in bytes of each file, by path inside the entry."""
    external: tuple[ExternalFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the step had to say: metrics, versions."""

    def to_json(self) -> str:
        """Return the text of the manifest."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a manifest; raises ValueError, KeyError, TypeError or AttributeError when it is none."""
        value = json.loads(text)
        if value.pop("format") != FORMAT:
            msg = "another format of manifest"
            raise ValueError(msg)
        value["outputs"] = {name: Output(**output) for name, output in value["outputs"].items()}
        value["external"] = tuple(ExternalFile(**each) for each in value["external"])
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored result: a folder with a manifest."""

    folder: Path
    manifest: Manifest

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each output."""
        return {name: output.digest for name, output in self.manifest.outputs.items()}

    def is_whole(self) -> bool:
        """Tell whether every file is there with its size, and what it refers to outside is unchanged."""
        try:
            inside = all((self.folder / name).stat().st_size == size for name, size in self.manifest.files.items())
            return inside and all(each.is_unchanged() for each in self.manifest.external)
        except OSError:
            return False
