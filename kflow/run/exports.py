"""The files that a user asked for by path: copies of stored results, put in place by a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kflow import durable
from kflow.artifacts import digest_file
from kflow.spec.base import StepSpec
from kflow.store.entry import Entry
from kflow.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Export:
    """A stored file, and where the user wants to have it."""

    output: str
    text: str
    """The path, as the workflow has it."""
    source: Path
    target: Path

    def is_in_place(self) -> bool:
        """Tell whether the file is there with the bytes that are stored."""
        there = self.target.is_file() and self.target.stat().st_size == self.source.stat().st_size
        return there and digest_file(self.target) == digest_file(self.source)

    def put_in_place(self) -> None:
        """Copy the file in one step, unless it is there.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        if not self.is_in_place():
            durable.copy_file(self.source, self.target)


def find_exports(spec: StepSpec, entry: Entry, workspace: Workspace) -> Iterator[Export]:
    """Yield the files of a result that the user asked for by path."""
    for output, text in spec.exports().items():
        source = entry.folder / output / str(entry.manifest.outputs[output].description["name"])
        target = workspace.resolve(text)
        workspace.note(target)
        yield Export(output, text, source, target)
