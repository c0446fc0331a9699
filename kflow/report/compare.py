"""Two runs side by side: why a step ran again, and how runs differ in params, code, data, metrics and time."""

from collections.abc import Iterator, Mapping
from typing import Any

from kflow.plan.fingerprint import differences
from kflow.run.record import RunRecord, StepRecord
from kflow.spec.references import parse_target

_DEEPEST = 20
"""Levels that are shown by indentation."""


def explain_step(new: RunRecord, old: RunRecord, name: str) -> list[str]:
    """Say what differs between two runs of a step, followed upstream to where it comes from.

    Parameters
    ----------
    new, old : RunRecord
        The runs; the step has components in both.
    name : str
        The step.

    Returns
    -------
    list of str
        Lines, those on what stands upstream indented; a single one when nothing differs.
    """
    more = "" if new.steps[name].status == "reused" else " in what it is made of"
    return list(_explain(new, old, name)) or [f"{name}: nothing differs{more}"]


def _explain(new: RunRecord, old: RunRecord, name: str) -> Iterator[str]:
    seen: set[str] = set()
    todo = [(name, 0)]  # a stack of its own: a chain of steps may be longer than Python's
    while todo:
        step, depth = todo.pop()
        before, after = old.steps.get(step), new.steps.get(step)
        if step in seen or before is None or after is None:
            continue
        seen.add(step)
        found = differences(before.components or {}, after.components or {})
        if found:
            yield f"{'  ' * min(depth, _DEEPEST)}{step}: {'; '.join(found)}"
        upstream = list(dict.fromkeys(_changed_inputs(new, before, after, step)))
        todo += [(each, depth + 1) for each in reversed(upstream)]


def _changed_inputs(run: RunRecord, before: StepRecord, after: StepRecord, name: str) -> Iterator[str]:
    """Yield the steps whose outputs, taken by a step, are others than before."""
    for path, digest in after.inputs.items():
        if before.inputs.get(path) != digest:
            value = _find(run.workflow.steps[name], path.split("."))
            target = parse_target(value) if isinstance(value, str) else None
            if target:
                yield target.step


def _find(value: Any, parts: list[str]) -> Any:
    """Return what stands at a dotted path, in which a key may have dots of its own; None where nothing does."""
    if not parts:
        return value
    if isinstance(value, list):
        value = {str(number): each for number, each in enumerate(value)}
    ends = range(len(parts), 0, -1) if isinstance(value, Mapping) else ()
    keys = ((".".join(parts[:end]), parts[end:]) for end in ends)
    return next((found for key, rest in keys if key in value and (found := _find(value[key], rest)) is not None), None)


def compare_runs(first: RunRecord, second: RunRecord) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return what differs between two runs.

    Returns
    -------
    dict
        For each of params, versions, steps, outputs, metrics and seconds the names that differ, each with the
        value in the first and in the second run; None where there is none. What is equal is left out.
    """
    pairs = {
        "params": (_flat(first.workflow.params), _flat(second.workflow.params)),
        "surroundings": (_surroundings(first), _surroundings(second)),
        "outputs": (_outputs(first), _outputs(second)),
        "metrics": (_flat(first.metrics), _flat(second.metrics)),
    }
    found = {part: _differing(*pair) for part, pair in pairs.items()}
    found["steps"] = _step_changes(first, second)
    return {part: found[part] for part in ("params", "surroundings", "steps", "outputs", "metrics") if found[part]}


def timings(first: RunRecord, second: RunRecord) -> dict[str, tuple[float, float]]:
    """Return the seconds of each step that was run in both."""
    return {
        name: (step.duration, other.duration)
        for name, step in first.steps.items()
        if (other := second.steps.get(name))
        and step.status == other.status == "run"
        and step.duration is not None
        and other.duration is not None
    }


def _step_changes(first: RunRecord, second: RunRecord) -> dict[str, tuple[Any, Any]]:
    changes: dict[str, tuple[Any, Any]] = {}
    for name in {**first.steps, **second.steps}:
        one, other = first.steps.get(name), second.steps.get(name)
        if one is None or other is None:
            changes[name] = (one and one.kind, other and other.kind)
        elif one.components and other.components:
            words = [each for each in differences(one.components, other.components) if not each.startswith("input ")]
            if words:
                changes[name] = ("", "; ".join(words))
    return changes


def _surroundings(run: RunRecord) -> dict[str, Any]:
    git = {"git": f"{run.git.commit[:12]}{' with changes' if run.git.is_dirty else ''}"} if run.git else {}
    devices = {f"devices.{name}": value for name, value in run.devices.items()}
    return {**run.versions, "platform": run.platform, "seed": run.workflow.seed, **git, **devices}


def _outputs(run: RunRecord) -> dict[str, str]:
    return {
        f"{name}.{output}": each.digest for name, step in run.steps.items() for output, each in step.outputs.items()
    }


def _flat(value: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{within}{name}"
        found |= _flat(item, f"{path}.") if isinstance(item, Mapping) and item else {path: item}
    return found


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = {**first, **second}
    return {name: (first.get(name), second.get(name)) for name in names if not _same(first.get(name), second.get(name))}


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124  a loss may be NaN in both
