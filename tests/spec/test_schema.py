"""The JSON Schema of workflows: what an editor offers, shows and marks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator

from kflow.document import load_document
from kflow.registry import Registry
from kflow.spec.base import StepOutputs, StepSpec
from kflow.spec.calls import Call, Family
from kflow.spec.schema import workflow_schema
from kflow.spec.types import Array

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "tests" / "workflows"
KINDS = Registry()
SCHEMA = json.loads(json.dumps(workflow_schema(KINDS)))
VALIDATOR = Draft202012Validator(SCHEMA)

# Whatever a form without a meaning can show; all else (references, files, shapes) only `kflow validate` sees.
STRUCTURAL = {
    "bad_names": {("name",), ("seed",), ("steps",)},
    "epochs_negative": {("steps", "fit", "epochs")},
    "epochs_three": {("steps", "fit", "epochs")},
    "layer_with_two_names": {("steps", "model", "layers")},
    "missing_fields": {("steps", "a"), ("steps", "b")},
    "no_steps": {()},
    "step_without_kind": {("steps", "a")},
    "unknown_fields": {("steps", "fit")},
    "unknown_kind": {("steps", "a", "kind")},
    "unknown_top_level_key": {()},
    "top_and_steps": {(), ("steps", "a"), ("steps", "b"), ("steps", "c")},
    "two_cycles": {("steps", "g", "order")},
    "references_out_of_place": {("steps", "z", "x")},
    "wrong_types": {
        ("kflow",),
        ("seed",),
        *(("steps", "a", field) for field in ("datapath", "dataset", "start", "end", "normalizer")),
        *(("steps", "b", field) for field in ("x", "axis")),
        ("steps", "c", "extract"),
        *(("steps", step, "objects") for step in "de"),
        ("steps", "f", "rankdir"),
        *(("steps", "fit", field) for field in ("model", "x", "y", "validation_data", "validation_split", "loss")),
        *(("steps", "fit", field) for field in ("metrics", "class_weight", "epochs", "shuffle", "gpus", "objects")),
        ("steps", "test", "expect"),
        ("steps", "g"),
        ("steps", "h", "kind"),
    },
}


def errors(value: Any, validator: Draft202012Validator = VALIDATOR) -> set[tuple[str | int, ...]]:
    """Return the places that an editor marks."""
    return {tuple(error.absolute_path) for error in validator.iter_errors(value)}


def workflow(**fields: Any) -> dict[str, Any]:
    """Return a workflow of one step."""
    return {"kflow": 1, "name": "a", "steps": {"a": fields}}


def test_the_schema_is_one() -> None:
    """It follows the rules of draft 2020-12, and says that it does."""
    Draft202012Validator.check_schema(SCHEMA)

    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "workflows").glob("*.yaml"), *(WORKFLOWS / "valid").glob("*.yaml")]),
    ids=lambda path: path.stem,
)
def test_sound_workflows_have_no_mark(path: Path) -> None:
    """What kflow takes an editor takes."""
    assert errors(load_document(path).value) == set()


@pytest.mark.parametrize("name", sorted(STRUCTURAL))
def test_broken_workflows_are_marked_where_they_are_broken(name: str) -> None:
    """Unknown fields and kinds, missing fields and wrong types are marked as they are typed."""
    found = errors(load_document(WORKFLOWS / "invalid" / f"{name}.yaml").value)

    assert {path[: len(wanted)] for path in found for wanted in STRUCTURAL[name] if path[: len(wanted)] == wanted} == (
        STRUCTURAL[name]
    )
    assert all(any(path[: len(wanted)] == wanted for wanted in STRUCTURAL[name]) for path in found)


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the fields of a schema and of all that it refers to, with dotted names."""
    for name, field in schema.get("properties", {}).items():
        yield name, field
        for branch in [field, *field.get("anyOf", [])]:
            reference = branch.get("$ref", "").removeprefix("#/$defs/")
            if reference and not reference.startswith("keras_"):
                yield from ((f"{name}.{inner}", each) for inner, each in properties(SCHEMA["$defs"][reference]))


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_field_has_hover_text(kind: str) -> None:
    """Who points at a kind or a field reads what it is for."""
    schema = SCHEMA["$defs"][kind]

    assert schema["description"] == KINDS[kind].manual()
    assert [name for name, field in properties(schema) if not field.get("description")] == []
    assert set(schema["properties"]) == {"kind", *KINDS[kind].model_fields}


def test_the_top_level_has_hover_text_and_the_kinds_are_offered() -> None:
    """An editor completes the top level and the kinds, each with a line about it."""
    kinds = SCHEMA["properties"]["steps"]["additionalProperties"]["properties"]["kind"]["oneOf"]

    assert all(field["description"] for field in SCHEMA["properties"].values())
    assert {each["const"]: each["description"] for each in kinds} == {
        name: KINDS[name].manual().partition("\n")[0] for name in KINDS
    }


@pytest.mark.parametrize(
    ("step", "marked"),
    [
        ({"kind": "normalize", "x": "${a}", "order": "${params.order}"}, set()),
        ({"kind": "normalize", "x": "${a}", "axis": "${env.AXIS}"}, set()),
        ({"kind": "normalize", "x": "${a}", "axis": [1, "${params.axis}"]}, set()),
        ({"kind": "normalize", "x": "${params.source}"}, set()),
        ({"kind": "normalize", "x": "${a}", "order": "${a}"}, {("steps", "a", "order")}),
        ({"kind": "fetch", "origin": "${params.url}", "extract": "${params.extract}"}, set()),
        ({"kind": "slice_hdf5", "datapath": "a", "dataset": "b", "normalizer": {"scale": "${params.x}"}}, set()),
        ({"kind": "slice_hdf5", "datapath": "a", "dataset": "b", "end": "5"}, {("steps", "a", "end")}),
        ({"kind": "build_model", "layers": "${params.layers}"}, set()),
        ({"kind": "build_model", "layers": [{"Dense": {"units": "${params.x}"}}, "MyOwn", {"Mine": None}]}, set()),
        ({"kind": "build_model", "layers": [{"Dense": 3}]}, {("steps", "a", "layers")}),
    ],
)
def test_a_param_can_stand_for_any_value(step: dict[str, Any], marked: set[tuple[str, ...]]) -> None:
    """A number, a list or a reference may come from a param or a variable; a reference to a step is no number."""
    assert {path[:3] for path in errors(workflow(**step))} == marked


class Fit(StepSpec, kind="fit", version=1):
    """A kind with calls of two families."""

    layers: tuple[Annotated[Call, Family("layers")], ...]
    optimizer: Annotated[Call, Family("optimizers")] = Call("adam")

    class Outputs(StepOutputs):
        """One output."""

        array: Array


def test_the_names_of_keras_are_offered_and_others_may_stand_there() -> None:
    """An editor completes layers and optimizers; a custom name is no error, a wrong form is one."""
    schema = json.loads(json.dumps(workflow_schema({"fit": Fit})))
    validator = Draft202012Validator(schema)
    names, _, call = schema["$defs"]["keras_layers"]["anyOf"]

    assert {"Conv2D", "Dense", "Input"} <= set(names["enum"]) & set(call["properties"])
    assert set(schema["$defs"]) == {"placeholder", "fit", "fit_Resources", "keras_layers", "keras_optimizers"}
    assert schema["$defs"]["fit"]["properties"]["optimizer"]["default"] == "adam"
    for layers in (["Flatten", {"Dense": {"units": 3}}, {"Dense": None}, "MyOwn", {"MyOwn": {"a": 1}}], "${params.x}"):
        assert errors(workflow(kind="fit", layers=layers, optimizer="mine"), validator) == set()
    for layers in ([3], [{"Dense": {}, "Flatten": {}}], [{"Dense": 3}], [""]):
        assert errors(workflow(kind="fit", layers=layers), validator)


@pytest.mark.parametrize(
    ("arguments", "name"), [([], "workflow.schema.json"), (["--record"], "run-record.schema.json")]
)
def test_the_committed_schemas_are_what_the_types_give(arguments: list[str], name: str) -> None:
    """After a change of a field `make schema` writes them anew."""
    command = [sys.executable, "-m", "kflow", "schema", *arguments]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert (ROOT / "schemas" / name).read_text(encoding="utf-8") == done.stdout, "run 'make schema'"
    Draft202012Validator.check_schema(json.loads(done.stdout))
