"""From a document to a workflow: types every step, and collects every complaint instead of the first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kflow.diagnostics import Diagnostic, Mark, suggest
from kflow.document import Document, parse_scalar
from kflow.errors import UsageError
from kflow.spec.base import Path_, StepSpec, walk
from kflow.spec.references import (
    RESERVED,
    Fault,
    has_reference,
    names_used,
    parse_target,
    substitute,
)
from kflow.spec.types import Reference
from kflow.spec.workflow import Header, Step, Workflow

Kinds = Mapping[str, type[StepSpec]]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What could be read of a document: a workflow of its sound steps, and what is wrong with the rest."""

    workflow: Workflow
    kinds: Mapping[str, type[StepSpec] | None]
    """The kind of every step, sound or not; None where the kind itself is unknown."""
    diagnostics: tuple[Diagnostic, ...]


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
                raise KeyError(message, part, known)
            value = value[part]
        return value

    def look_up_variable(self, name: str) -> Any:
        if name not in self.environ:
            message = f"the environment variable {name} is not set"
            raise KeyError(message, name, ())
        return parse_scalar(self.environ[name])

    def report(self, faults: list[Fault]) -> None:
        for fault in faults:
            hint = suggest(fault.name, fault.candidates) if fault.name else None
            self.complain(fault.message, fault.path, hint=hint)


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
    UsageError
        If an override names no param.
    """
    header, diagnostics = _parse_header(document)
    params = override(header.params, overrides or {})
    scope = _Scope(document, params, environ or {}, diagnostics)
    steps: dict[str, Step] = {}
    step_kinds: dict[str, type[StepSpec] | None] = {}
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
        diagnostics = describe_errors(error, document, (), tuple(Header.model_fields), "the workflow")
    params, steps = document.value.get("params"), document.value.get("steps")
    sound = {
        name: fields for name, fields in (steps if isinstance(steps, dict) else {}).items() if isinstance(fields, dict)
    }
    header = Header.model_construct(
        kflow=1, name="", seed=0, params=params if isinstance(params, dict) else {}, steps=sound
    )
    return header, diagnostics


def override(params: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace params by dotted name.

    Raises
    ------
    UsageError
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
        if head not in result or (rest and not isinstance(inner, Mapping)):
            hint = suggest(head, tuple(result)) or f"the workflow has {', '.join(result) or 'no params'}"
            message = f"--set {name}: there is no param {name!r}; {hint}"
            raise UsageError(message)
        result[head] = override(inner, {rest: value}) if rest else value  # type: ignore[arg-type]  # checked above
    return result


def _find_kind(name: str, fields: Mapping[str, Any], kinds: Kinds, scope: _Scope) -> type[StepSpec] | None:
    path = ("steps", name)
    if name in RESERVED or not _is_step_name(name):
        message = f"{name!r} cannot name a step: use letters, digits, '_' and '-', and neither 'params' nor 'env'"
        scope.complain(message, path, on_key=True)
    if "kind" not in fields:
        scope.complain(
            f"step {name!r} has no kind", path, on_key=True, hint="add 'kind: ...'; 'kflow kinds' lists them"
        )
        return None
    kind = fields["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        hint = suggest(str(kind), tuple(kinds)) or "'kflow kinds' lists them"
        scope.complain(f"unknown kind {kind!r}", (*path, "kind"), hint=hint)
        return None
    return kinds[kind]


def _is_step_name(name: str) -> bool:
    return parse_target("${" + name + "}") is not None and "." not in name


def _parse_step(name: str, fields: Mapping[str, Any], kind: type[StepSpec], scope: _Scope) -> Step | None:
    path: Path_ = ("steps", name)
    faults: list[Fault] = []
    raw = {key: value for key, value in fields.items() if key != "kind"}
    public = substitute(raw, "params", scope.look_up_param, faults, path)
    resolved = substitute(public, "env", scope.look_up_variable, faults, path)
    scope.report(faults)
    if faults:
        return None
    try:
        spec = kind.model_validate(resolved)
    except ValidationError as error:
        owner = f"kind {kind.kind}"
        scope.diagnostics.extend(describe_errors(error, scope.document, path, tuple(kind.model_fields), owner))
        return None
    if not _check_left_over(spec, path, scope):
        return None
    variables = {used: scope.environ[used] for used in sorted(set(names_used(public, "env")))}
    return Step(name, spec, public, variables)


def _check_left_over(spec: StepSpec, path: Path_, scope: _Scope) -> bool:
    """Refuse a ``${...}`` where the field takes a plain value."""
    sound = True
    for where, leaf in walk(spec):
        if isinstance(leaf, str) and not isinstance(leaf, Reference) and has_reference(leaf):
            message = (
                f"{leaf!r} stands where a plain value is expected; only ${{params.x}} and ${{env.X}} can be used here"
            )
            scope.complain(message, (*path, *where))
            sound = False
    return sound


def describe_errors(
    error: ValidationError, document: Document, path: Path_, known: tuple[str, ...], owner: str
) -> list[Diagnostic]:
    """Put the complaints of pydantic into words, each at its place in the document.

    Several complaints about one place (the branches of a union) become one sentence.
    """
    messages: dict[Path_, list[str]] = {}
    marks: dict[Path_, tuple[Mark, str | None]] = {}
    for each in error.errors(include_url=False):
        where = _locate(document, path, each["loc"])
        if each["type"] == "extra_forbidden":
            name = str(each["loc"][-1])
            message, hint = f"unknown field {name!r} of {owner}", suggest(name, known)
            marks[where] = (document.key_mark(where), hint)
        elif each["type"] == "missing":
            message = f"missing field {each['loc'][-1]!r} of {owner}"
            marks.setdefault(where, (document.key_mark(where), None))
        else:
            message = _in_words(each["type"], each)
            marks.setdefault(where, (document.mark(where), None))
        messages.setdefault(where, []).append(message)
    return [Diagnostic(_join(texts), *marks[where]) for where, texts in messages.items()]


def _join(texts: list[str]) -> str:
    """Make one sentence of the complaints about one place; those of a union differ in what is expected."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) > 1 and all(text.startswith("expected ") and ", got " in text for text in distinct):
        wanted = [text.removeprefix("expected ").rpartition(", got ")[0] for text in distinct]
        return f"expected {' or '.join(wanted)}, got {distinct[-1].rpartition(', got ')[2]}"
    return "; ".join(distinct)


def _locate(document: Document, path: Path_, loc: tuple[str | int, ...]) -> Path_:
    """Follow a location of pydantic as far as the document goes; the names of union branches are skipped."""
    where = path
    for part in loc:
        if (*where, part) in document.marks:
            where = (*where, part)
    return where


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda ctx: "expected a whole number",
    "int_parsing": lambda ctx: "expected a whole number",
    "int_from_float": lambda ctx: "expected a whole number",
    "float_type": lambda ctx: "expected a number",
    "float_parsing": lambda ctx: "expected a number",
    "finite_number": lambda ctx: "expected a finite number",
    "bool_type": lambda ctx: "expected true or false",
    "bool_parsing": lambda ctx: "expected true or false",
    "string_type": lambda ctx: "expected a text",
    "dict_type": lambda ctx: "expected a mapping",
    "model_type": lambda ctx: "expected a mapping",
    "list_type": lambda ctx: "expected a list",
    "tuple_type": lambda ctx: "expected a list",
    "none_required": lambda ctx: "expected null",
    "greater_than_equal": lambda ctx: f"expected at least {ctx['ge']}",
    "greater_than": lambda ctx: f"expected more than {ctx['gt']}",
    "less_than_equal": lambda ctx: f"expected at most {ctx['le']}",
    "less_than": lambda ctx: f"expected less than {ctx['lt']}",
    "literal_error": lambda ctx: f"expected {ctx['expected']}",
    "too_short": lambda ctx: f"expected at least {ctx['min_length']} item(s)",
    "too_long": lambda ctx: f"expected at most {ctx['max_length']} item(s)",
    "string_too_short": lambda ctx: "expected a text that is not empty",
    "string_pattern_mismatch": lambda ctx: f"expected a text of the form {ctx['pattern']}",
}


def _in_words(kind: str, error: Mapping[str, Any]) -> str:
    if kind not in _WORDS:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{_WORDS[kind](error.get('ctx', {}))}, got {describe_value(error['input'])}"


def describe_value(value: object) -> str:
    """Name a value of a document the way its writer would.

    Examples
    --------
    >>> describe_value("three"), describe_value(-1), describe_value([1])
    ("the text 'three'", '-1', 'a list')
    """
    if isinstance(value, str):
        return f"the text {(value if len(value) < 60 else value[:57] + '...')!r}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else repr(value)
