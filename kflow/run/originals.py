"""The files outside the store that a step rests on: its result counts only if each still is what was digested."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from kflow.artifacts import digest_file, file_outside
from kflow.plan.resolve import Link
from kflow.signature import State, state
from kflow.spec.base import input_paths
from kflow.spec.workflow import Step
from kflow.store.entry import Entry
from kflow.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Original:
    """A file whose content is in the fingerprint of a step, because it reads it or takes a view of it."""

    path: str
    digest: str
    known: State | None
    """Its state when it had this digest; None if only a stored result tells of the file: it is read before its use."""
    step: str | None = None
    """The step whose result refers to it; None for one that the step itself names."""

    def look_again(self) -> Self | None:
        """Return the file in the state that it has now; None if it does not hold what was digested any more."""
        try:
            now = state(self.path)
            may_be_same = self.known is None or now[0] == self.known[0]
            is_same = now == self.known or (may_be_same and self._holds_still(now))
        except OSError:
            is_same = False
        if not is_same:
            return None
        return self if now == self.known else replace(self, known=now)

    def _holds_still(self, now: State) -> bool:
        """Read the file: it may have been touched only, or nothing is known of it but size and time."""
        return digest_file(Path(self.path)) == self.digest and state(self.path) == now


def find_originals(
    step: Step, links: tuple[Link, ...], entries: Mapping[str, Entry], workspace: Workspace
) -> Iterator[Original]:
    """Yield the files that a step reads, and those that its inputs refer to, whichever step upstream named them."""
    for _, file in input_paths(step.texts):
        path = workspace.absolute(file)
        yield Original(path, workspace.file_digest(file), workspace.seen[path])
    for link in links:
        output = entries[link.step].manifest.outputs[link.output]
        outside = file_outside(output.type, output.description, output.digest)
        if outside:
            path, digest = outside
            yield Original(path, digest, workspace.seen.get(os.path.abspath(path)), link.step)  # noqa: PTH100
