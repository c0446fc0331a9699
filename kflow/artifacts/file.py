"""A file: moved into the store when a step made it, left where it lies when it is the user's own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import ExternalFile, Saved, digest_file, is_made_by_step


def save(value: Path, folder: Path) -> Saved:
    """Store a file; one outside the folder of the step is referred to, not copied."""
    digest = digest_file(value)
    real = Path(os.path.realpath(value))
    if is_made_by_step(value, folder):
        folder.mkdir(exist_ok=True)
        real.rename(folder / value.name)
        return Saved(digest, {"name": value.name})
    place = real if str(value).startswith(f"{folder.parent}{os.sep}") else value  # a link of the step's own goes
    return Saved(digest, {"path": str(place)}, (ExternalFile.of(place),))


def load(description: Mapping[str, Any], folder: Path) -> Path:
    """Return the path of the file."""
    return Path(description["path"]) if "path" in description else folder / description["name"]
