"""From a document to a workflow: types every step, and collects every complaint instead of the first."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kflow.diagnostics import Diagnostic, suggest, visible
from kflow.document import Document, parse_scalar
from kflow.errors import GoneError, UsageError
from kflow.spec.base import Path_, StepSpec, find_texts, map_texts
from kflow.spec.complaints import describe_errors, describe_value
from kflow.spec.references import (
    LONGEST_NAME,
    RESERVED,
    Fault,
    escape,
    has_reference,
    is_step_name,
    names_used,
    substitute,
    unescape,
)
from kflow.spec.types import InputPath, Reference
from kflow.spec.workflow import Header, Step, Workflow

Kinds = Mapping[str, type[StepSpec]]
_FEW = 10
"""Up to this many names are listed where none is near."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What could be read of a document: a workflow of its sound steps, and what is wrong with the rest."""

    workflow: Workflow
    kinds: Mapping[str, type[StepSpec] | None]
    """The kind of every step, sound or not; None where the kind itself is unknown."""
    diagnostics: tuple[Diagnostic, ...]

    def texts(self, name: str) -> Iterator[tuple[Path_, str]]:
        """Yield the texts of a step as the file has them, with the path of each."""
        steps = self.workflow.document.value["steps"]
        assert isinstance(steps, dict), "kinds has a step"
        yield from find_texts(steps[name])


@dataclass(frozen=True, slots=True)
class _Scope:
    """The values that references may name, and the place where complaints gather."""

    document: Document
    params: Mapping[str, Any]
    environ: Mapping[str, str]
    diagnostics: list[Diagnostic]

    def complain(self, message: str, path: Path_, *, on_key: bool = False, hint: str | None = None) -> None:
        mark = self.document.key_mark(path) if on_key else self.document.mark(path)
        self.diagnostics.append(Diagnostic(message, mark, hint))

    def look_up_param(self, name: str) -> Any:
        value: Any = self.params
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                known = tuple(value) if isinstance(value, Mapping) else ()
                message = f"there is no param {name!r}"
                raise KeyError(message, part, tuple(map(str, known)))
            value = value[part]
        return value

    def look_up_variable(self, name: str) -> Any:
        if name not in self.environ:
            message = f"the environment variable {name} is not set"
            raise KeyError(message, name, ())
        try:
            value = parse_scalar(self.environ[name])
        except UsageError as error:
            # Without the value, which may be a secret.
            reason = str(error).removeprefix(f"{visible(self.environ[name].strip())}: ").partition("\n")[0]
            reason = re.sub(r"^value:\d+:\d+: ", "", reason)
            message = f"the environment variable {name} is read as YAML, and is none: {reason}"
            raise KeyError(message, name, ()) from None
        # A variable is a value and nothing else: what looks like a reference in it is text.
        return escape(value)

    def report(self, faults: list[Fault]) -> None:
        for fault in faults:
            hint = suggest(fault.name, fault.candidates) if fault.name else None
            known = f"there are {', '.join(fault.candidates)}" if 0 < len(fault.candidates) <= _FEW else None
            self.complain(fault.message, fault.path, hint=hint or known)


def parse_workflow(
    document: Document,
    kinds: Kinds,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Parsed:
    """Type every step of a document.

    Parameters
    ----------
    document : Document
        A parsed workflow file.
    kinds : mapping of str to type
        The step kinds by name.
    overrides : mapping, optional
        Params that replace those of the file (``--set``).
    environ : mapping, optional
        What ``${env.X}`` may name; default nothing.

    Returns
    -------
    Parsed
        The sound steps, and all that is wrong.

    Raises
    ------
    GoneError
        If an override names no param.
    """
    header, diagnostics = _parse_header(document)
    params = override(header.params, overrides or {})
    scope = _Scope(document, params, environ or {}, diagnostics)
    _check_params(scope)
    steps: dict[str, Step] = {}
    step_kinds: dict[str, type[StepSpec] | None] = dict.fromkeys(_step_names(document))
    for name, fields in header.steps.items():
        step_kinds[name] = kind = _find_kind(name, fields, kinds, scope)
        step = _parse_step(name, fields, kind, scope) if kind else None
        if step:
            steps[name] = step
    workflow = Workflow(document, header.name, header.seed, params, steps)
    return Parsed(workflow, step_kinds, tuple(diagnostics))


def _parse_header(document: Document) -> tuple[Header, list[Diagnostic]]:
    """Type the top level; what is wrong there must not hide what is wrong in the steps."""
    try:
        return Header.model_validate(document.value), []
    except ValidationError as error:
        diagnostics = describe_errors(error, document, (), Header, "the workflow")
    params, steps = document.value.get("params"), document.value.get("steps")
    sound = {
        name: fields for name, fields in (steps if isinstance(steps, dict) else {}).items() if isinstance(fields, dict)
    }
    header = Header.model_construct(
        kflow=1, name="", seed=0, params=params if isinstance(params, dict) else {}, steps=sound
    )
    return header, diagnostics


def _step_names(document: Document) -> list[str]:
    """Return the names of all steps, also of those that are no mapping."""
    steps = document.value.get("steps")
    return list(steps) if isinstance(steps, dict) else []


def _check_params(scope: _Scope) -> None:
    """Refuse a param in a param: there would be an order to it, and cycles."""
    for path, text in find_texts(scope.params):
        if any(names_used(text, "params")):
            scope.complain(f"a param cannot refer to a param, as in {text!r}", ("params", *path))


def override(params: Mapping[str, Any], overrides: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Replace params by dotted name.

    Parameters
    ----------
    params : mapping
        The params; not changed.
    overrides : mapping
        New values by dotted name.
    within : str
        What stands before the names in a message, such as ``net.``.

    Returns
    -------
    dict
        The params with the new values.

    Raises
    ------
    GoneError
        If there is no param of that name.

    Examples
    --------
    >>> override({"net": {"width": 8}}, {"net.width": 16})
    {'net': {'width': 16}}
    """
    result = dict(params)
    for name, value in overrides.items():
        head, _, rest = name.partition(".")
        inner = result.get(head)
        hint = None
        if head not in result:
            known = f"{within.rstrip('.') or 'the workflow'} has {', '.join(result) or 'no params'}"
            hint = suggest(head, tuple(result)) or known
        elif rest and not isinstance(inner, Mapping):
            hint = f"{within + head!r} is no mapping"
        if hint:
            message = f"--set {within}{name}: there is no param {within + name!r}; {hint}"
            raise GoneError(message, f"param {within}{name} is gone")
        result[head] = override(inner, {rest: value}, f"{within}{head}.") if rest and inner is not None else value
    return result


def _find_kind(name: str, fields: Mapping[str, Any], kinds: Kinds, scope: _Scope) -> type[StepSpec] | None:
    path = ("steps", name)
    if name in RESERVED:
        scope.complain(f"{name!r} cannot name a step: ${{{name}.x}} means something else", path, on_key=True)
    elif len(name) > LONGEST_NAME:
        message = f"the name of a step has at most {LONGEST_NAME} characters, this one has {len(name):,}"
        scope.complain(message, path, on_key=True)
    elif not is_step_name(name):
        rule = "a letter from a to z or '_', then such letters, digits, '_' and '-'"
        scope.complain(f"{name!r} cannot name a step: use {rule}", path, on_key=True)
    if "kind" not in fields:
        scope.complain(
            f"step {name!r} has no kind", path, on_key=True, hint="add 'kind: ...'; 'kflow kinds' lists them"
        )
        return None
    kind = fields["kind"]
    if not isinstance(kind, str):
        hint = "'kflow kinds' lists them"
        scope.complain(f"expected the name of a kind, got {describe_value(kind)}", (*path, "kind"), hint=hint)
        return None
    if kind not in kinds:
        hint = suggest(kind, tuple(kinds)) or "'kflow kinds' lists them"
        scope.complain(f"unknown kind {kind!r}", (*path, "kind"), hint=hint)
        return None
    return kinds[kind]


def _has_references(value: object) -> bool:
    """Tell whether a text in a value may hold a reference; without the paths that `find_texts` makes."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict | list):
        return any(map(_has_references, value.values() if isinstance(value, dict) else value))
    return False


def _parse_step(name: str, fields: Mapping[str, Any], kind: type[StepSpec], scope: _Scope) -> Step | None:
    path: Path_ = ("steps", name)
    faults: list[Fault] = []
    public = resolved = {key: value for key, value in fields.items() if key != "kind"}
    is_plain = not _has_references(public)  # then there is nothing to be put in
    if not is_plain:
        public = substitute(public, "params", scope.look_up_param, faults, path)
        resolved = substitute(public, "env", scope.look_up_variable, faults, path)
        scope.report(faults)
    if faults:
        return None
    try:
        spec = kind.model_validate(resolved)
    except ValidationError as error:
        scope.diagnostics.extend(describe_errors(error, scope.document, path, kind, f"kind {kind.kind}"))
        return None
    if is_plain:
        return Step(name, spec, public, {})
    variables = {used: scope.environ[used] for used in sorted(set(names_used(public, "env")))}
    step = Step(name, spec, public, variables)
    if not _check_left_over(step, path, scope):
        return None
    if any("$${" in text for _, text in step.texts):
        return Step(name, map_texts(spec, unescape), public, variables)
    return step


def _check_left_over(step: Step, path: Path_, scope: _Scope) -> bool:
    """Refuse a ``${...}`` where the field takes a plain value."""
    sound = True
    for where, text in step.texts:
        if isinstance(text, Reference) or not has_reference(text):
            continue
        sound = False
        if any(names_used(text, "params")):
            continue  # from a param that refers to a param, which has been reported there
        message = f"{text!r} stands where a plain value is expected; only ${{params.x}} and ${{env.X}} can be used here"
        if isinstance(text, InputPath):
            message = f"{text!r} is neither a path nor a reference to a file, such as ${{step.file}}"
        scope.complain(message, (*path, *where), hint="write '$${' for the text '${'")
    return sound
