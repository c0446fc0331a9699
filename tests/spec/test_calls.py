"""Calls such as `Conv2D: {filters: 32}`: their forms, and the names and arguments that Keras knows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from kflow.spec.base import Examination, Problem
from kflow.spec.calls import Call, check_call, custom_names, keras_names
from kflow.spec.facts import ObjectsFact
from kflow.spec.types import Objects
from kflow.workspace import Workspace

ROOT = Path(__file__).parents[2]


def check(written: Any, family: str, *custom: str) -> list[Problem]:
    """Return the problems of a call at the place `here`."""
    exam = Examination({}, Workspace(Path()))
    check_call(exam, Call.read(written), family, custom, "here")
    return exam.problems


@pytest.mark.parametrize(
    ("written", "call"),
    [
        ("relu", Call("relu")),
        ({"Dense": {"units": 3}}, Call("Dense", {"units": 3}, is_bare=False)),
        ({"Flatten": None}, Call("Flatten", {}, is_bare=False)),
        ({"Flatten": {}}, Call("Flatten", {}, is_bare=False)),
    ],
)
def test_a_call_is_a_name_with_or_without_arguments(written: Any, call: Call) -> None:
    """Both forms are read, and written again as they were."""
    adapter = TypeAdapter(Call)

    assert adapter.validate_python(written) == call
    assert adapter.validate_python(adapter.dump_python(call, mode="json")) == call


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "expected a name"),
        (3, "expected a name"),
        ({}, "expected a name"),
        ({"A": {}, "B": {}}, "expected a name, or one name with its arguments"),
        ({"Dense": 3}, "the arguments of Dense must be a mapping"),
    ],
)
def test_another_form_is_refused_in_words(written: Any, words: str) -> None:
    """The complaint shows how a call is written."""
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Call).validate_python(written)


@pytest.mark.parametrize(
    ("written", "family"),
    [
        ("adam", "optimizers"),
        ({"Adam": {"learning_rate": 0.1, "clipnorm": 1.0}}, "optimizers"),
        ("accuracy", "metrics"),
        ("mse", "metrics"),
        ("mse", "losses"),
        ({"EarlyStopping": {"patience": 3}}, "callbacks"),
        ({"Input": {"shape": [3]}}, "layers"),
        ({"Conv2D": {"filters": 3, "kernel_size": 3, "name": "a", "activation": "gelu"}}, "layers"),
        ({"Dense": {"units": 3, "kernel_initializer": "he_normal", "bias_constraint": "non_neg"}}, "layers"),
    ],
)
def test_names_and_arguments_of_keras_are_known(written: Any, family: str) -> None:
    """What Keras takes is no problem."""
    assert check(written, family) == []


@pytest.mark.parametrize(
    ("written", "family", "message", "path", "near"),
    [
        ("adm", "optimizers", "unknown optimizer 'adm'", ("here",), "adam"),
        ({"Conv2d": {}}, "layers", "unknown layer 'Conv2d'", ("here", "Conv2d"), "Conv2D"),
        ({"Adam": {"lr": 1}}, "optimizers", "Adam has no argument 'lr'", ("here", "Adam", "lr"), "learning_rate"),
        (
            {"Dense": {"activation": "rellu"}},
            "layers",
            "unknown activation 'rellu'",
            ("here", "Dense", "activation"),
            "relu",
        ),
        (
            {"Dense": {"kernel_regularizer": "l3"}},
            "layers",
            "unknown regularizer 'l3'",
            ("here", "Dense", "kernel_regularizer"),
            "l2",
        ),
    ],
)
def test_a_name_that_nobody_knows_is_reported_with_those_that_are(
    written: Any, family: str, message: str, path: tuple[str, ...], near: str
) -> None:
    """The problem stands at its place and brings the candidates for a suggestion."""
    (problem,) = check(written, family)

    assert (problem.message, problem.path) == (message, path)
    assert near in problem.candidates


def test_candidates_of_the_same_case_come_first() -> None:
    """Who writes a text means a text: 'acuracy' is 'accuracy' before it is 'Accuracy'."""
    (problem,) = check("acuracy", "metrics")

    assert problem.candidates.index("accuracy") < problem.candidates.index("Accuracy")


@pytest.mark.parametrize("written", ["Swish", {"Swish": {"anything": 3}}, {"Dense": {"activation": "Swish"}}])
def test_custom_names_are_known_with_any_arguments(written: Any) -> None:
    """What the step takes with `objects:` is known, as a class and as an argument."""
    assert check(written, "layers", "Swish") == []


@pytest.mark.parametrize("objects", [Objects("${a}"), (Objects("${a}"), Objects("${b}")), None])
def test_custom_names_are_those_of_all_objects(objects: object) -> None:
    """One reference, several or none."""
    facts = {"${a}": ObjectsFact(("Swish",)), "${b}": ObjectsFact(("Mish", "Tanh"))}
    count = {type(None): 0, Objects: 1, tuple: 3}[type(objects)]

    assert custom_names(Examination(facts, Workspace(Path())), objects) == ("Swish", "Mish", "Tanh")[:count]


def test_every_family_has_names() -> None:
    """The file beside the module holds the families that kinds ask for."""
    names = keras_names()

    assert all(names[family] for family in ("layers", "optimizers", "losses", "metrics", "callbacks", "activations"))


def test_the_names_are_those_of_the_installed_keras() -> None:
    """The committed names are what the script makes of Keras anew."""
    script = ROOT / "schemas" / "make_keras_names.py"

    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, "run 'make schema'\n" + done.stderr
