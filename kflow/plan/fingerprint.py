"""The key of a computation: everything that can change a step's result, and nothing else.

``components`` says what goes in, in one screen; ``fingerprint`` is the SHA-256 of its canonical JSON.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from kflow.imports import SOURCES
from kflow.spec.base import NotFingerprinted, Path_, StepSpec, references
from kflow.spec.references import names_used
from kflow.spec.types import InputPath, NameAlone, Origin, Symbol
from kflow.spec.workflow import Step

SCHEME = 2
"""Raised when the meaning of a component changes, so that old entries are not taken for new ones."""


def components(
    step: Step,
    *,
    inputs: Mapping[str, str | None],
    files: Mapping[str, str],
    code: Mapping[str, str],
    libraries: Mapping[str, str],
    variables: Mapping[str, str],
    seed: int,
    gpus: int,
    threads: int = 0,
) -> dict[str, Any]:
    """Gather what can change the result of a step.

    Parameters
    ----------
    step : Step
        The step.
    inputs : mapping of str to str
        For each reference its output's digest, None for one that is not there yet. It is that of the content, so
        that an upstream step that gives the same bytes again stops the cascade.
    files : mapping of str to str
        The digest of each file that the step reads from the workspace.
    code : mapping of str to str
        The digest of each user module that the step uses, with the local modules that it imports.
    libraries : mapping of str to str
        The versions of the libraries that compute the result, those that user modules import included.
    variables : mapping of str to str
        The environment variables that change what these libraries compute; those that fields use are the step's own.
    seed : int
        The seed; left out for a kind that draws no random numbers.
    gpus : int
        The number of GPUs; left out where none is used.
    threads : int
        The threads that it computes with; left out where their number cannot change the result.

    Returns
    -------
    dict
        JSON values only.
    """
    spec, written = step.spec, _written(step)
    own = {name: step.variables[name] for name in sorted(set(names_used(written, "env")))}
    parts: dict[str, Any] = {
        "scheme": SCHEME,
        "kind": spec.kind,
        "version": spec.version,
        "fields": _fields(step, written),
        "environ": {name: _sha256(value) for name, value in {**variables, **own}.items()},
        "inputs": dict(inputs),
        "files": dict(files),
        "code": dict(code),
        "libraries": dict(libraries),
    }
    if step.is_random:
        parts["seed"] = seed
    if gpus:
        parts["gpus"] = gpus
    if threads:
        parts["threads"] = threads
    return parts


def _written(step: Step) -> dict[str, Any]:
    """Return the fields that matter and use environment variables, as they are written; of a path perhaps its name."""
    if not step.variables:
        return {}
    idle, named = _idle_fields(type(step.spec)), _named_fields(type(step.spec))
    mattering = {name: value for name, value in step.fields.items() if name not in idle}
    mattering |= {name: value.rpartition("/")[2] for name, value in mattering.items() if name in named}
    return {name: value for name, value in mattering.items() if any(names_used(value, "env"))}


def _fields(step: Step, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that matter, typed and complete: writing a default down, or 1 for 1.0, changes nothing."""
    fields = step.spec.model_dump(mode="json")
    # One path may be written in many ways.
    for path, text in step.texts:
        if ("./" in text or "//" in text) and isinstance(text, InputPath | Origin | Symbol):
            _replace(fields, path, text.plain)
    # The value of an environment variable must not get into a record: such a field stays as it is written.
    fields |= {name: copy.deepcopy(value) for name, value in written.items()}
    # The names of steps stay out as well: their content stands under inputs, and renaming one changes nothing.
    for path, _ in references(step.texts):
        _replace(fields, path, "${}")
    idle = _idle_fields(type(step.spec))
    return {name: value for name, value in fields.items() if name not in idle}


@cache
def _idle_fields(kind: type[StepSpec]) -> frozenset[str]:
    """Return the fields of a kind that cannot change what it computes."""
    return frozenset(
        name
        for name, info in kind.model_fields.items()
        if info.exclude or any(isinstance(each, NotFingerprinted) for each in info.metadata)
    )


@cache
def _named_fields(kind: type[StepSpec]) -> frozenset[str]:
    """Return the fields of a kind of whose path the name alone matters."""
    return frozenset(name for name, info in kind.model_fields.items() if NameAlone in info.metadata)


def _replace(fields: dict[str, Any], path: Path_, value: str) -> None:
    """Put a value at a path of nested fields; what the path names is there, for it comes from the same step."""
    nest: Any = fields
    for part in path[:-1]:
        nest = nest[part]
    nest[path[-1]] = value


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal digits, of the canonical JSON of some components.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return _sha256(f"kflow-fingerprint-{SCHEME}\n" + canonical_json(parts))


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces; Infinity and NaN as Python writes them."""
    return _CANONICAL.encode(value)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


_TITLES = {"files": "file", "code": "code", "inputs": "input", "libraries": "library", "environ": "variable"}


_SINGLE = {"version": None, "scheme": None, "seed": None, "gpus": 0, "threads": 0}
"""The components that are one value, with what stands for one that is left out."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between two sets of components, the telling ones first.

    Examples
    --------
    >>> differences({"fields": {"epochs": 5}}, {"fields": {"epochs": 6}})
    ['epochs: 5 -> 6']
    """
    found = []
    if old.get("kind") != new.get("kind"):  # in front, for with it all other fields differ
        found.append(f"kind: {old.get('kind')} -> {new.get('kind')}")
    pairs = _changed_within(old.get("fields", {}), new.get("fields", {}))
    found += [f"{name}: {_brief(before)} -> {_brief(after)}" for name, (before, after) in pairs]
    for part in ("code", "files", "inputs", "environ"):
        for name, (before, after) in _changed(old.get(part, {}), new.get(part, {})):
            found.append(f"{_TITLES[part]} {name} {_verb(before, after)}")
    for name, (before, after) in _changed(old.get("libraries", {}), new.get("libraries", {})):
        found.append(f"{name} {_verb(before, after)}" if name.startswith(SOURCES) else f"{name}: {before} -> {after}")
    for name, absent in _SINGLE.items():
        before, after = old.get(name, absent), new.get(name, absent)
        if before != after:
            found.append(f"{name}: {before} -> {after}")
    return list(dict.fromkeys(found))  # gpus: the wish, and what it came to


def _verb(before: object, after: object) -> str:
    return "changed" if before is not None and after is not None else "added" if before is None else "gone"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    names = [*old, *(name for name in new if name not in old)]
    pairs = [(name, (old.get(name), new.get(name))) for name in names]
    return [(name, (before, after)) for name, (before, after) in pairs if before != after]


def _changed_within(old: Any, new: Any, name: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    """Return what differs inside nested values, by dotted name."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not isinstance(old, Mapping) or not isinstance(new, Mapping) or (name and set(old) != set(new)):
        return [(name, (old, new))]
    inner = [_changed_within(*pair, f"{name}.{key}".lstrip(".")) for key, pair in _changed(old, new)]
    return [each for found in inner for each in found]


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
