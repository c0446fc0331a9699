"""The types of fields: what each takes, what it refuses in which words, and what it tells of itself."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kflow.spec.references import Target
from kflow.spec.types import (
    Array,
    Bool,
    Bound,
    Digest,
    File,
    FileOrPath,
    Float,
    Fraction,
    Gpus,
    InputPath,
    Int,
    Model,
    Origin,
    OutputPath,
    PositiveInt,
    Symbol,
)


def read(kind: Any, value: object) -> Any:
    """Validate a value as pydantic does for a field."""
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Int, 3),
        (PositiveInt, 1),
        (Float, 1.5),
        (Bool, False),
        (Fraction, 0.5),
        (Gpus, 0),
        (Gpus, 2),
        (Gpus, "all"),
        (Array, "${x}"),
        (Model, "${fit.model}"),
        (InputPath, "data/digits.h5"),
        (InputPath, "a$${b}.h5"),
        (OutputPath, "results/a.png"),
        (OutputPath, "./~a.png"),
        (Origin, "data/digits.h5"),
        (Origin, "HTTPS://example.org/x"),
        (Origin, "file:///tmp/x"),
        (Digest, "sha256:" + "0" * 64),
        (Digest, "A" * 32),
        (Digest, "blake2b:00ff"),
        (Symbol, "a/layers.py:Swish_2"),
    ],
)
def test_a_value_of_the_right_form_stays_what_it_is(kind: Any, value: object) -> None:
    """What is right is taken unchanged."""
    assert read(kind, value) == value


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Int, True, "valid integer"),
        (Int, "3", "valid integer"),
        (Int, 3.0, "valid integer"),
        (PositiveInt, 0, "greater than or equal to 1"),
        (Float, float("nan"), "finite"),
        (Float, True, "valid number"),
        (Bool, 1, "valid boolean"),
        (Bool, "yes", "valid boolean"),
        (Fraction, 1.0, "less than 1"),
        (Gpus, -1, "greater than or equal to 0"),
        (Gpus, True, "valid integer"),
        (Gpus, "some", "'all'"),
        (Array, "x", "a reference to an array"),
        (Array, 3, "a reference to an array"),
        (Model, "${a.b.c}", "a reference to a model"),
        (Model, "${params.x}", "a reference to a model"),
        (InputPath, " ", "the path of a file"),
        (InputPath, "a\0b", "the path of a file"),
        (InputPath, "http://example.org/x", "fetch a URL with a step of kind fetch"),
        (OutputPath, "results/", "the path of a file to write"),
        (OutputPath, "..", "the path of a file to write"),
        (OutputPath, "", "the path of a file to write"),
        (OutputPath, "~/a.png", "'~' does not stand for a home folder here; write the whole path"),
        (Origin, "ftp://example.org/x", "cannot fetch from ftp://"),
        (Origin, "https://", "names no file"),
        (Origin, "file://elsewhere/x", "it names the host elsewhere"),
        (Origin, "file:///a?b", "write a ? in a name as %3F"),
        (Origin, "", "a URL or a path"),
        (Digest, "sha256:12", "a sha256 digest has 64 hex digits, this one has 2"),
        (Digest, "xyz", "a digest in hexadecimal digits"),
        (Digest, "abc", "no known digest has 3 hex digits"),
        (Symbol, "layers:Swish", "'file.py:name'"),
        (Symbol, "layers.py:2x", "'file.py:name'"),
        (Symbol, "layers.py:", "'file.py:name'"),
        (FileOrPath, 3, "a path, or a reference to a file"),
        (FileOrPath, "", "the path of a file"),
    ],
)
def test_a_value_of_another_form_is_refused_in_words(kind: Any, value: object, words: str) -> None:
    """The complaint says what should stand there."""
    with pytest.raises(ValidationError, match=re.escape(words)):
        read(kind, value)


def test_a_reference_tells_step_and_output() -> None:
    """The planner follows a reference by its target."""
    assert read(Array, "${x.array}").target == Target("x", "array")


def test_a_file_can_be_a_reference_or_a_path() -> None:
    """The type of the value tells which of them it is."""
    assert [type(read(FileOrPath, text)) for text in ("${a}", "a", "x ${a}")] == [File, InputPath, InputPath]


@pytest.mark.parametrize(
    ("origin", "is_remote", "path"),
    [
        ("data/x.h5", False, "data/x.h5"),
        ("file:///tmp/x", False, "/tmp/x"),
        ("FILE://LocalHost/tmp/a%20b", False, "/tmp/a b"),
        ("Http://example.org/x", True, "Http://example.org/x"),
    ],
)
def test_an_origin_knows_whether_it_is_behind_a_network(origin: str, is_remote: bool, path: str) -> None:
    """Only what is on this machine has a local path."""
    found = read(Origin, origin)

    assert (found.is_remote, found.local_path) == (is_remote, path)


def test_a_symbol_is_a_module_and_a_name() -> None:
    """Both parts of a symbol can be asked for."""
    symbol = read(Symbol, "a/layers.py:Swish")

    assert (symbol.module, symbol.name) == ("a/layers.py", "Swish")


@pytest.mark.parametrize(
    ("bound", "value", "miss"),
    [
        (Bound(min=0.9), 0.9, None),
        (Bound(min=0.9), 0.8, "expected at least 0.9, got 0.8"),
        (Bound(max=1), 1.5, "expected at most 1, got 1.5"),
        (Bound(min=0, max=1), 0.5, None),
        (Bound(min=0), float("nan"), "expected at least 0, got nan"),
        (Bound(), float("nan"), None),
    ],
)
def test_a_bound_says_how_a_value_misses_it(bound: Bound, value: float, miss: str | None) -> None:
    """A value on the bound is good, one that is no number is not."""
    assert bound.describe_miss(value) == miss
