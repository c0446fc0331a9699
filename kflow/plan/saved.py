"""A plan in a file: what would be run, and all that this rests on, so that exactly this is run later or nothing.

The text is JSON, the same for the same plan, and made to be read; the digest at its end shows whether it is whole.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kflow.errors import PromiseError, UsageError
from kflow.plan.fingerprint import canonical_json, differences
from kflow.plan.planner import Action, Planner

FORMAT = 1
_KEY = "kflow-plan"
_SUM = "digest"


class PlanChangedError(PromiseError):
    """What was planned is not what would be run now."""


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What was planned: of which file, with which wishes, and for each step the verdict and what it rests on."""

    workflow: str
    """The path of the file; a relative one starts at the folder of the plan."""
    sha256: str
    overrides: list[str]
    choice: Mapping[str, Any]
    seed: int
    params: Mapping[str, Any]
    versions: Mapping[str, str]
    steps: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> str:
        """Return the text of the plan."""
        value = asdict(self)
        text = json.dumps({_KEY: FORMAT, **value, _SUM: _digest(value)}, indent=1, ensure_ascii=False) + "\n"
        # Bytes of a path that are no UTF-8 are half characters in Python, and this is how JSON writes those.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    def find_changes(self, other: "SavedPlan") -> list[str]:
        """Say in words how what would be run now, `other`, is not what was planned; nothing where it is the same."""
        found = [f"{name}: {one} -> {two}" for name, one, two in _pairs(self.versions, other.versions)]
        if self.sha256 != other.sha256:
            found.append(f"the file {self.workflow} was changed")
        found += [f"param {name}: {one} -> {two}" for name, one, two in _pairs(self.params, other.params)]
        if self.seed != other.seed:
            found.append(f"seed: {self.seed} -> {other.seed}")
        found += [f"step {name!r} is new" for name in other.steps if name not in self.steps]
        for name, step in self.steps.items():
            found += _compare(name, step, other.steps[name]) if name in other.steps else [f"step {name!r} is gone"]
        return found

    def find_done(self, other: "SavedPlan") -> list[str]:
        """Return the steps that were to be run, perhaps after others, and whose results are there now, in `other`."""
        return [
            name
            for name, step in self.steps.items()
            if step["action"] != "reuse" and name in other.steps and other.steps[name]["action"] == "reuse"
        ]

    def check_action(self, action: Action) -> list[str]:
        """Say how a step, now that its turn has come, is not what was planned."""
        step = self.steps.get(action.step)
        if step is None or action.fingerprint == step["fingerprint"]:
            return []
        changes = differences(*_comparable(step["components"], action.components or {"inputs": {}}))
        return [f"step {action.step!r}: {'; '.join(changes)}, since it was planned"] if changes else []

    def refuse(self, misses: list[str]) -> PlanChangedError:
        """Return the error that ends a run which differs."""
        return PlanChangedError("; ".join(misses) + "; plan anew")

    def check_outputs(self, step: str, digests: Mapping[str, str], metrics: Mapping[str, float]) -> list[str]:
        """Nothing is promised of what has not been made."""
        del step, digests, metrics
        return []


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


_NOW = {
    ("reuse", "run"): "was to be reused, and would be run now ({reason})",
    ("run", "wait"): "was to be run, and {reason} now",
    ("reuse", "wait"): "was to be reused, and {reason} now",
}
"""How a plan is not kept. It is where a step is further than it was: an earlier run of the plan has come so far."""


def _compare(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    is_same = old["fingerprint"] is not None and old["fingerprint"] == new["fingerprint"]
    changes = [] if is_same else differences(*_comparable(old["components"], new["components"]))
    if changes:
        yield f"step {name!r}: {'; '.join(changes)}"
    elif (old["action"], new["action"]) in _NOW:
        change = _NOW[old["action"], new["action"]].format(reason=new["reason"])
        was_elsewhere = "in the remote" in str(old["reason"])
        yield f"step {name!r} {change}{'; the plan counts on a remote: name it with --remote' if was_elsewhere else ''}"
    elif old["action"] == "reuse" and old["outputs"] != new["outputs"]:
        yield f"the stored result of step {name!r} is another"


def _comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave out the inputs that are still to come on one side: the step that makes them tells more."""
    inputs = old["inputs"], new["inputs"]
    open_ones = {name for each in inputs for name, digest in each.items() if digest is None}
    one, two = ({name: digest for name, digest in each.items() if name not in open_ones} for each in inputs)
    return {**old, "inputs": one}, {**new, "inputs": two}


def describe_steps(planner: Planner, actions: Sequence[Action]) -> dict[str, dict[str, Any]]:
    """Return what a saved plan holds of each step, in order; for one that waits, all but the inputs to come."""
    digests: dict[str, str] = {}
    steps: dict[str, dict[str, Any]] = {}
    for action in actions:
        outputs = dict(action.entry.digests) if action.entry else {}
        digests |= {f"{action.step}.{output}": digest for output, digest in outputs.items()}
        steps[action.step] = {
            "kind": planner.bound.workflow.steps[action.step].spec.kind,
            "action": action.verdict.value,
            "reason": action.reason,
            "fingerprint": action.fingerprint,
            "outputs": outputs,
            "components": dict(action.components or planner.known_components(action.step, digests)),
        }
    return steps


def is_saved_plan(name: str, head: bytes) -> bool:
    """Tell by its beginning, which may be all there is, whether a file is meant to be a saved plan and no workflow."""
    start, wanted = b"".join(head.split()), f'{{"{_KEY}"'.encode()
    return start.startswith(wanted) or (name.endswith(".json") and wanted.startswith(start))


def read_plan(text: str, name: str) -> SavedPlan:
    """Read a saved plan.

    Parameters
    ----------
    text : str
        What `SavedPlan.to_json` gave.
    name : str
        What an error calls it.

    Returns
    -------
    SavedPlan
        The plan.

    Raises
    ------
    UsageError
        If it is cut off, was edited, is of another version of kflow, or no plan at all.
    """
    again = "'kflow plan FILE -o PLAN' writes it anew"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        message = f"{name}: this is no whole plan, it may be cut off; {again}"
        raise UsageError(message) from None
    if not isinstance(value, dict) or _KEY not in value:
        message = f"{name}: this is no saved plan; {again}"
        raise UsageError(message)
    version, digest = value.pop(_KEY), value.pop(_SUM, None)
    if version != FORMAT:
        message = f"{name}: this is a plan of another version of kflow (format {version}, here {FORMAT}); {again}"
        raise UsageError(message)
    if digest != _digest(value):
        message = f"{name}: this plan was changed after it was made, so it says nothing that can be relied on; {again}"
        raise UsageError(message)
    return SavedPlan(**value)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{_KEY}-{FORMAT}\n{canonical_json(value)}".encode()).hexdigest()
