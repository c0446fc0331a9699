"""What of a stored value means something on another machine, and whether what came from one is what it says.

Paths stay at home: a value that refers to a file outside says only the digest of that file, and finds it again among
the files of the step that it comes to. The digest of a value is worked out anew from what came, for every type.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow.artifacts import digest_json


class UnfitError(ValueError):
    """A value that came from elsewhere is not what it says."""


class NotHereError(LookupError):
    """A value refers to a file that this machine does not have."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A value that came from elsewhere: its type, digest and description, and the files that came with it."""

    type: str
    digest: str
    description: Mapping[str, Any]
    folder: Path
    files: Mapping[str, str]
    """The SHA-256 of each file below the folder, by its path there; they were checked."""


@dataclass(frozen=True, slots=True)
class Home:
    """What this machine has for a value that comes: files by their digest, and the digests of the user's code."""

    find: Callable[[str], Path | None]
    code: Collection[str] = ()


def without_paths(type_name: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a value without the paths of this machine."""
    found = dict(description)
    if type_name == "file":
        found.pop("path", None)
    elif type_name == "array" and "source" in found:
        found["source"] = {key: value for key, value in found["source"].items() if key != "path"}
    return found


def settle(value: Arrival, home: Home) -> tuple[dict[str, Any], Path | None]:
    """Check a value that came from elsewhere, and make it one of this machine.

    Parameters
    ----------
    value : Arrival
        The value, with its files in place.
    home : Home
        What this machine has.

    Returns
    -------
    dict
        The description with the paths of this machine.
    Path or None
        The file outside that the value refers to.

    Raises
    ------
    UnfitError
        If it is not what it says; the message says why.
    NotHereError
        If it refers to a file that is not here.
    """
    match value.type:
        case "array" if "source" in value.description:
            return _settle_view(value, home)
        case "file" if not value.description:
            path = _find(home, value.digest)
            return {"path": str(path)}, path
        case "array":
            _require_keys(value, {"name", "content", "shape", "dtype"})
            _require(value.description["content"] == value.digest, value)
            _require_one_file(value)
        case "file" | "image" | "model":
            _require_keys(value, {"name", "parameters"} if value.type == "model" else {"name"})
            _require_one_file(value)
        case "history":
            _require_keys(value, {"name", "epochs", "last"})
            _require(set(value.files) == {value.description["name"]}, value)
            curves = json.loads((value.folder / value.description["name"]).read_bytes())
            _require(digest_json(curves) == value.digest, value)
        case "metrics":
            _require_keys(value, {"metrics"})
            _require(digest_json(value.description["metrics"]) == value.digest, value)
        case "objects":
            _check_code(value, home)
        case other:
            message = f"this version of kflow knows no values of type {other!r}"
            raise UnfitError(message)
    return dict(value.description), None


def _settle_view(value: Arrival, home: Home) -> tuple[dict[str, Any], Path | None]:
    _require_keys(value, {"source", "operations", "shape", "dtype"})
    source = value.description["source"]
    _require(isinstance(source, dict) and source.keys() == {"content", "dataset", "start", "end"}, value)
    _require(digest_json(value.description) == value.digest and not value.files, value)
    path = _find(home, source["content"])
    return {**value.description, "source": {**source, "path": str(path)}}, path


def _check_code(value: Arrival, home: Home) -> None:
    """Make sure that code which came is this machine's own: what is run never comes from elsewhere."""
    _require_keys(value, {"objects", "libraries"})
    objects, libraries = value.description["objects"], value.description["libraries"]
    _require(isinstance(objects, dict) and digest_json([objects, value.files, libraries]) == value.digest, value)
    for module, symbol in objects.values():
        _require(module in value.files and isinstance(symbol, str), value)
    if not set(value.files.values()) <= set(home.code):
        message = "it holds code that is not that of this workflow"
        raise UnfitError(message)


def _require_one_file(value: Arrival) -> None:
    _require(value.files == {value.description["name"]: value.digest}, value)


def _require_keys(value: Arrival, keys: Collection[str]) -> None:
    _require(value.description.keys() == set(keys), value)


def _require(is_so: bool, value: Arrival) -> None:
    if not is_so:
        message = f"its {value.type} is not what its digest says"
        raise UnfitError(message)


def _find(home: Home, digest: str) -> Path:
    path = home.find(digest)
    if path is None:
        message = f"the file sha256:{digest} that it refers to is not here"
        raise NotHereError(message)
    return path
