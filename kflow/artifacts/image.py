"""A picture file that a step drew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_file


def save(value: Path, folder: Path) -> Saved:
    """Move the picture into the store."""
    folder.mkdir(exist_ok=True)
    target = folder / value.name
    value.rename(target)
    return Saved(digest_file(target), {"name": target.name})


def load(description: Mapping[str, Any], folder: Path) -> Path:
    """Return the path of the picture."""
    return folder / str(description["name"])
