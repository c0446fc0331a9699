"""What the thread of a step, its worker and the remote are told of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from kflow.plan.planner import Action
from kflow.run.crew import Job
from kflow.run.originals import find_originals
from kflow.run.sharing import expect
from kflow.run.state import Run, is_selected
from kflow.spec.base import input_paths, modules
from kflow.store.entry import Entry, Output
from kflow.store.remote import Expected


def make_job(run: Run, action: Action, gpus: int) -> Job:
    """Return a step that is to be run, with all that its thread needs to know."""
    assert action.fingerprint is not None, "every input is known here"
    step, links = run.bound.workflow.steps[action.step], run.bound.links[action.step]
    inputs = {link.step: run.entries[link.step] for link in links}
    return Job(
        action.step,
        step.spec,
        action.fingerprint,
        _task(run, action, gpus),
        gpus,
        inputs,
        tuple(find_originals(step, links, inputs, run.workspace)),
        step.threads or step.spec.resources.cpus,
        step.runs_code,
        action.is_forced,
        _expected(run, action, inputs),
        is_selected(run, action.step),
    )


def _task(run: Run, action: Action, gpus: int) -> dict[str, Any]:
    """Say all that a worker must know, but for the place to write to."""
    name, step = action.step, run.bound.workflow.steps[action.step]
    sources = {module: run.workspace.sources(module) for module in modules(step.texts)}
    return {
        "kind": step.spec.kind,
        "root": str(run.workspace.root),
        "log": f"{run.folder}/logs/{name}.log",
        "echo": run.wishes.shows_output,
        "seed": run.bound.workflow.seed,
        "gpus": gpus,
        "artifacts": _inputs(run, name),
        "sources": sources,
        # Not by the names in the components, which are those of variables where such say where the code lies.
        "code": {path: text for module in sources for path, text in run.workspace.code_digests(module).items()},
        "libraries": _libraries(run, action),
    }


def _inputs(run: Run, name: str) -> dict[str, Any]:
    found = {}
    for link in run.bound.links[name]:
        entry = run.entries[link.step]
        output = entry.manifest.outputs[link.output]
        found[link.text] = {
            "type": output.type,
            "description": output.description,
            "folder": f"{entry.place}/{link.output}",
        }
    return found


def _libraries(run: Run, action: Action) -> dict[str, str]:
    """Return the versions of the libraries of the code that a step may execute: its own, and its custom objects'."""
    found = dict((action.components or {}).get("libraries", {}))
    for output in _custom_objects(run, action.step):
        found |= output.description.get("libraries", {})
    return found


def _custom_objects(run: Run, name: str) -> Iterator[Output]:
    """Yield the custom objects that a step takes."""
    for link in run.bound.links[name]:
        output = run.entries[link.step].manifest.outputs[link.output]
        if output.type == "objects":
            yield output


def _expected(run: Run, action: Action, inputs: Mapping[str, Entry]) -> Expected | None:
    """Say what the remote is asked for; nothing for a step that is to be run in any case."""
    if run.crew.sharing is None or action.is_forced:
        return None
    assert action.fingerprint is not None, "every input is known here"
    step, around = run.bound.workflow.steps[action.step], run.workspace
    files = {around.file_digest(path): around.resolve(path) for _, path in input_paths(step.texts)}
    return expect(step.spec, action.fingerprint, action.components or {}, files, inputs)
