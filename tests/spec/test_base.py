"""The contract of a step kind: outputs, walking a spec, changing its texts, and examining."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kflow.registry import Registry
from kflow.spec.base import (
    Examination,
    StepContext,
    StepOutputs,
    StepSpec,
    find_texts,
    input_paths,
    map_texts,
    references,
)
from kflow.spec.calls import Call
from kflow.spec.facts import ArrayFact
from kflow.spec.types import Array, FileOrPath, Model, Origin, OutputPath
from kflow.workspace import Workspace

nests = st.recursive(
    st.integers() | st.text(), lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner)
)


class Inner(BaseModel):
    """A mapping inside a step."""

    source: FileOrPath


class Sample(StepSpec, kind="sample", version=1):
    """A kind with a field of every sort."""

    x: Array | tuple[Array, ...]
    inner: Inner
    origin: Origin = Origin("a.h5")
    layers: tuple[Call, ...] = ()
    to_file: OutputPath = OutputPath("out.png")

    class Outputs(StepOutputs):
        """Two outputs."""

        model: Model
        array: Array


def sample(**fields: Any) -> Sample:
    """Make a step with all that must be there."""
    return Sample.model_validate({"x": "${a}", "inner": {"source": "b.h5"}, **fields})


def test_outputs_have_types_in_order() -> None:
    """What others may reference follows from the annotations."""
    assert Sample.Outputs.types() == {"model": Model, "array": Array}


def test_outputs_must_all_be_given() -> None:
    """A kind that forgets an output, or invents one, is told so."""
    assert Sample.Outputs(model=1, array=2).values == {"model": 1, "array": 2}
    with pytest.raises(TypeError, match=r"takes \['array', 'model'\], got \['model', 'modle'\]"):
        Sample.Outputs(model=1, modle=2)


def test_every_text_is_found_with_its_place_in_the_document() -> None:
    """Nested models, lists and calls are entered; a bare call stands for its name."""
    spec = sample(
        x=["${a}", "${b.array}"],
        layers=["Flatten", {"Dense": {"units": 3, "kernel_regularizer": {"L2": {}}, "activation": "relu"}}],
    )

    assert dict(find_texts(spec)) == {
        ("x", 0): "${a}",
        ("x", 1): "${b.array}",
        ("inner", "source"): "b.h5",
        ("origin",): "a.h5",
        ("layers", 0): "Flatten",
        ("layers", 1, "Dense", "activation"): "relu",
        ("to_file",): "out.png",
    }


def test_references_and_files_of_a_step_are_found_by_their_types() -> None:
    """Edges of the graph, and the files to read, are told with their places; a remote origin is no file."""
    spec = sample(x=["${a}", "${b.array}"], inner={"source": "${c}"}, origin="http://example.org/x")

    assert list(references(find_texts(spec))) == [
        (("x", 0), "${a}"),
        (("x", 1), "${b.array}"),
        (("inner", "source"), "${c}"),
    ]
    assert list(input_paths(find_texts(spec))) == []
    assert list(input_paths(find_texts(sample(origin="file:///tmp/x")))) == [
        (("inner", "source"), "b.h5"),
        (("origin",), "/tmp/x"),
    ]


def test_texts_change_and_types_stay() -> None:
    """Every text of a step can be changed, those in calls included, and stays of its type."""
    changed = map_texts(sample(layers=["a", {"B": {"c": ["d", 1]}}], to_file="e.png"), str.upper)

    assert changed == sample(x="${A}", inner={"source": "B.H5"}, layers=["A", {"B": {"c": ["D", 1]}}], to_file="E.PNG")
    assert [type(changed.x), type(changed.to_file), type(changed.origin)] == [Array, OutputPath, Origin]


@given(nests)
def test_changing_no_text_changes_nothing(value: Any) -> None:
    """With the identity every nested value is what it was."""
    assert map_texts(value, str) == value


@pytest.mark.parametrize("name", list(Registry()))
def test_defaults_of_every_kind_are_what_writing_them_down_gives(name: str) -> None:
    """A default goes the same way as a value of the workflow, so that both have one fingerprint."""
    kind = Registry()[name]
    fields = {field: info for field, info in kind.model_fields.items() if not info.is_required()}
    examples = {"${x}": None, "a.keras": None, "mse": None, ("a.py:b",): None}
    required = {
        field: next(value for value in _examples(examples) if _takes(kind, field, value))
        for field in kind.model_fields
        if field not in fields
    }
    spec = kind.model_validate(required)

    dumped = spec.model_dump(mode="json")

    assert kind.model_validate(dumped).model_dump(mode="json") == dumped


def _examples(examples: dict[Any, None]) -> list[Any]:
    return [{"A": each[0]} if isinstance(each, tuple) else each for each in examples]


def _takes(kind: type[StepSpec], field: str, value: object) -> bool:
    try:
        kind.__pydantic_validator__.validate_assignment(kind.model_construct(), field, value)
    except ValueError as error:
        return not any(each["loc"][0] == field for each in error.errors())  # type: ignore[attr-defined]
    return True


def test_what_a_kind_may_leave_out_has_a_plain_answer(tmp_path: Any) -> None:
    """A kind that says nothing of GPUs, exports or facts wants none, exports nothing and knows nothing."""
    spec = sample()

    assert (spec.gpus_wanted(), dict(spec.exports())) == (0, {})
    assert spec.examine(Examination({}, Workspace(tmp_path))) == {}


def test_the_manual_of_a_kind_is_the_docstring_of_its_module() -> None:
    """Whoever writes a kind writes its manual in the same file."""
    assert Sample.manual() == __doc__


def test_an_examination_gathers_problems_and_knows_facts(tmp_path: Any) -> None:
    """Facts are asked for by reference; text that is no reference has none."""
    exam = Examination({"${a}": ArrayFact((3, 4))}, Workspace(tmp_path))
    exam.problem("too few", "x", 0)
    exam.misspelt("unknown", "abd", ("abc",), "y")

    assert exam.fact(Array("${a}")) == ArrayFact((3, 4))
    assert exam.fact("${a}") is None
    assert [(each.message, each.path, each.name) for each in exam.problems] == [
        ("too few", ("x", 0), None),
        ("unknown", ("y",), "abd"),
    ]


def test_a_context_opens_references_and_finds_files(tmp_path: Any) -> None:
    """A path is made absolute; a reference to a file is opened."""
    artifacts = {"${f}": lambda: str(tmp_path / "stored"), "${a}": lambda: [1, 2]}
    context = StepContext(tmp_path, tmp_path, 0, 0, artifacts, {}, lambda _: None)
    spec, linked = sample(), sample(inner={"source": "${f}"})

    assert context.open(Array("${a}")) == [1, 2]
    assert context.path(spec.inner.source) == tmp_path / "b.h5"
    assert context.path(linked.inner.source) == tmp_path / "stored"
