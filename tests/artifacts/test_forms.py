"""A description is what a value of its type may have, to its last field, or it is none."""

import copy
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kflow.artifacts import TYPES
from kflow.artifacts.forms import FORMS, has_form

D = "ab" * 32
SHAPE = {"shape": [3, 2], "dtype": "float32"}
VIEW = {"source": {"path": "/a.h5", "content": D, "dataset": "x", "start": 0, "end": 3}, "operations": [], **SHAPE}
DESCRIPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "array": ("array", {"name": "array.npy", "content": D, **SHAPE}),
    "view": ("array", VIEW),
    "scaled": ("array", {**VIEW, "operations": [{"do": "scale", "scale": 2.0, "offset": 0, "dtype": "float64"}]}),
    "encoded": (
        "array",
        {
            **VIEW,
            "operations": [
                {"do": "one_hot", "num_classes": 2, "dtype": "uint8", "classes": [2**64, "b"], "label_smoothing": 0.1}
            ],
        },
    ),
    "normalized": ("array", {**VIEW, "operations": [{"do": "normalize", "axis": [-1, 1], "order": "inf"}]}),
    "file": ("file", {"name": "a.bin"}),
    "a file of the user's": ("file", {"path": "/a.bin"}),
    "history": ("history", {"name": "history.json", "epochs": 2, "last": {"loss": 0.5}}),
    "image": ("image", {"name": "a.png"}),
    "metrics": ("metrics", {"metrics": {"loss": 0.5, "steps": 3, "other": float("nan")}}),
    "model": ("model", {"name": "model.keras", "parameters": 10}),
    "objects": ("objects", {"objects": {"Swish": ["0/layers.py", "Swish"]}, "libraries": {"scipy": "1.0"}}),
}
WRONG = [-1, True, 0.5, 10**400, [[]], {"a": {}}, "low", "\ud800", None]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a description its fields and values stand."""
    if path:
        yield path
    nested = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in nested:
        yield from leaves(each, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """Return a description with something else in one place."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = by
    return changed


def test_every_type_has_a_form() -> None:
    """One without could be stored, and never found again."""
    assert FORMS.keys() == TYPES.keys() == {type_name for type_name, _ in DESCRIPTIONS.values()}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_has_the_form_of_its_type(name: str) -> None:
    """And that of no other type."""
    type_name, description = DESCRIPTIONS[name]
    alike = {"file", "image"} if description.keys() == {"name"} else {type_name}

    assert {each for each in TYPES if has_form(each, description)} == alike


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_field_more_or_less_makes_another_form(name: str) -> None:
    """At every depth but that of names which are free."""
    type_name, description = DESCRIPTIONS[name]
    objects = [path for path in leaves(description) if isinstance(path[-1], str)]
    free = {"loss", "steps", "other", "Swish", "scipy", "classes", "label_smoothing"}
    for path in objects:
        less = replaced(description, path, None)
        inner = less
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

        assert has_form(type_name, less) == (path[-1] in free), path
    assert not has_form(type_name, {**description, "more": 1})


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_no_field_may_hold_what_it_never_holds(name: str) -> None:
    """Of all that JSON may hold in the place of a field, only what such a field can have is taken."""
    type_name, description = DESCRIPTIONS[name]
    taken = {
        (path, repr(wrong))
        for path in leaves(description)
        for wrong in WRONG
        if has_form(type_name, replaced(description, path, wrong))
    }

    assert {each for each in taken if not may_hold(*each)} == set()


NUMBER, TEXT, NAME = {"-1", "0.5"}, {"'low'"}, {"'low'", r"'\ud800'"}
MAY: dict[str, set[str]] = {
    **dict.fromkeys(("loss", "steps", "other", "scale", "offset", "order", "label_smoothing"), NUMBER),
    **dict.fromkeys(("name", "path"), NAME),  # of any bytes; a file must have that name besides
    **{field: {"None"} for field in ("end", "parameters")},
    "dataset": {*TEXT, "None"},
    "axis": {"-1"},
    "classes[]": NUMBER | TEXT,
    "axis[]": {"-1"},
    "scipy": TEXT,
    "Swish[]": NAME,
}
"""What of `WRONG` a field may hold, or an item of it, though another value stands there."""


def may_hold(path: tuple[Any, ...], wrong: str) -> bool:
    field = path[-1] if isinstance(path[-1], str) else f"{path[-2]}[]"
    return wrong in MAY.get(field, set()) and not (path[-2:] == ("Swish", 1) and wrong not in TEXT)


@pytest.mark.parametrize("number", ["0.5", None, [], {"a": 1.0}, 10**400, True])
def test_metrics_are_numbers(number: Any) -> None:
    """Nothing else can be told, recorded or compared."""
    assert not has_form("metrics", {"metrics": {"loss": number}})


@pytest.mark.parametrize("metrics", [[1], None, {"\ud800": 1.0}, "loss", 10**400])
def test_metrics_have_names(metrics: Any) -> None:
    """And these can be written."""
    assert not has_form("metrics", {"metrics": metrics})


OF_NUMPY = {*np.sctypeDict.values(), "S5", ">f4", "M8[ns]", "m8", np.dtype([("a", "<i4"), ("b", "S3", (2,))])}
OF_OTHERS = {value for value in vars(ml_dtypes).values() if isinstance(value, type) and issubclass(value, np.generic)}


@pytest.mark.parametrize("dtype", sorted({str(np.dtype(each)) for each in OF_NUMPY | OF_OTHERS}))
def test_a_dtype_of_numpy_is_known(dtype: str) -> None:
    """As it calls itself."""
    assert has_form("array", {"name": "a", "content": D, "shape": [], "dtype": dtype})


@pytest.mark.parametrize("dtype", ["", "low", "float32 ", "float32\n", "os.system", "<", "[", "\x1b[2J"])
def test_other_words_are_no_dtype(dtype: str) -> None:
    """They are shown, and taken for what they say."""
    assert not has_form("array", {"name": "a", "content": D, "shape": [], "dtype": dtype})


def test_what_is_on_its_way_has_no_paths() -> None:
    """And what is at home has one."""
    there = {**VIEW, "source": {key: each for key, each in VIEW["source"].items() if key != "path"}}

    assert has_form("array", there, is_portable=True)
    assert not has_form("array", there)
    assert not has_form("array", VIEW, is_portable=True)
    assert has_form("file", {}, is_portable=True)
    assert not has_form("file", {})
    assert not has_form("file", {"path": "/etc/passwd"}, is_portable=True)


def test_a_type_that_is_not_known_has_no_form() -> None:
    """A newer kflow may know more."""
    assert not has_form("hologram", {})
