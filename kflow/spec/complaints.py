"""What pydantic complains of, in the words of a workflow and at its place in the file."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from kflow.diagnostics import Diagnostic, Mark, suggest
from kflow.document import Document
from kflow.spec.base import Path_

_ABOUT_NAMES = {"extra_forbidden", "missing"}


def describe_errors(
    error: ValidationError, document: Document, path: Path_, model: type[BaseModel], owner: str
) -> list[Diagnostic]:
    """Put the complaints of pydantic into words, each at its place in the document.

    Several complaints about one place (the branches of a union) become one sentence; where a branch was
    followed further down, only what is wrong there is told.

    Parameters
    ----------
    error : ValidationError
        The complaints.
    document : Document
        The document, for the places.
    path : tuple
        Where the validated value stands in the document.
    model : type
        The model that it was validated with.
    owner : str
        What a reader calls the value, such as ``kind train``.

    Returns
    -------
    list of Diagnostic
        At least one.
    """
    messages: dict[Path_, list[str]] = {}
    marks: dict[Path_, tuple[Mark, str | None]] = {}
    found = [(each, _locate(document, path, each["loc"])) for each in error.errors(include_url=False)]
    around = {where[:count] for each, where in found for count in range(len(path), len(where))}
    for each, where in found:
        kind, name = each["type"], str(each["loc"][-1]) if each["loc"] else ""
        if kind in _ABOUT_NAMES:
            known, holder = _holder(model, each["loc"], owner)
            message = f"{'missing' if kind == 'missing' else 'unknown'} field {name!r} of {holder}"
            mark, hint = document.key_mark(where), suggest(name, known) if kind == "extra_forbidden" else None
        elif where in around:
            continue  # another branch of a union fits so far
        else:
            message, mark, hint = _in_words(kind, each), document.mark(where), _hint_reference(each, document)
        marks.setdefault(where, (mark, hint))
        messages.setdefault(where, []).append(message)
    return [Diagnostic(_join(texts), *marks[where]) for where, texts in messages.items()]


def _locate(document: Document, path: Path_, loc: tuple[str | int, ...]) -> Path_:
    """Follow a location of pydantic as far as the document goes; the names of union branches are skipped."""
    where = path
    for part in loc:
        if (*where, part) in document.marks:
            where = (*where, part)
    return where


def _holder(model: type[BaseModel], loc: tuple[str | int, ...], owner: str) -> tuple[tuple[str, ...], str]:
    """Return the fields of the model that a location lies in, and what a reader calls it."""
    for part in loc[:-1]:
        info = model.model_fields.get(str(part))
        inner = next(_models(info.annotation), None) if info else None
        if inner:
            model, owner = inner, repr(part)
    return tuple(model.model_fields), owner


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _hint_reference(error: Mapping[str, Any], document: Document) -> str | None:
    """Notice the name of a step where a reference to it was meant."""
    steps, text = document.value.get("steps"), error["input"]
    wants_reference = "a reference to" in str(error.get("ctx", {}).get("what"))
    if wants_reference and isinstance(text, str) and isinstance(steps, dict) and text in steps:
        return f"did you mean '${{{text}}}'?"
    return None


def _join(texts: list[str]) -> str:
    """Make one sentence of the complaints about one place; those of a union differ in what is expected."""
    distinct = list(dict.fromkeys(texts))
    if len(distinct) > 1 and all(text.startswith("expected ") and ", got " in text for text in distinct):
        *wanted, last = [text.removeprefix("expected ").rpartition(", got ")[0] for text in distinct]
        return f"expected {', '.join(wanted)} or {last}, got {distinct[-1].rpartition(', got ')[2]}"
    return "; ".join(distinct)


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "expected": lambda ctx: f"expected {ctx['what']}",
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
    "greater_than_equal": lambda ctx: f"expected at least {ctx['ge']:g}",
    "greater_than": lambda ctx: f"expected more than {ctx['gt']:g}",
    "less_than_equal": lambda ctx: f"expected at most {ctx['le']:g}",
    "less_than": lambda ctx: f"expected less than {ctx['lt']:g}",
    "literal_error": lambda ctx: f"expected {ctx['expected']}",
    "too_short": lambda ctx: f"expected at least {_count(ctx['min_length'])}",
    "too_long": lambda ctx: f"expected at most {_count(ctx['max_length'])}",
    "string_too_short": lambda ctx: "expected a text that is not empty",
    "string_pattern_mismatch": lambda ctx: f"expected a text of the form {ctx['pattern']}",
}


def _count(items: int) -> str:
    return f"{items} item{'s' * (items != 1)}"


def _in_words(kind: str, error: Mapping[str, Any]) -> str:
    if kind not in _WORDS:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{_WORDS[kind](error.get('ctx', {}))}, got {describe_value(error['input'])}"


def describe_value(value: object) -> str:
    """Name a value of a document the way its writer would.

    Examples
    --------
    >>> describe_value("three"), describe_value(-1), describe_value([1]), describe_value({})
    ("the text 'three'", '-1', 'a list', 'an empty mapping')
    """
    if isinstance(value, str):
        return f"the text {(value if len(value) < 60 else value[:57] + '...')!r}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping | list | tuple):
        what = "mapping" if isinstance(value, Mapping) else "list"
        return f"a {what}" if value else f"an empty {what}"
    return repr(value)
