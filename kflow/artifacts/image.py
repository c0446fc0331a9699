"""A picture file that a step drew."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_file, is_made_by_step


def save(value: Path, folder: Path) -> Saved:
    """Move the picture into the store; one that lies elsewhere is copied."""
    folder.mkdir(exist_ok=True)
    target = folder / value.name
    if is_made_by_step(value, folder) and not value.is_symlink():
        value.rename(target)
    else:
        shutil.copyfile(value, target)
    return Saved(digest_file(target), {"name": target.name})


def load(description: Mapping[str, Any], folder: Path) -> Path:
    """Return the path of the picture."""
    return folder / str(description["name"])
