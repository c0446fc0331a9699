"""The history of a workflow: its runs in a store, and what they tell of its steps."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from kflow import durable
from kflow.run.record import RECORD, RunRecord, is_same_place, read_record, run_folders

_BEGINNING = 4096
"""Bytes of a record that name its workflow, if the path is none of the longest."""


def read_history(root: Path, place: str) -> Iterator[RunRecord]:
    """Yield the records of the workflow at an absolute path, newest first; what cannot be read is left out."""
    for folder in run_folders(root):
        if _may_be_of(folder, place):
            record = read_record(folder)
            if record and record.workflow.is_at(place):
                yield record


def _may_be_of(folder: Path, place: str) -> bool:
    """Tell by the beginning of a record whether it may be one of the workflow at an absolute path.

    To take a whole one apart may take a hundred times as long, and those of other workflows may be many.
    """
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # then the whole of it tells
        head = from_json(durable.read_bytes(folder / RECORD, _BEGINNING), allow_partial=True)
        return is_same_place(head["workflow"]["file"], place)
    return True


@dataclass(frozen=True, slots=True)
class Previous:
    """What the last runs of a workflow tell of its steps."""

    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the fingerprint of each step was made of when it was last done."""
    unfinished: Mapping[str, str] = field(default_factory=dict)
    """How the last try of a step ended: failed or interrupted."""


def read_previous(root: Path, place: str, steps: Collection[str], limit: int = 20) -> Previous:
    """Return what the last runs of the workflow at an absolute path tell of its steps."""
    done: dict[str, Mapping[str, Any]] = {}
    unfinished: dict[str, str] = {}
    for record in islice(read_history(root, place), limit):
        for name, step in record.steps.items():
            if step.components and step.status in {"run", "reused"}:
                done.setdefault(name, step.components)
            elif step.status in {"failed", "interrupted"} and name not in done:
                unfinished.setdefault(name, step.status)
        if done.keys() >= set(steps):
            break
    return Previous(done, unfinished)
