"""The JSON Schema of workflow files: completion, hover text and error marks in an editor."""

from collections.abc import Mapping
from typing import Any

from kflow.spec.base import StepSpec
from kflow.spec.references import STEP_NAME
from kflow.spec.workflow import Header

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Anywhere a value stands, a param or an environment variable may stand for it.
_PLACEHOLDER = {"type": "string", "pattern": r"\$\{(params|env)\.[A-Za-z_][\w.-]*\}"}


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
    definitions: dict[str, Any] = {}
    steps = []
    for name in kinds:
        schema = kinds[name].model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        definitions[f"step_{name}"] = _step_schema(name, schema, kinds[name])
        steps.append({"if": _has_kind(name), "then": {"$ref": f"#/$defs/step_{name}"}})
    header = Header.model_json_schema()
    manuals = {name: kinds[name].manual().partition("\n")[0] for name in kinds}
    header["properties"]["steps"] = {
        "type": "object",
        "description": "The steps by name.",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^(?!(params|env)$){STEP_NAME}$"},
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": {
                "kind": {"oneOf": [{"const": name, "description": text} for name, text in manuals.items()]},
            },
            "allOf": steps,
        },
    }
    return {"$schema": DIALECT, "title": "kflow workflow", **header, "$defs": definitions}


def _has_kind(name: str) -> dict[str, Any]:
    return {"required": ["kind"], "properties": {"kind": {"const": name}}}


def _step_schema(name: str, schema: dict[str, Any], kind: type[StepSpec]) -> dict[str, Any]:
    fields = {field: _allow_placeholder(value) for field, value in schema["properties"].items()}
    return {
        "description": kind.manual(),
        "type": "object",
        "properties": {"kind": {"const": name}, **fields},
        "required": ["kind", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _allow_placeholder(schema: dict[str, Any]) -> dict[str, Any]:
    """Let ``${params.x}`` stand for a field; the description stays where editors look for it."""
    kept = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in kept}
    return {**kept, "anyOf": [rest, _PLACEHOLDER]}
