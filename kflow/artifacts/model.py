"""A Keras model, as a ``.keras`` file whose bytes depend on nothing but the model.

Keras itself writes the date, memory addresses (``shared_object_id``) and zip times into the file, so that no
two are the same; here these are replaced by constants.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_file

NAME = "model.keras"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def save(value: Any, folder: Path) -> Saved:
    """Store a model with weights, optimizer and losses."""
    folder.mkdir(exist_ok=True)
    path = folder / NAME
    write_model(value, path)
    return Saved(digest_file(path), {"name": NAME, "parameters": int(value.count_params()) if value.built else None})


def load(description: Mapping[str, Any], folder: Path) -> Any:
    """Open a model in the scope of the custom objects around the call; code inside the file is never run."""
    return read_model(folder / description["name"])


def read_model(path: Path) -> Any:
    """Open a ``.keras`` file.

    Raises
    ------
    ValueError
        If the file is no whole ``.keras`` file, or names a class that is neither Keras's nor in scope.
    """
    import keras

    if not zipfile.is_zipfile(path):
        message = f"{path} is not a whole .keras file"
        raise ValueError(message)
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except (TypeError, ValueError) as error:
        missing = _unknown_names(path)
        if not missing:
            raise
        message = f"the model uses {', '.join(missing)}, which this step does not know; take them with 'objects:'"
        raise ValueError(message) from error


def _unknown_names(path: Path) -> list[str]:
    """Return the classes and functions in a ``.keras`` file that are neither Keras's nor in scope."""
    from kflow.core.objects import get_custom_objects

    with zipfile.ZipFile(path) as file:
        config = json.loads(file.read("config.json"))
    known = get_custom_objects()
    found: dict[str, None] = {}
    nests = [config]
    while nests:
        nest = nests.pop()
        nests.extend(nest.values() if isinstance(nest, dict) else nest if isinstance(nest, list) else ())
        if isinstance(nest, dict) and nest.get("registered_name"):
            is_function = nest.get("class_name") == "function"
            name = nest.get("config") if is_function else nest.get("class_name")
            if nest["registered_name"] not in known and name not in known and nest.get("class_name") != "__lambda__":
                found.setdefault(str(name))
    return sorted(found)


def write_model(model: Any, path: Path) -> None:
    """Write a model as a ``.keras`` file that is the same for the same model."""
    draft = path.with_name(".draft.keras")  # no longer than any name that the user may have given
    model.save(draft)
    with zipfile.ZipFile(draft) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            content = _without_chance(name, source.read(name))
            target.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
    draft.unlink()


def _without_chance(name: str, content: bytes) -> bytes:
    if name == "metadata.json":
        metadata = json.loads(content)
        metadata["date_saved"] = "1980-01-01@00:00:00"
        return json.dumps(metadata, sort_keys=True).encode()
    if name == "config.json":
        return json.dumps(_renumber(json.loads(content), {})).encode()
    return content


def _renumber(value: Any, numbers: dict[int, int]) -> Any:
    """Replace each ``shared_object_id`` by its place in the order of appearance."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(item, len(numbers)) if key == "shared_object_id" else _renumber(item, numbers)
            for key, item in value.items()
        }
    return [_renumber(item, numbers) for item in value] if isinstance(value, list) else value
