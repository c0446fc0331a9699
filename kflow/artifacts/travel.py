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
from kflow.artifacts.forms import FORMS, are_curves, has_form


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
    check_form(value.type, value.description)
    match value.type:
        case "array" if "source" in value.description:
            return _settle_view(value, home)
        case "file" if not value.description:
            path = _find(home, value.digest)
            return {"path": str(path)}, path
        case "array":
            _require(value.description["content"] == value.digest, value)
            _require_one_file(value)
            _check_rows(value)
        case "file" | "image" | "model":
            _require_one_file(value)
        case "history":
            _check_curves(value)
        case "metrics":
            _require(digest_json(value.description["metrics"]) == value.digest, value)
        case "objects":
            _check_code(value, home)
        case other:
            raise AssertionError(other)  # whatever has a form is checked above
    return dict(value.description), None


def check_form(type_name: str, description: Mapping[str, Any]) -> None:
    """Make sure that a description that came from elsewhere, without paths, is one that a value of its type may have.

    Raises
    ------
    UnfitError
        If it is not, or the type is not known.
    """
    if type_name not in FORMS:
        message = f"this version of kflow knows no values of type {type_name[:40]!r}"
        raise UnfitError(message)
    if not has_form(type_name, description, is_portable=True):
        message = f"its {type_name} is described as no {type_name} can be"
        raise UnfitError(message)


def _settle_view(value: Arrival, home: Home) -> tuple[dict[str, Any], Path | None]:
    source = value.description["source"]
    _require(digest_json(value.description) == value.digest and not value.files, value)
    path = _find(home, source["content"])
    return {**value.description, "source": {**source, "path": str(path)}}, path


def _check_code(value: Arrival, home: Home) -> None:
    """Make sure that code which came is this machine's own: what is run never comes from elsewhere."""
    objects, libraries = value.description["objects"], value.description["libraries"]
    _require(digest_json([objects, value.files, libraries]) == value.digest, value)
    _require(all(module in value.files for module, _ in objects.values()), value)
    if not set(value.files.values()) <= set(home.code):
        message = "it holds code that is not that of this workflow"
        raise UnfitError(message)


def _check_rows(value: Arrival) -> None:
    """Make sure that a file of rows can be opened, and holds as many and such numbers as its description says."""
    from kflow.artifacts import array

    try:
        raw = array.load(value.description, value.folder).raw
        shape, dtype = list(raw.shape), raw.dtype
    except Exception:  # noqa: BLE001  whatever NumPy makes of a file that nobody has written with it
        message = "its array is no file of rows"
        raise UnfitError(message) from None
    # The types that NumPy itself does not have, such as bfloat16, are raw bytes in a file.
    _require_described(shape == value.description["shape"], value)
    _require_described(str(dtype) == value.description["dtype"] or dtype.kind == "V", value)


def _check_curves(value: Arrival) -> None:
    from kflow.artifacts.history import describe

    _require(set(value.files) == {value.description["name"]}, value)
    curves = json.loads((value.folder / value.description["name"]).read_bytes())
    _require(are_curves(curves) and digest_json(curves) == value.digest, value)
    # As texts, for a NaN is not equal to itself.
    _require_described(digest_json(value.description) == digest_json(describe(curves)), value)


def _require_one_file(value: Arrival) -> None:
    _require(value.files == {value.description["name"]: value.digest}, value)


def _require_described(is_so: bool, value: Arrival) -> None:
    if not is_so:
        message = f"its {value.type} is not what its description says"
        raise UnfitError(message)


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
