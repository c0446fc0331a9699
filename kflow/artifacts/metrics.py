"""Named numbers, as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_json

NAME = "metrics.json"


def save(value: Mapping[str, float], folder: Path) -> Saved:
    """Store the numbers; each becomes a float."""
    numbers = {name: float(number) for name, number in value.items()}
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return Saved(digest_json(numbers), {"metrics": numbers})


def load(description: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Return the numbers by name."""
    del folder
    return dict(description["metrics"])
