"""A workflow and its steps, as typed values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from kflow.document import Document
from kflow.spec.base import COMPUTING_THREADS, Path_, StepSpec, find_texts
from kflow.spec.references import LONGEST_NAME
from kflow.spec.types import Objects, Symbol, expected, fail

_CODE = (Symbol, Objects)
_THREADED = frozenset({"numpy", "tensorflow"})
"""The libraries whose results can depend on the number of threads."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _check_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise expected("a name of letters from a to z, digits, '.', '_' and '-'")
    if len(name) > LONGEST_NAME:
        raise fail(f"the name of a workflow has at most {LONGEST_NAME} characters, this one has {len(name):,}")
    return name


class Header(BaseModel):
    """The top level of a workflow file; the steps are read one by one with the model of their kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kflow: Literal[1] = Field(description="The version of the workflow language.")
    name: Annotated[str, AfterValidator(_check_name)] = Field(
        description="The name of the experiment: letters from a to z, digits, '.', '_' and '-'.",
        json_schema_extra={"pattern": _NAME, "maxLength": LONGEST_NAME},
    )
    description: str | None = Field(default=None, description="A note for the reader.")
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**31)] = Field(
        default=0, description="Seeds initial weights, shuffling and dropout."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Values to use as ${params.name}; change them with --set name=value."
    )
    steps: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = Field(description="The steps by name.")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a workflow: its typed spec, and its fields as they may be shown and kept."""

    name: str
    spec: StepSpec
    fields: Mapping[str, Any]
    """The fields after substitution of params, with environment variables left as ``${env.X}``."""
    variables: Mapping[str, str]
    """The environment variables that the fields use, whether they can change the result or not."""
    texts: tuple[tuple[Path_, str], ...] = field(init=False, repr=False)
    """Every text inside the spec with its path; gathered once, because all of planning asks for it."""

    runs_code: bool = field(init=False, repr=False)
    """Whether it executes code of the user's: its own, or that of its custom objects."""

    def __post_init__(self) -> None:
        texts = tuple(find_texts(self.spec))
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "runs_code", any(isinstance(text, _CODE) for _, text in texts))

    def as_written(self, path: Path_) -> Any:
        """Return what the workflow says at the path of a text; where a variable holds more than that, the way to it."""
        value: Any = self.fields
        for number, part in enumerate(path):
            if isinstance(value, str):
                return ".".join([value, *map(str, path[number:])])
            value = value[part]
        return value

    @property
    def is_random(self) -> bool:
        """Whether the seed can change its result."""
        return self.runs_code if self.spec.is_random is None else self.spec.is_random

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries whose versions can change its result; code of the user's hangs on Python's as well.

        It may use NumPy without naming it.
        """
        known = self.spec.libraries
        if not self.runs_code:
            return known
        return tuple(dict.fromkeys((*known, *(("numpy", "python") if self.is_random else ("python",)))))

    @property
    def threads(self) -> int:
        """The number of threads that it computes with; 0 where that cannot change its result."""
        if not self.runs_code and _THREADED.isdisjoint(self.spec.libraries):
            return 0
        return self.spec.resources.cpus or COMPUTING_THREADS

    @property
    def cpus(self) -> int:
        """The number of processors that it keeps busy."""
        return self.threads or self.spec.resources.cpus or 1


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow whose every step is well formed."""

    document: Document
    name: str
    seed: int
    params: Mapping[str, Any]
    steps: Mapping[str, Step]
    variables: Mapping[str, str] = field(init=False, repr=False)
    """The environment variables that the steps use: an error of one may tell of what another one was given."""

    def __post_init__(self) -> None:
        variables = {name: value for step in self.steps.values() for name, value in step.variables.items()}
        object.__setattr__(self, "variables", variables)
