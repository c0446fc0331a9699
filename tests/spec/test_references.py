"""References: what `${...}` stands for, and how text that only looks like one is written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.spec.references import (
    Fault,
    Target,
    escape,
    has_reference,
    names_used,
    parse_target,
    substitute,
    unescape,
)

any_nest = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["${a}", "$${a}", "$$${params.x}"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def look_up(name: str) -> Any:
    """Know a few params of every type."""
    known: dict[str, Any] = {"n": 3, "rate": 1e-3, "on": True, "no": None, "name": "digits", "list": [1, "a"]}
    if name not in known:
        message = f"there is no param {name!r}"
        raise KeyError(message, name, tuple(known))
    return known[name]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("${fit}", Target("fit")),
        ("${fit.model}", Target("fit", "model")),
        ("${x-1._y}", Target("x-1", "_y")),
        ("${a.b.c}", None),
        ("${params.x}", None),
        ("${env.HOME}", None),
        ("${params}", None),
        ("${ fit }", None),
        ("${}", None),
        ("${1a}", None),
        ("x${fit}", None),
        ("$${fit}", None),
        ("fit", None),
    ],
)
def test_a_target_is_a_step_with_or_without_an_output(text: str, target: Target | None) -> None:
    """Only a whole `${step}` or `${step.output}` is a target."""
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${params.n}", 3),
        ("${params.rate}", 1e-3),
        ("${params.on}", True),
        ("${params.no}", None),
        ("${params.list}", [1, "a"]),
        ("${params.name}", "digits"),
    ],
)
def test_a_whole_reference_keeps_the_type(text: str, value: object) -> None:
    """A value that is one reference becomes the param itself."""
    faults: list[Fault] = []

    assert substitute(text, "params", look_up, faults) == value
    assert not faults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("run-${params.n}", "run-3"),
        ("${params.name}-${params.n}.h5", "digits-3.h5"),
        (" ${params.n}", " 3"),
        ("r=${params.rate}", "r=0.001"),
        ("${params.on}, ${params.no}", "true, null"),
        ("of ${params.list}", 'of [1, "a"]'),
        ("$${params.n} is ${params.n}", "$${params.n} is 3"),
        ("${step.array} ${env.X}", "${step.array} ${env.X}"),
        ("$5, {x} and ${", "$5, {x} and ${"),
    ],
)
def test_inside_a_longer_text_a_reference_becomes_text(text: str, value: str) -> None:
    """Params are written as YAML would write them; everything else stays as it stands."""
    assert substitute(text, "params", look_up, []) == value


def test_every_unknown_name_is_a_fault_at_its_place() -> None:
    """Unknown names do not stop the substitution; each is kept with its path and the names that exist."""
    faults: list[Fault] = []

    result = substitute({"a": ["${params.m}", "${params.n}"], "b": "x ${params.nam}"}, "params", look_up, faults)

    assert result == {"a": ["${params.m}", 3], "b": "x ${params.nam}"}
    assert [(fault.path, fault.name) for fault in faults] == [(("a", 0), "m"), (("b",), "nam")]
    assert all("name" in fault.candidates for fault in faults)


def test_names_used_are_found_at_any_depth() -> None:
    """The names of one space are told, those of the other and escaped ones are not."""
    value = {"a": ["${env.A} and ${env.B_2}", {"b": "${params.env}"}], "c": "$${env.C}", "d": 3}

    assert list(names_used(value, "env")) == ["A", "B_2"]


@pytest.mark.parametrize(("text", "has"), [("a ${b}", True), ("$${b}", False), ("${", False), ("$$${b}", False)])
def test_an_escaped_reference_is_none(text: str, has: bool) -> None:
    """Two dollars in front make text of a reference."""
    assert has_reference(text) is has


@given(st.text(alphabet="${}ab."))
def test_escaped_text_holds_no_reference_and_comes_back(text: str) -> None:
    """Escaping protects any text, and unescaping gives it back."""
    escaped = escape(text)

    assert not has_reference(escaped)
    assert parse_target(escaped) is None
    assert unescape(escaped) == text


@given(any_nest)
def test_substitution_leaves_escaped_values_alone(value: Any) -> None:
    """An escaped value has no references of either space, so that nothing is looked up."""
    escaped = escape(value)

    for space in ("params", "env"):
        assert substitute(escaped, space, lambda _: pytest.fail("looked up"), []) == escaped
