"""The manifest of an entry as other machines may read it: without paths, and with every name and digest checked.

Nothing that stands in a text from elsewhere is believed: not a name, not a number, not the shape of the JSON.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from kflow.artifacts.forms import is_count, is_digest
from kflow.artifacts.travel import UnfitError, check_form, without_paths
from kflow.errors import RunError
from kflow.store.entry import Content, Manifest, Output, seal, unseal

FORMAT = 2
LARGEST = 8 * 2**20
"""The most bytes that a manifest from elsewhere may have."""
_NAME = re.compile(r"[^\x00-\x1f\x7f\\/]+")
_LONGEST, _LONGEST_PATH = 255, 1000
"""Bytes in a name, and in all names of a path together; the folders of the store come before it."""
_DEEPEST = 20


class RefusedError(RunError):
    """An entry from elsewhere is not what it says, and is not used."""


@dataclass(frozen=True, slots=True)
class Portable:
    """An entry elsewhere: what a manifest says that holds on any machine."""

    fingerprint: str
    kind: str
    outputs: Mapping[str, Output]
    files: Mapping[str, Content]
    origin: str = "its result is in the remote"
    """Why nothing needs to be run for it."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each output."""
        return {name: output.digest for name, output in self.outputs.items()}


def write_portable(manifest: Manifest) -> bytes:
    """Return what other machines may know of an entry."""
    outputs = {
        name: {
            "type": output.type,
            "digest": output.digest,
            "description": without_paths(output.type, output.description),
        }
        for name, output in manifest.outputs.items()
    }
    files = {name: {"size": each.size, "sha256": each.sha256} for name, each in manifest.files.items()}
    value = {
        "format": FORMAT,
        "fingerprint": manifest.fingerprint,
        "kind": manifest.kind,
        "outputs": outputs,
        "files": files,
    }
    return seal(json.dumps(value, indent=1, sort_keys=True))


def read_portable(text: bytes, fingerprint: str) -> Portable:
    """Read a manifest from elsewhere.

    Raises
    ------
    RefusedError
        If it is no manifest, that of another entry, or names what no entry may hold.
    """
    try:
        value = unseal(text)
        found = Portable(
            value["fingerprint"],
            value["kind"],
            {
                name: Output(each["type"], each["digest"], each["description"])
                for name, each in value["outputs"].items()
            },
            {name: Content(each["size"], each["sha256"]) for name, each in value["files"].items()},
        )
        is_whole = value["format"] == FORMAT and isinstance(found.kind, str) and _is_well_formed(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise RefusedError("its manifest cannot be read")
    if found.fingerprint != fingerprint:
        raise RefusedError("its manifest is that of another entry")
    _check_names(found)
    try:
        for output in found.outputs.values():
            check_form(output.type, output.description)
    except UnfitError as error:
        raise RefusedError(str(error)) from None
    return found


def _is_well_formed(found: Portable) -> bool:
    outputs = all(
        isinstance(each.type, str) and is_digest(each.digest) and isinstance(each.description, dict)
        for each in found.outputs.values()
    )
    return outputs and all(is_count(each.size) and is_digest(each.sha256) for each in found.files.values())


def _check_names(found: Portable) -> None:
    """Refuse every name that could lead out of the folder of an output, or stands in the way of another."""
    folders = {str(folder) for name in found.files for folder in PurePosixPath(name).parents}
    for name in found.files:
        parts = name.split("/")
        is_plain = all(part not in {".", ".."} and _NAME.fullmatch(part) for part in parts)
        is_inside = 2 <= len(parts) <= _DEEPEST and parts[0] in found.outputs
        if not is_plain or not is_inside or name in folders or not _has_room(name):
            shown = name if len(name) <= _LONGEST_PATH else f"{name[:_LONGEST]}..."
            message = f"its manifest names a file {shown!r}, which no entry may hold"
            raise RefusedError(message)


def _has_room(name: str) -> bool:
    """Tell whether a disk takes a path: its names have few enough bytes, and each character is one that has bytes."""
    try:
        sizes = [len(os.fsencode(part)) for part in name.split("/")]
    except UnicodeEncodeError:
        return False
    return max(sizes) <= _LONGEST and sum(sizes) <= _LONGEST_PATH
