"""Loss and metrics of each epoch, as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow.artifacts import Saved, digest_json

NAME = "history.json"


def save(value: Mapping[str, Sequence[float]], folder: Path) -> Saved:
    """Store the curves; each number becomes a float."""
    curves = {name: [float(number) for number in curve] for name, curve in value.items()}
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    return Saved(digest_json(curves), describe(curves))


def describe(curves: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return what is told of curves without reading them: how many epochs there are, and how the last one ended."""
    last = {name: curve[-1] for name, curve in curves.items() if curve}
    return {"name": NAME, "epochs": max(map(len, curves.values()), default=0), "last": last}


def load(description: Mapping[str, Any], folder: Path) -> dict[str, list[float]]:
    """Return the curves by name."""
    curves: dict[str, list[float]] = json.loads((folder / description["name"]).read_text(encoding="utf-8"))
    return curves
