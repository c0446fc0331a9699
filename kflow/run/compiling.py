"""Compiling a command that left nothing to do: what it looked at, and what it would tell when it is given again."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import durable
from kflow.plan.planner import Action, Verdict
from kflow.plan.resolve import Bound
from kflow.run import compiled, events
from kflow.run.outcomes import ended
from kflow.run.record import RunRecord, StepRecord
from kflow.run.state import Run
from kflow.signature import ABSENT, State, is_settled, state
from kflow.spec.base import input_paths
from kflow.spec.types import OutputPath
from kflow.store.entry import MANIFEST, Entry
from kflow.store.store import Store
from kflow.workspace import COMPUTING, Workspace

Render = Callable[[Sequence[events.Event]], str]
_STAND_IN = "5d41402abc4b2a76b9719d911017c592"
"""The id of a run that is still to come."""


class _DoubtError(Exception):
    """Something may have changed since it was read."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a command was about."""

    file: Path
    bound: Bound
    workspace: Workspace
    store: Store
    installed: list[list[str]]
    """What `compiled.installed` gave when the command began."""


def compile_plan(scene: Scene, actions: Sequence[Action], told: str) -> None:
    """Compile ``kflow plan`` where every verdict is to reuse; nothing is told where that cannot be done."""
    entries = [action.entry for action in actions if isinstance(action.entry, Entry)]
    if all(action.verdict is Verdict.REUSE for action in actions) and len(entries) == len(actions):
        _compile(scene, entries, {"told": told + "\n", "record": None})


def compile_run(scene: Scene, run: Run, render: Render) -> None:
    """Compile ``kflow run`` after one that succeeded: given again it finds every result in the store."""
    if run.wishes.is_forced or run.wishes.lock is not None or not run.wishes.exports:
        return
    record, text = _next_record(run.record)
    place = {name: number for number, name in enumerate(run.bound.order)}
    files = {name: run.files[name] for name in sorted(run.files, key=lambda name: place[name.partition(".")[0]])}
    told: list[events.Event] = [
        events.RunStarted(_STAND_IN, record.workflow.path, run.bound.order),
        *(events.StepReused(name, step.kind) for name, step in record.steps.items() if step.status == "reused"),
        ended(record, files, run.folder.with_name(_STAND_IN) / "record.json"),
    ]
    named = f"\n{record.workflow.name} succeeded in "
    shown = render(told).replace(_STAND_IN, compiled.RUN_ID).replace(f"{named}0.0 s", f"{named}{compiled.DURATION}", 1)
    entries = list(run.entries.values())
    more = {"workflow": record.workflow.name, "root": str(run.workspace.root)}
    _compile(scene, entries, {"told": shown, "record": text, **more})


def _next_record(record: RunRecord) -> tuple[RunRecord, str]:
    """Return the record of the next run, in which all is reused, and that part of its text which stays the same."""
    steps = {name: _reused(step) for name, step in record.steps.items()}
    metrics = {name: record.metrics[name] for name in record.steps if name in record.metrics}
    changes = {"steps": steps, "metrics": metrics, "git": None, "duration": 0.0}
    following = record.model_copy(update=changes)
    text = following.model_dump_json(indent=1)
    start, end = text.index('\n "workflow": '), text.rindex("null\n}")
    return following, text[start:end]


def _reused(step: StepRecord) -> StepRecord:
    if step.status not in {"run", "reused"}:
        return step
    changes = {"status": "reused", "verdict": "reuse", "reason": "unchanged", "duration": None, "log": None}
    return step.model_copy(update=changes)


def _compile(scene: Scene, entries: Iterable[Entry], outcome: Mapping[str, Any]) -> None:
    """Write down what was looked at, with the outcome; where there is a doubt, or no place, nothing."""
    arguments = sys.argv[1:]
    if arguments[:1] not in (["plan"], ["run"]) or compiled.installed() != scene.installed:  # a library's call, say
        return
    with contextlib.suppress(_DoubtError, OSError):
        here = os.getcwd() + os.sep  # noqa: PTH109
        watched = dict(_look_again(scene))
        folders = list(dict.fromkeys(entry.place for entry in entries))
        manifests = [_require(state(f"{folder}/{MANIFEST}")) for folder in folders]
        for entry in entries:
            watched |= _contents(entry)
            _require_same(entry)
        value = {
            "store": str(scene.store.root),
            "installed": scene.installed,
            "environ": _unset() | dict(_variables(scene.bound, scene.workspace)),
            "folders": [compiled.identify(os.path.dirname(path)) for path in _outputs(scene)],  # noqa: PTH120
            "entries": [folder.removeprefix(here) for folder in folders],
            "files": [path.removeprefix(here) for path in watched],
            "states": [number for each in [*manifests, *watched.values()] for number in each],
            **outcome,
        }
        compiled.write(str(scene.store.root), compiled.identity(arguments), value)


def _require_same(entry: Entry) -> None:
    """Make sure that an entry is what it was: another run may have replaced it by one with other bytes."""
    data = durable.read_bytes(f"{entry.place}/{MANIFEST}")
    if not all(digest.encode() in data for digest in entry.digests.values()):
        raise _DoubtError


def _look_again(scene: Scene) -> Iterator[tuple[str, State]]:
    """Yield the state of everything that was read: what it was before, and too old to have changed unnoticed."""
    seen = dict(scene.workspace.seen)
    for path in [*_named(scene), *_outputs(scene), os.path.realpath(sys.executable), *_modules()]:
        seen.setdefault(path, state(path))
    for path, before in seen.items():
        now = state(path)
        if now != before or (now != ABSENT and not is_settled(now, compiled.BEGAN)):
            raise _DoubtError
        yield path, now


def _named(scene: Scene) -> Iterator[str]:
    yield os.path.abspath(scene.file)  # noqa: PTH100
    for step in scene.bound.workflow.steps.values():
        yield from (str(scene.workspace.resolve(file)) for _, file in input_paths(step.texts))


def _outputs(scene: Scene) -> list[str]:
    return [
        str(scene.workspace.resolve(text))
        for step in scene.bound.workflow.steps.values()
        for _, text in step.texts
        if isinstance(text, OutputPath)
    ]


def _modules() -> Iterator[str]:
    """Yield the files of what has been imported, but for Python's own: kflow, step kinds, and what they need."""
    own = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and (not file.startswith(own) or "site-packages" in file):
            yield file


def _contents(entry: Entry) -> dict[str, State]:
    """Return the state of the files of an entry, and of those that it refers to."""
    found = {}
    for name, content in entry.manifest.files.items():
        path = f"{entry.place}/{name}"
        found[path] = _require(state(path), content.size)
    for each in entry.manifest.external:
        found[each.path] = _require(state(each.path), each.size)
        if found[each.path][1] != each.mtime_ns:
            raise _DoubtError
    return found


def _require(found: State, size: int | None = None) -> State:
    if found == ABSENT or size not in {None, found[0]}:
        raise _DoubtError
    return found


def _unset() -> dict[str, str | None]:
    """Return the variables that would change what a library computes, and are not set."""
    return dict.fromkeys(name for names in COMPUTING.values() for name in names)


def _variables(bound: Bound, around: Workspace) -> Iterator[tuple[str, str]]:
    """Yield the environment variables that the steps use, each as the digest of its value."""
    for step in bound.workflow.steps.values():
        for name, value in {**around.variables(tuple(COMPUTING)), **step.variables}.items():
            yield name, hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
