"""The form of the description of each type of value: what its ``save`` gives, and what all of kflow relies on.

A description may come from elsewhere, or lie in a store that others write to; what is of another form is no
description. A type without a form has no descriptions, so that a new one cannot be forgotten here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Form: TypeAlias = "Callable[[Any], bool] | Mapping[str, Form]"
"""A test of a value, or an object with exactly these fields, each of a form."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_CHARACTER = re.compile(r"[\ud800-\udfff]")
"""Half a character: JSON can hold it, and no text that is written."""
_DTYPE = re.compile(
    r"bool|u?int\d*|float\d*(_e\d\w*)?|bfloat16|b?complex\d*|object|(datetime|timedelta)64(\[\w+\])?"
    r"|[<>|=]?[?a-zA-Z]\d*(\[\w+\])?|[\[({].*[\])}]"
)
"""How NumPy and ml_dtypes call a dtype, or write it: a name, a code, or what a compound one is made of."""
_GREATEST = 2**63 - 1
_NO_FLOAT = 2**1000
"""A whole number that is too great to be computed with."""


def is_text(value: object) -> bool:
    """Tell whether a value is text that can be written."""
    return isinstance(value, str) and not _NO_CHARACTER.search(value)


def is_digest(value: object) -> bool:
    """Tell whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def is_count(value: object) -> bool:
    """Tell whether a value is a whole number that something may have of bytes, rows or weights.

    Examples
    --------
    >>> is_count(3), is_count(-1), is_count(3.0), is_count(True), is_count(10**400)
    (True, False, False, False, False)
    """
    return type(value) is int and 0 <= value <= _GREATEST


def are_curves(value: object) -> bool:
    """Tell whether a value is a list of numbers for each of some names."""
    return _is_mapping(value, lambda curve: _is_list(curve, _is_number))


def _is_name(value: object) -> bool:
    """Tell whether a value may be the path of a file, of which not every byte need be text."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < _NO_FLOAT


def _is_number(value: object) -> bool:
    return type(value) is float or _is_whole(value)


def _is_list(value: object, form: Form) -> bool:
    return isinstance(value, list) and all(_fits(each, form) for each in value)


def _is_mapping(value: object, form: Form) -> bool:
    return isinstance(value, dict) and all(is_text(name) and _fits(each, form) for name, each in value.items())


def _is_dtype(value: object) -> bool:
    return isinstance(value, str) and is_text(value) and bool(_DTYPE.fullmatch(value))


def _is_place_of_object(value: object) -> bool:
    """Tell whether a value is the file of a module and the name of a symbol in it."""
    return isinstance(value, list) and len(value) == 2 and _is_name(value[0]) and is_text(value[1])


def _or_none(form: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or form(value)


_OPERATIONS: Mapping[str, Mapping[str, Form]] = {
    "scale": {"scale": _is_number, "offset": _is_number, "dtype": _is_dtype},
    "one_hot": {"num_classes": is_count, "dtype": _is_dtype},
    "normalize": {
        "axis": lambda value: _is_whole(value) or _is_list(value, _is_whole),
        "order": lambda value: value == "inf" or _is_number(value),
    },
}
_MORE: Mapping[str, Mapping[str, Form]] = {
    "one_hot": {
        "label_smoothing": _is_number,
        "classes": lambda value: _is_list(value, lambda label: _is_number(label) or is_text(label)),
    },
}
"""What an operation may have besides."""


def _is_operation(value: object) -> bool:
    do = value.get("do") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(do, str) or do not in _OPERATIONS:
        return False
    more = {name: form for name, form in _MORE.get(do, {}).items() if name in value}
    return _fits(value, {"do": is_text, **_OPERATIONS[do], **more})


_SHAPE: Mapping[str, Form] = {"shape": lambda value: _is_list(value, is_count), "dtype": _is_dtype}
_SOURCE: Mapping[str, Form] = {
    "path": _is_name,
    "content": is_digest,
    "dataset": _or_none(is_text),
    "start": is_count,
    "end": _or_none(is_count),
}
FORMS: Mapping[str, tuple[Mapping[str, Form], ...]] = {
    "array": (
        {"name": _is_name, "content": is_digest, **_SHAPE},
        {"source": _SOURCE, "operations": lambda value: _is_list(value, _is_operation), **_SHAPE},
    ),
    "file": ({"name": _is_name}, {"path": _is_name}),
    "history": ({"name": _is_name, "epochs": is_count, "last": lambda value: _is_mapping(value, _is_number)},),
    "image": ({"name": _is_name},),
    "metrics": ({"metrics": lambda value: _is_mapping(value, _is_number)},),
    "model": ({"name": _is_name, "parameters": _or_none(is_count)},),
    "objects": (
        {
            "objects": lambda value: _is_mapping(value, _is_place_of_object),
            "libraries": lambda value: _is_mapping(value, is_text),
        },
    ),
}
"""The forms that the description of each type may have."""


def has_form(type_name: str, description: object, *, is_portable: bool = False) -> bool:
    """Tell whether a description is one that a value of a type may have.

    Parameters
    ----------
    type_name : str
        The type; one that is not known has no descriptions.
    description : object
        Whatever was read.
    is_portable : bool
        Whether it is the description of a value on its way, which has no paths; default False.

    Examples
    --------
    >>> has_form("metrics", {"metrics": {"loss": 0.5}}), has_form("metrics", {"metrics": {"loss": "low"}})
    (True, False)
    """
    return any(_fits(description, _without_paths(form) if is_portable else form) for form in FORMS.get(type_name, ()))


def _without_paths(form: Mapping[str, Form]) -> Mapping[str, Form]:
    return {
        name: _without_paths(each) if isinstance(each, Mapping) else each
        for name, each in form.items()
        if name != "path"
    }


def _fits(value: object, form: Form) -> bool:
    if not isinstance(form, Mapping):
        return form(value)
    return (
        isinstance(value, dict)
        and value.keys() == form.keys()
        and all(_fits(value[name], each) for name, each in form.items())
    )
