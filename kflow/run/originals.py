"""Which files outside the store a step rests on."""

import os
from collections.abc import Iterator, Mapping

from kflow.artifacts import file_outside
from kflow.plan.resolve import Link
from kflow.run.given import Original
from kflow.spec.base import input_paths
from kflow.spec.workflow import Step
from kflow.store.entry import Entry
from kflow.workspace import Workspace


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
