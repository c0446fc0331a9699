"""``${...}``: how a value in a workflow points at a step's output, a param or an environment variable.

There is no template engine. A value that is one reference keeps its type; inside a longer text a param
or a variable becomes text; ``$${`` is a literal ``${``.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STEP_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
LONGEST_NAME = 200
"""Characters in the name of a step or a workflow: logs and the folders of runs are called after them."""
RESERVED = frozenset({"params", "env"})

_NAME = re.compile(STEP_NAME)
_TOKEN = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}")
_STEP = re.compile(rf"\$\{{({STEP_NAME})(?:\.({STEP_NAME}))?\}}")
_VALUE = re.compile(r"(params|env)\.([A-Za-z_][\w.-]*)")


@dataclass(frozen=True, slots=True)
class Target:
    """What a ``${step.output}`` names; no output means the only one of the step."""

    step: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A reference that cannot be followed: where it stands, and why."""

    path: tuple[str | int, ...]
    message: str
    name: str | None = None
    candidates: tuple[str, ...] = ()


def is_step_name(text: str) -> bool:
    """Tell whether a step may have a name."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED and len(text) <= LONGEST_NAME


def parse_target(text: str) -> Target | None:
    """Read ``${step}`` or ``${step.output}``; None when the text is anything else."""
    match = _STEP.fullmatch(text)
    if match is None or match[1] in RESERVED:
        return None
    return Target(match[1], match[2])


def has_reference(text: str) -> bool:
    """Tell whether a text still holds a ``${...}``."""
    return "${" in text and any(match[2] is not None for match in _TOKEN.finditer(text))


def names_used(value: Any, space: str) -> Iterator[str]:
    """Yield the dotted names that a nested value takes from ``params`` or ``env``."""
    if isinstance(value, str):
        for match in _TOKEN.finditer(value) if "${" in value else ():
            used = _VALUE.fullmatch(match[2] or "")
            if used and used[1] == space:
                yield used[2]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from names_used(item, space)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names_used(item, space)


def substitute(
    value: Any,
    space: str,
    look_up: Callable[[str], Any],
    faults: list[Fault],
    path: tuple[str | int, ...] = (),
) -> Any:
    """Replace the references to one name space in a nested value.

    Parameters
    ----------
    value : nested dicts, lists and scalars
        What the workflow says.
    space : {'params', 'env'}
        The name space to replace; the other one is left as it stands.
    look_up : callable
        Gives the value of a dotted name; raises ``KeyError(message, name, candidates)`` where there is none.
    faults : list of Fault
        Unknown names are added here, and their text stays.
    path : tuple
        Where `value` stands in the document.

    Returns
    -------
    nested dicts, lists and scalars
        A copy with the references replaced.

    Examples
    --------
    >>> substitute({"epochs": "${params.n}"}, "params", {"n": 3}.__getitem__, [])
    {'epochs': 3}
    """
    if isinstance(value, str):
        return _substitute_text(value, space, look_up, faults, path) if "${" in value else value
    if isinstance(value, Mapping):
        return {key: substitute(item, space, look_up, faults, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, space, look_up, faults, (*path, i)) for i, item in enumerate(value)]
    return value


def _substitute_text(
    text: str,
    space: str,
    look_up: Callable[[str], Any],
    faults: list[Fault],
    path: tuple[str | int, ...],
) -> Any:
    whole = _TOKEN.fullmatch(text)
    if whole and whole[2] is not None:
        return _value_of(whole, space, look_up, faults, path)
    return _TOKEN.sub(lambda match: _as_text(_value_of(match, space, look_up, faults, path)), text)


def _value_of(
    match: re.Match[str],
    space: str,
    look_up: Callable[[str], Any],
    faults: list[Fault],
    path: tuple[str | int, ...],
) -> Any:
    used = _VALUE.fullmatch(match[2] or "")
    if used is None or used[1] != space:
        return match[0]
    try:
        return look_up(used[2])
    except KeyError as error:
        message, name, candidates = error.args
        faults.append(Fault(path, message, name, tuple(candidates)))
        return match[0]


def _as_text(value: Any) -> str:
    """Write a value the way a workflow does: ``true``, not Python's ``True``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def unescape(text: str) -> str:
    """Turn ``$${`` into the ``${`` that was meant."""
    return text.replace("$${", "${")


def escape(value: Any) -> Any:
    """Protect the texts of a nested value from being read as references; `unescape` undoes it.

    Examples
    --------
    >>> escape(["${x}", 1])
    ['$${x}', 1]
    """
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escape(item) for key, item in value.items()}
    return [escape(item) for item in value] if isinstance(value, list) else value
