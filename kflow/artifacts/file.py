"""A file: moved into the store when a step made it, left where it lies when it is the user's own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import ExternalFile, Saved, digest_file


def save(value: Path, folder: Path) -> Saved:
    """Store a file; one outside the folder of the step is referred to, not copied."""
    digest = digest_file(value)
    if str(value).startswith(f"{folder.parent}{os.sep}"):
        folder.mkdir(exist_ok=True)
        value.rename(folder / value.name)
        return Saved(digest, {"name": value.name})
    external = ExternalFile.of(value)
    return Saved(digest, {"path": str(value)}, (external,))


def load(description: Mapping[str, Any], folder: Path) -> Path:
    """Return the path of the file."""
    return Path(description["path"]) if "path" in description else folder / description["name"]
