"""The lock of a workflow: what its steps were made of and what came of them, small enough for git.

``kflow lock`` writes it beside the workflow; ``kflow run --locked`` fails where reality differs from it.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import durable
from kflow.composer import Limits
from kflow.document import dump_document, load_document
from kflow.errors import PromiseError, UsageError, listed
from kflow.plan.fingerprint import canonical_json, differences
from kflow.plan.planner import Action, Verdict
from kflow.store.entry import Entry
from kflow.syntax import IN_BLOCKS_ONLY

FORMAT = 1
_LIMITS = Limits(64, 3_200_000, "divide the workflow, so that its locks are smaller")
"""Sixteen times those of a workflow: of each step a lock says more than the workflow does."""
_PARTS = ("fields", "inputs", "files", "code", "libraries", "environ")
"""The components that have names within."""
_HEAD = "What {name} gave; 'kflow lock' writes this file and 'kflow run --locked' compares with it."


class LockError(PromiseError):
    """Reality differs from the lock."""


@dataclass(frozen=True, slots=True)
class Lock:
    """What a workflow was made of and what came of it, step by step."""

    workflow: str
    steps: Mapping[str, Mapping[str, Any]]

    def check_action(self, action: Action) -> list[str]:
        """Say how a step differs from what was locked, before it is run; nothing while it waits for others."""
        locked = self.steps.get(action.step)
        if locked is None:
            return [f"step {action.step!r} is not in the lock"]
        if action.fingerprint is None:
            return []
        changes = "; ".join(differences(locked["components"], condense(action.components or {})))
        if action.fingerprint != locked["fingerprint"]:
            return [f"step {action.step!r}: {changes or 'its fingerprint is another'}"]
        if canonical_json(locked["components"]) == canonical_json(condense(action.components or {})):
            return []
        by_hand = "the lock was changed by hand or by a merge, and 'kflow lock' writes it anew"
        return [f"step {action.step!r}: {changes or 'other words'}, and the same fingerprint: {by_hand}"]

    def check_outputs(self, step: str, digests: Mapping[str, str], metrics: Mapping[str, float]) -> list[str]:
        """Say which outputs and metrics of a step are others than what was locked."""
        if step not in self.steps:
            return []
        outputs, numbers = self.steps[step]["outputs"], self.steps[step].get("metrics", {})
        misses = [
            f"output {step}.{name} is {_brief(digests.get(name))}, and {_brief(outputs.get(name))} was locked"
            for name in {**outputs, **digests}
            if outputs.get(name) != digests.get(name)
        ]
        return misses + [
            f"metric {step}.{name} is {metrics.get(name, 'nothing')}, and {numbers.get(name, 'nothing')} was locked"
            for name in {**numbers, **metrics}
            if repr(numbers.get(name)) != repr(metrics.get(name))  # as NaN is not equal to itself
        ]

    def refuse(self, misses: list[str]) -> LockError:
        """Return the error that ends a run which differs."""
        return LockError("; ".join(misses) + " (--locked)")

    def check_names(self, steps: Mapping[str, Any]) -> list[str]:
        """Say which locked steps are gone."""
        return [
            f"step {name!r} is in the lock and no longer in the workflow" for name in self.steps if name not in steps
        ]


def lock_path(workflow: Path) -> Path:
    """Return where the lock of a workflow file lies.

    Examples
    --------
    >>> lock_path(Path("a/digits.yaml")).name
    'digits.lock.yaml'
    """
    return workflow.with_suffix(".lock.yaml")


def own_lock_path(workflow: Path) -> Path:
    """Return where the lock of a workflow file lies, if it is that of no other one.

    Raises
    ------
    UsageError
        If a file beside it has the same name up to the ending.
    """
    path = lock_path(workflow)
    for twin in {workflow.with_suffix(each) for each in (".yaml", ".yml")} - {workflow}:
        if workflow.suffix in {".yaml", ".yml"} and twin.is_file():
            message = f"{path} would be the lock of {twin.name} as well as of {workflow.name}; rename one of them"
            raise UsageError(message)
    return path


def require_free(path: Path) -> None:
    """Make sure that a lock would take the place of nothing, or of an older lock.

    Raises
    ------
    UsageError
        If a file is there that holds something else.
    """
    with contextlib.suppress(FileNotFoundError):
        data = b"a folder" if path.is_dir() else durable.read_bytes(path)
        if data.strip() and not re.search(rb"^kflow-lock:", data, re.MULTILINE):
            message = f"{path} is no lock, and would be gone; rename it, or the workflow"
            raise UsageError(message)


def condense(components: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten what a fingerprint is made of: scalars stay, all else becomes the start of a digest.

    Examples
    --------
    >>> condense({"kind": "train", "fields": {"epochs": 5, "layers": [1, 2]}})
    {'kind': 'train', 'fields': {'epochs': 5, 'layers': '~49a64717'}}
    """
    return {part: _condense_part(part, value) for part, value in components.items() if value != {}}


def _condense_part(part: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if part in {"fields", "libraries"}:
        return {name: each if _is_short(each) else _digest(each) for name, each in value.items()}
    return {name: f"~{each[:12]}" for name, each in value.items()}


def _brief(digest: object) -> str:
    return "nothing" if digest is None else str(digest)[:12]


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 40 and not re.search(IN_BLOCKS_ONLY, value)
    return value is None or isinstance(value, bool | int | float)


def _digest(value: Any) -> str:
    return "~" + hashlib.sha256(canonical_json(value).encode()).hexdigest()[:8]


def make_lock(name: str, actions: list[Action]) -> Lock:
    """Lock what is in the store.

    Raises
    ------
    UsageError
        If a step has not been run.
    """
    undone = [action.step for action in actions if action.verdict is not Verdict.REUSE]
    if undone:
        message = f"{listed(undone)}: no result in the store yet; 'kflow run' makes what can then be locked"
        raise UsageError(message)
    return Lock(name, {action.step: dict(_describe(action)) for action in actions})


def _describe(action: Action) -> Iterator[tuple[str, Any]]:
    assert isinstance(action.entry, Entry), "the verdict is to reuse"
    yield "fingerprint", action.fingerprint
    yield "outputs", dict(action.entry.digests)
    if action.entry.metrics:
        yield "metrics", action.entry.metrics
    yield "components", condense(action.components or {})


def write_lock(lock: Lock, path: Path) -> None:
    """Put a lock in place in one step; a link there stays, and what it leads to is written."""
    steps: dict[str, Any] = {name: dict(each) for name, each in lock.steps.items()}
    value: dict[str, Any] = {"kflow-lock": FORMAT, "workflow": lock.workflow, "steps": steps}
    durable.write_text(path.resolve(), dump_document(value, _HEAD.format(name=lock.workflow)))


def read_lock(path: Path) -> Lock:
    """Read a lock.

    Raises
    ------
    UsageError
        If there is none, or it is not one.
    """
    if not path.exists():
        message = f"there is no {path}; 'kflow lock' writes it"
        raise UsageError(message)
    is_empty = path.is_file() and not path.read_bytes().strip()
    value = {} if is_empty else load_document(path, _LIMITS).value
    steps = value.get("steps")
    if value.get("kflow-lock") != FORMAT or not isinstance(steps, dict) or not all(map(_is_step, steps.values())):
        message = f"{path} is no lock of this version of kflow; 'kflow lock' writes it anew"
        raise UsageError(message)
    return Lock(
        str(value.get("workflow")), {name: dict(each) for name, each in steps.items() if isinstance(each, dict)}
    )


def _is_step(value: object) -> bool:
    wanted = {"fingerprint": str, "outputs": dict, "components": dict}
    if not isinstance(value, dict) or not isinstance(value.get("metrics", {}), dict):
        return False
    if not all(isinstance(value.get(name), kind) for name, kind in wanted.items()):
        return False
    return all(isinstance(value["components"].get(part, {}), dict) for part in _PARTS)
