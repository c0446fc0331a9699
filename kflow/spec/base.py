"""The contract of a step kind: its fields, its outputs, what it can tell beforehand, and how it runs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kflow.spec.facts import Fact
from kflow.spec.quantities import Duration, Resources
from kflow.spec.types import File, InputPath, Int, Origin, Reference, Symbol, fail

Path_ = tuple[str | int, ...]

COMPUTING_THREADS = 4
"""Threads of a step that computes with NumPy, TensorFlow or code of the user's. Their number can change the last bits
of a sum, so it is the same on every machine unless the workflow says otherwise; that of the processors would give
every machine results of its own."""


@dataclass(frozen=True, slots=True)
class NotFingerprinted:
    """Marks a field that cannot change what a step computes."""


class Compound:
    """A value of a field that is no model of pydantic's but has texts inside, as the document has them."""

    __slots__ = ()

    def parts(self) -> object:
        """Return what the document says: nested dicts, lists and scalars."""
        raise NotImplementedError

    @classmethod
    def read(cls, value: object) -> Self:
        """Make the value of its parts."""
        raise NotImplementedError


class StepOutputs:
    """The outputs of a kind: annotations say what others may reference, an instance carries the values."""

    def __init__(self, **values: object) -> None:
        declared = set(type(self).types())
        if set(values) != declared:
            msg = f"{type(self).__qualname__} takes {sorted(declared)}, got {sorted(values)}"
            raise TypeError(msg)
        self.values: Mapping[str, object] = values

    @classmethod
    @cache
    def types(cls) -> dict[str, type[Reference]]:
        """Return the type of each output, in order."""
        hints = get_type_hints(cls)
        return {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Reference)}


class Look(Protocol):
    """A look at the files and the machine, before anything runs; nothing is changed."""

    def resolve(self, path: str) -> Path:
        """Return the absolute path of what the workflow names."""

    def absolute(self, path: str) -> str:
        """Return the same as a text, which is quicker."""

    def is_file(self, path: str) -> bool:
        """Tell whether what the workflow names is a regular file."""

    def describe_dataset(self, path: str, dataset: str) -> tuple[tuple[int, ...], str]:
        """Return shape and dtype of an HDF5 data set; raises OSError with one sentence."""

    def check_symbol(self, module: str, name: str) -> None:
        """Raise SyntaxError, LookupError or ImportError where a Python file does not define a name, or cannot."""

    def sources(self, module: str) -> tuple[str, ...]:
        """Return a user module and the local modules that it imports, relative to the workflow file."""

    def digest(self, path: str, algorithm: str = "sha256") -> str:
        """Return the digest of a file in hexadecimal digits."""

    def count_gpus(self) -> int:
        """Return the number of GPUs that a step could use."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field of a step, before anything runs."""

    message: str
    path: Path_
    name: str | None = None
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """What a step may use to foresee its outputs: facts of its inputs, a look around, a place for problems."""

    facts: Mapping[str, Fact]
    look: Look
    problems: list[Problem] = field(default_factory=list)

    def fact(self, reference: object) -> Fact | None:
        """Return what is known of a referenced output."""
        return self.facts.get(str(reference)) if isinstance(reference, Reference) else None

    def problem(self, message: str, *path: str | int) -> None:
        """Report what is wrong with the field at `path`."""
        self.problems.append(Problem(message, path))

    def misspelt(self, message: str, name: str, candidates: tuple[str, ...], *path: str | int) -> None:
        """Report a name that does not exist, with the names that do."""
        self.problems.append(Problem(message, path, name, candidates))


def _require_nothing() -> None:
    """Let a step that is run outside a run be."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step gets while it runs."""

    root: Path
    scratch: Path
    """The folder of `workdir`, which is made only for a step that asks for it."""
    seed: int
    gpus: int
    artifacts: Mapping[str, Callable[[], Any]]
    sources: Mapping[str, tuple[str, ...]]
    """For each user module, itself and the local modules that it imports, relative to the root."""
    report: Callable[[Mapping[str, Any]], None]
    checkpoints: Path | None = None
    """A folder that stays until the step is done, however often it is interrupted; None where there is none."""
    require_inputs: Callable[[], None] = _require_nothing
    """Raises an error if what the step was given is not what it was: ask before each write to `checkpoints`."""

    @property
    def workdir(self) -> Path:
        """An empty folder for what the step needs while it runs."""
        self.scratch.mkdir(exist_ok=True)
        return self.scratch

    def open(self, reference: Reference) -> Any:
        """Open the artifact that a reference names."""
        return self.artifacts[str(reference)]()

    def path(self, source: str) -> Path:
        """Return the file behind a reference, or a path of the workflow made absolute."""
        if isinstance(source, File):
            return Path(self.open(source))
        return self.root / source


class StepSpec(BaseModel):
    """A step as the workflow says it; a subclass is a kind."""

    # Defaults are validated like any value, so that leaving one out and writing it down is the same.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="constants")

    kind: ClassVar[str]
    version: ClassVar[int]
    libraries: ClassVar[tuple[str, ...]] = ()
    """The libraries whose versions can change the result."""
    loads_keras: ClassVar[bool] = False
    """Whether it loads Keras without being in need of a certain version; with ``libraries`` that is known."""
    is_random: ClassVar[bool | None] = None
    """Whether the seed of the workflow can change the result; None: where the step executes code of the user's."""
    announces: ClassVar[tuple[str, ...]] = ()
    """The outputs whose place in the store is told at the end of a run."""
    is_light: ClassVar[bool] = False
    """Whether the step may run inside the runner: it needs no heavy library, runs no code of the user's, and takes
    every path from its context instead of the current folder."""
    Outputs: ClassVar[type[StepOutputs]]

    # These say how a step is carried out, never what it computes: they stay out of the fingerprint.
    description: str | None = Field(default=None, description="A note for the reader.", exclude=True)
    needs: tuple[str, ...] = Field(
        default=(), exclude=True, description="Steps that must be done before, though none of their outputs is used."
    )
    retries: Annotated[Int, Field(ge=0, le=100)] = Field(
        default=0, exclude=True, description="How often to try again when the step fails, with growing pauses."
    )
    timeout: Duration | None = Field(
        default=None, exclude=True, description="Stop the step after this time, such as 90 (seconds), 10 min or 1h30m."
    )
    resources: Resources = Field(
        default=Resources(), exclude=True, description="What the step needs of the machine while it runs."
    )

    def __init_subclass__(cls, *, kind: str, version: int, **kwargs: Any) -> None:
        """Give a kind its name and the version of its meaning."""
        super().__init_subclass__(**kwargs)
        cls.kind = kind
        cls.version = version

    @classmethod
    def manual(cls) -> str:
        """Return the documentation of the kind: the docstring of its module."""
        module = inspect.getmodule(cls)
        return inspect.cleandoc((module and module.__doc__) or cls.__doc__ or "")

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Find what is wrong, and what is known of the outputs, before anything runs."""
        del exam
        return {}

    @model_validator(mode="after")
    def _has_one_number_of_gpus(self) -> Self:
        if self.resources.gpus and "gpus" in type(self).model_fields:
            raise fail("this kind has a field 'gpus'; use it instead of resources.gpus")
        return self

    def gpus_wanted(self) -> int | str:
        """Return how many GPUs the step wants: a number or 'all'."""
        return self.resources.gpus

    def exports(self) -> Mapping[str, str]:
        """Return the outputs that the user wants to have by path."""
        return {}

    def promises(self) -> Mapping[str, str]:
        """Return the SHA-256 of the outputs for which the workflow says it, whoever has made them."""
        return {}

    def run(self, context: StepContext) -> StepOutputs:
        """Do the work."""
        raise NotImplementedError


def find_texts(value: object) -> list[tuple[Path_, str]]:
    """Return every text in a spec, or in any value, with its path in the document.

    All that a step names is a text: references, files, code.

    Examples
    --------
    >>> find_texts({"a": ["x", 2]})
    [(('a', 0), 'x')]
    """
    found: list[tuple[Path_, str]] = []
    _collect(value, (), found)
    return found


_NO_TEXTS = {type(None), int, float, bool}


def _collect(value: object, path: Path_, found: list[tuple[Path_, str]]) -> None:
    if isinstance(value, str):
        found.append((path, value))
        return
    parts: Iterable[tuple[Any, object]] = ()
    if isinstance(value, BaseModel):
        parts = value.__dict__.items()
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    elif isinstance(value, Compound):
        _collect(value.parts(), path, found)
    for name, item in parts:
        if type(item) not in _NO_TEXTS:  # as most are
            _collect(item, (*path, name), found)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a spec, or any value in one, with every text changed; types stay.

    Examples
    --------
    >>> map_texts({"a": ("x", 1)}, str.upper)
    {'a': ('X', 1)}
    """
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: map_texts(getattr(value, name), change) for name in value.model_fields_set}
        )
    if isinstance(value, Compound):
        return value.read(map_texts(value.parts(), change))
    if isinstance(value, Mapping):
        return {key: map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_texts(item, change) for item in value)
    return type(value)(change(value)) if isinstance(value, str) else value


Texts = Iterable[tuple[Path_, str]]


def references(texts: Texts) -> Iterator[tuple[Path_, Reference]]:
    """Yield the references among the texts of a step, with the path of each."""
    for path, text in texts:
        if isinstance(text, Reference):
            yield path, text


def input_paths(texts: Texts) -> Iterator[tuple[Path_, str]]:
    """Yield the files of this machine that a step reads, with the path of each field."""
    for path, text in texts:
        if isinstance(text, InputPath):
            yield path, str(text)
        elif isinstance(text, Origin) and not text.is_remote:
            yield path, text.local_path


def modules(texts: Texts) -> list[str]:
    """Return the user modules that a step names, each once."""
    return list(dict.fromkeys(text.module for _, text in texts if isinstance(text, Symbol)))
