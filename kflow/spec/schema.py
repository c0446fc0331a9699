"""The JSON Schema of workflow files: completion, hover text and error marks in an editor."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from kflow.spec.base import Compound, StepSpec
from kflow.spec.calls import FAMILY_KEY, call_schema, keras_names
from kflow.spec.references import LONGEST_NAME, STEP_NAME
from kflow.spec.workflow import Header

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Anywhere a value stands, a param or an environment variable may stand for it.
_PLACEHOLDER = {"type": "string", "pattern": r"\$\{(params|env)\.[A-Za-z_][\w.-]*\}"}
_REF = "#/$defs/"


class _Generator(GenerateJsonSchema):
    """Writes the default of a call the way a workflow does."""

    def encode_default(self, dft: Any) -> Any:
        """Return a default as JSON."""
        return dft.parts() if isinstance(dft, Compound) else super().encode_default(dft)


def workflow_schema(kinds: Mapping[str, type[StepSpec]]) -> dict[str, Any]:
    """Make the schema from the types.

    Parameters
    ----------
    kinds : mapping of str to type
        The step kinds by name.

    Returns
    -------
    dict
        A JSON Schema, draft 2020-12.
    """
    definitions: dict[str, Any] = {"placeholder": _PLACEHOLDER}
    steps = []
    for name in kinds:
        schema = kinds[name].model_json_schema(ref_template=f"{_REF}{name}_{{model}}", schema_generator=_Generator)
        for model, definition in schema.pop("$defs", {}).items():
            definitions[f"{name}_{model}"] = _open(definition)
        definitions[name] = _step_schema(name, _open(schema), kinds[name])
        steps.append({"if": _has_kind(name), "then": {"$ref": f"{_REF}{name}"}})
    for family, names in keras_names().items():
        definitions[f"keras_{family}"] = _open(call_schema(tuple(names)))
    return {**_header_schema(kinds, steps), "$defs": _used(definitions)}


def _header_schema(kinds: Mapping[str, type[StepSpec]], steps: list[dict[str, Any]]) -> dict[str, Any]:
    header = Header.model_json_schema()
    manuals = {name: kinds[name].manual().partition("\n")[0] for name in kinds}
    header["properties"]["steps"] = {
        "type": "object",
        "description": "The steps by name.",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^(?!(params|env)$){STEP_NAME}$", "maxLength": LONGEST_NAME},
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": {
                "kind": {"oneOf": [{"const": name, "description": text} for name, text in manuals.items()]},
            },
            "allOf": steps,
        },
    }
    return {"$schema": DIALECT, **header, "title": "kflow workflow", "description": "A workflow of kflow."}


def _has_kind(name: str) -> dict[str, Any]:
    return {"required": ["kind"], "properties": {"kind": {"const": name}}}


def _step_schema(name: str, schema: dict[str, Any], kind: type[StepSpec]) -> dict[str, Any]:
    return {
        "description": kind.manual(),
        "type": "object",
        "properties": {"kind": {"const": name, "description": "What the step does."}, **schema["properties"]},
        "required": ["kind", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a param stand for every value inside a schema, and give the calls of Keras their names."""
    result = dict(schema)
    for key in {"properties", "patternProperties"} & set(result):
        result[key] = {name: _or_placeholder(value) for name, value in result[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = _or_placeholder(result[key])
    if "anyOf" in result:
        result["anyOf"] = [_open(each) for each in result["anyOf"]]
    if FAMILY_KEY in result:
        return {"$ref": f"{_REF}keras_{result.pop(FAMILY_KEY)}", **result}
    return result


def _or_placeholder(schema: dict[str, Any]) -> dict[str, Any]:
    """Let ``${params.x}`` stand for a value; the description stays where editors look for it."""
    kept = {key: schema[key] for key in _KEPT if key in schema}
    rest = {key: value for key, value in schema.items() if key not in kept}
    if not rest or rest == {"type": "string"}:
        return schema
    choices = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**kept, "anyOf": [*map(_open, choices), {"$ref": f"{_REF}placeholder"}]}


_KEPT = ("title", "description", "default")


def _used(definitions: dict[str, Any]) -> dict[str, Any]:
    """Leave out the families of Keras that no field takes."""
    text = json.dumps({name: each for name, each in definitions.items() if not name.startswith("keras_")})
    return {
        name: each for name, each in definitions.items() if not name.startswith("keras_") or f'{_REF}{name}"' in text
    }
