"""``Conv2D: {filters: 32}``: a Keras class by name with its arguments, checked without importing Keras.

The names and arguments that Keras knows lie beside this file in ``keras_names.json``, which
``make schema`` writes from the installed Keras and a test compares with it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kflow.spec.base import Compound, Examination, Path_
from kflow.spec.types import expected, fail

# What a text means as an argument, by the end of the argument's name.
_FAMILY_OF_ARGUMENT = {
    "activation": "activations",
    "_initializer": "initializers",
    "_regularizer": "regularizers",
    "_constraint": "constraints",
}


@dataclass(frozen=True, slots=True)
class Call(Compound):
    """A class or function of Keras or of the user's, with its arguments."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_bare: bool = True

    @classmethod
    def read(cls, value: object) -> Self:
        """Accept ``Name`` and ``{Name: {argument: value}}``."""
        if isinstance(value, cls):
            return value  # the default of a field
        if isinstance(value, str) and value:
            return cls(value)
        if isinstance(value, dict) and len(value) == 1:
            (name, arguments), *_ = value.items()
            if arguments is None or isinstance(arguments, dict):
                return cls(name, arguments or {}, is_bare=False)
            raise fail(f"the arguments of {name} must be a mapping, such as {name}: {{argument: value}}")
        raise expected("a name, or one name with its arguments, such as 'Dense: {units: 10}'")

    def parts(self) -> object:
        """Return the call as the document has it."""
        return self.name if self.is_bare else {self.name: dict(self.arguments)}

    def path(self, *prefix: str | int) -> Path_:
        """Return where the arguments stand in the document."""
        return prefix if self.is_bare else (*prefix, self.name)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            serialization=core_schema.plain_serializer_function_ser_schema(cls.parts),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        return call_schema(())


def call_schema(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON Schema of a call: an editor offers the names, and every other name may stand there too."""
    # A pattern that fits every name: what it says holds for the offered names too.
    call = {"type": "object", "patternProperties": {"": {"type": ["object", "null"]}}, "minProperties": 1}
    forms = [
        {"type": "string", "minLength": 1},
        {**call, "maxProperties": 1, "properties": {name: {} for name in names}},
    ]
    return {"anyOf": [{"enum": list(names)}, *forms] if names else forms}


@dataclass(frozen=True, slots=True)
class Family:
    """Says of which family of Keras the calls of a field are, for editors: ``Annotated[Call, Family("layers")]``."""

    name: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Point at a definition that the names of the family are in."""
        del schema, handler
        return {FAMILY_KEY: self.name}


FAMILY_KEY = "x-keras-family"
"""Stands in the schema of a field until the schema of the workflow puts a reference in its place."""

Layer = Annotated[Call, Family("layers")]
Optimizer = Annotated[Call, Family("optimizers")]
Loss = Annotated[Call, Family("losses")]
Metric = Annotated[Call, Family("metrics")]
Callback = Annotated[Call, Family("callbacks")]


@cache
def keras_names() -> dict[str, dict[str, list[str] | None]]:
    """Return, for each family of Keras, its names with their arguments (None: anything goes)."""
    text = Path(__file__).with_name("keras_names.json").read_text(encoding="utf-8")
    names: dict[str, dict[str, list[str] | None]] = json.loads(text)
    return names


def check_call(exam: Examination, call: Call, family: str, custom: tuple[str, ...], *path: str | int) -> None:
    """Report a name that neither Keras nor the workflow knows, and arguments that do not exist.

    Parameters
    ----------
    exam : Examination
        Where problems go.
    call : Call
        What the workflow says.
    family : str
        ``layers``, ``optimizers``, ``losses``, ``metrics``, ``callbacks``, ``activations``, ...
    custom : tuple of str
        The names of the custom objects that the step takes.
    path : str or int
        Where the call stands in the step.
    """
    known = keras_names()[family]
    if call.name in custom:
        return
    if call.name not in known:
        message = f"unknown {_SINGULAR[family]} {call.name!r}"
        exam.misspelt(message, call.name, _alike_first(call.name, (*known, *custom)), *call.path(*path))
        return
    arguments = known[call.name]
    for name, value in call.arguments.items():
        if arguments is not None and name not in arguments:
            where = (*call.path(*path), name)
            exam.misspelt(f"{call.name} has no argument {name!r}", name, tuple(arguments), *where)
        else:
            _check_argument(exam, name, value, custom, (*call.path(*path), name))


def _check_argument(exam: Examination, name: str, value: Any, custom: tuple[str, ...], path: Path_) -> None:
    for suffix, family in _FAMILY_OF_ARGUMENT.items():
        if name.endswith(suffix) and isinstance(value, str):
            known = keras_names()[family]
            if value not in known and value not in custom:
                exam.misspelt(f"unknown {_SINGULAR[family]} {value!r}", value, (*known, *custom), *path)


def _alike_first(name: str, candidates: tuple[str, ...]) -> tuple[str, ...]:
    """Put the names of the same case first: 'acuracy' means the text 'accuracy', not the class."""
    return tuple(sorted(candidates, key=lambda each: each[:1].isupper() != name[:1].isupper()))


def custom_names(exam: Examination, objects: object) -> tuple[str, ...]:
    """Return the names that the ``objects:`` of a step brings."""
    return tuple(_each_name(exam, objects))


def _each_name(exam: Examination, objects: object) -> Iterator[str]:
    for reference in objects if isinstance(objects, list | tuple) else [objects]:
        yield from getattr(exam.fact(reference), "names", ())


_SINGULAR = {
    "layers": "layer",
    "optimizers": "optimizer",
    "losses": "loss",
    "metrics": "metric",
    "callbacks": "callback",
    "activations": "activation",
    "initializers": "initializer",
    "regularizers": "regularizer",
    "constraints": "constraint",
}
