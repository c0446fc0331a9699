"""The manifest of an entry: what lies in it, and how to see that it is whole."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kflow import durable
from kflow.artifacts import ExternalFile, digest_file
from kflow.artifacts.forms import has_form
from kflow.signature import is_another, state

FORMAT = 3
MANIFEST = "manifest.json"
_SEAL = b', "digest": "'
"""What stands between a sealed object and its digest."""


Glance = dict[str, list[int | str]]
"""What `Entry.glance` gives."""


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

    def to_bytes(self) -> bytes:
        """Return the manifest as it lies in the store: JSON, with its own digest at the end."""
        value = {"format": FORMAT, **_fields(self)}
        return seal(json.dumps(value, default=_fields, sort_keys=True))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest.

        Raises
        ------
        ValueError
            If a bit of it is not as it was written, or it is of another format.
        """
        value = unseal(data)
        if value.pop("format", None) != FORMAT:
            message = "another format of manifest"
            raise ValueError(message)
        try:
            value["outputs"] = {name: Output(**output) for name, output in value["outputs"].items()}
            value["files"] = {name: Content(**each) for name, each in value["files"].items()}
            value["external"] = tuple(ExternalFile(**each) for each in value["external"])
            found = cls(**value)
            # Only what came from elsewhere before such was refused, and whoever writes there, brings in another form.
            if all(has_form(output.type, output.description) for output in found.outputs.values()):
                return found
        except (KeyError, TypeError, AttributeError):
            pass
        message = "no manifest"
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored result: a folder with a manifest."""

    place: str
    """Its folder, as a text: a path would take longer than the look into it."""
    manifest: Manifest
    origin: ClassVar[str] = "unchanged"
    """Why nothing needs to be run for it."""

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(self.place)

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each output."""
        return {name: output.digest for name, output in self.manifest.outputs.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers in its outputs that are metrics, by name."""
        outputs = sorted(self.manifest.outputs.items())  # of two with one name always the same counts
        found = (output.description["metrics"] for _, output in outputs if output.type == "metrics")
        return {name: number for metrics in found for name, number in metrics.items()}

    def is_whole(self) -> bool:
        """Tell whether every file is there with its size, and what it refers to outside is unchanged."""
        try:
            files = self.manifest.files.items()
            inside = all(os.stat(f"{self.place}/{name}").st_size == content.size for name, content in files)  # noqa: PTH116
            return inside and all(each.is_unchanged() for each in self.manifest.external)
        except OSError:
            return False

    @property
    def size(self) -> int:
        """The bytes that it takes, without its manifest."""
        return sum(content.size for content in self.manifest.files.values())

    def stamp(self) -> dict[str, list[int | str]]:
        """Return the state of each file, in which every change of it shows, also one that sets its times back.

        With what it should hold: another result of the same step may have taken its place since the manifest was read.
        """
        files = self.manifest.files.items()
        return {name: [*state(f"{self.place}/{name}"), content.sha256] for name, content in files}

    def glance(self) -> Glance:
        """Return what `stamp` does, and the state of the folders; nothing where that cannot be told.

        A folder has a ``/`` at the end of its name; it shows a file that was moved away and back.
        """
        folders = {name.rpartition("/")[0] for name in self.manifest.files} - {""}  # the entry's own is touched by use
        with contextlib.suppress(OSError):
            return self.stamp() | {f"{name}/": [*state(f"{self.place}/{name}")] for name in sorted(folders)}
        return {}

    def find_damage(self) -> list[str]:
        """Read every file, and return those that are gone or hold other bytes than were published.

        Raises
        ------
        PermissionError
            If a file may not be read.
        """
        return [name for name, content in self.manifest.files.items() if not holds(self.folder / name, content)]


def was_replaced(before: Glance, now: Glance) -> bool:
    """Tell whether other files were put in the place of those of an entry between two glances at it.

    One that was moved away and back shows in its own times and in those of its folder. Either alone is no sign: some
    libraries put a file of theirs beside what they read, and permissions may be set.
    """
    return any(
        is_another(before[name], each) or (each[2] != before[name][2] and _has_new_names(name, before, now))
        for name, each in now.items()
        if name in before and not name.endswith("/")
    )


def _has_new_names(name: str, before: Glance, now: Glance) -> bool:
    """Tell whether anything was put into the folder of a file, or taken out of it."""
    folder = f"{name.rpartition('/')[0]}/"
    return folder in before and folder in now and before[folder][1] != now[folder][1]


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest in the folder of an entry.

    Raises
    ------
    OSError, ValueError
        If there is none, or not a whole one.
    """
    return Manifest.from_bytes(durable.read_bytes(f"{folder}/{MANIFEST}"))


def seal(text: str) -> bytes:
    """Return a JSON object, of at least one field, with one more: the SHA-256 of all bytes before it.

    Examples
    --------
    >>> unseal(seal('{"a": 1}'))
    {'a': 1}
    """
    head = text.encode().rpartition(b"}")[0]
    return b'%s%s%s"}\n' % (head, _SEAL, hashlib.sha256(head).hexdigest().encode())


def unseal(data: bytes) -> dict[str, Any]:
    """Return what was sealed.

    Raises
    ------
    ValueError
        If a bit of it is not as it was written; before that is known, nothing of it is looked at.
    """
    head, _, end = data.rpartition(_SEAL)
    if end != hashlib.sha256(head).hexdigest().encode() + b'"}\n':
        message = "it does not hold the bytes that were written"
        raise ValueError(message)
    try:
        value: dict[str, Any] = json.loads(head + b"}")
    except RecursionError:  # nobody here writes such a one, and it may come from elsewhere
        message = "too deeply nested"
        raise ValueError(message) from None
    return value


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


def holds(path: Path, content: Content) -> bool:
    """Read a file, and tell whether it holds what was published.

    Raises
    ------
    PermissionError
        If it may not be read.
    """
    try:
        found = path.stat()
        is_fit = stat.S_ISREG(found.st_mode) and found.st_size == content.size  # reading from a pipe may wait forever
        return is_fit and digest_file(path) == content.sha256
    except PermissionError:  # it may well be as it was published
        raise
    except OSError:
        return False
