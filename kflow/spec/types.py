"""The types of a field: references to each type of artifact, paths, origins, digests, symbols and bounds.

Each is a small immutable value that keeps the text of the workflow, checks its form, and tells the
planner by its type what it stands for: an edge of the graph, a file to read, a file to write, or code.
"""

import os
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, PlainSerializer, Strict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from kflow.spec.references import STEP_NAME, Target, parse_target

Int = Annotated[int, Strict()]
PositiveInt = Annotated[int, Strict(), Field(ge=1)]
Bool = Annotated[bool, Strict()]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(gt=0, lt=1)]
# The bound stands inside: around the union pydantic would compare 'all' with a number.
Gpus = Annotated[int, Strict(), Field(ge=0)] | Literal["all"]

REFERENCE_PATTERN = rf"^\$\{{{STEP_NAME}(\.{STEP_NAME})?\}}$"
_DIGEST_LENGTH = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}


def fail(message: str) -> PydanticCustomError:
    """Return an error that says what is wrong with a value."""
    # Braces in a message are place holders to pydantic.
    return PydanticCustomError("kflow", "{text}", {"text": message})


def expected(what: str) -> PydanticCustomError:
    """Return an error that says what should stand there; what does stand there is added when it is shown."""
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def _text_schema(wanted: str) -> CoreSchema:
    """Return the schema of a text, with an error that says which text."""
    return core_schema.custom_error_schema(
        core_schema.str_schema(strict=True),
        "expected",
        custom_error_message="expected {what}",
        custom_error_context={"what": wanted},
    )


class _Text(str):
    """A text of a checked form."""

    __slots__ = ()
    wanted: ClassVar[str] = "a text"
    description: ClassVar[str] = ""
    pattern: ClassVar[str | None] = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Check the form; raises a pydantic error with one sentence."""
        return cls(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        # "after": what is no text does not reach read().
        return core_schema.no_info_after_validator_function(cls.read, _text_schema(cls.wanted))

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "description": cls.description}
        return schema | ({"pattern": cls.pattern} if cls.pattern else {})


class Reference(_Text):
    """A reference to the output of another step."""

    __slots__ = ()
    type_name: ClassVar[str] = ""
    pattern = REFERENCE_PATTERN

    @classmethod
    def read(cls, text: str) -> Self:
        """Accept ``${step}`` and ``${step.output}``."""
        if parse_target(text) is None:
            raise expected(cls.wanted)
        return cls(text)

    @property
    def target(self) -> Target:
        """The step and the output that the text names."""
        target = parse_target(self)
        assert target is not None, "read() has checked the form"
        return target


class File(Reference):
    """A file with known content."""

    __slots__ = ()
    type_name = "file"
    wanted = "a reference to a file, such as ${step.file}"
    description = "A reference to a file: the output of fetch or save_model."


class Array(Reference):
    """Rows of numbers: a window on a file, or values that a step computed."""

    __slots__ = ()
    type_name = "array"
    wanted = "a reference to an array, such as ${step.array}"
    description = "A reference to an array: the output of slice_hdf5, encode_labels, normalize or predict."


class Model(Reference):
    """A Keras model with its weights and, once trained, its optimizer and losses."""

    __slots__ = ()
    type_name = "model"
    wanted = "a reference to a model, such as ${step.model}"
    description = "A reference to a model: the output of build_model, load_model or train."


class Objects(Reference):
    """Named custom objects with their source."""

    __slots__ = ()
    type_name = "objects"
    wanted = "a reference to custom objects, such as ${step.objects}"
    description = "A reference to custom objects: the output of register_objects."


class Metrics(Reference):
    """Named numbers."""

    __slots__ = ()
    type_name = "metrics"
    wanted = "a reference to metrics, such as ${step.metrics}"
    description = "A reference to metrics: the output of evaluate."


class History(Reference):
    """Loss and metrics of each epoch."""

    __slots__ = ()
    type_name = "history"
    wanted = "a reference to a history, such as ${step.history}"
    description = "A reference to a training history: the output of train."


class Image(Reference):
    """A picture."""

    __slots__ = ()
    type_name = "image"
    wanted = "a reference to a picture, such as ${step.image}"
    description = "A reference to a picture: the output of plot_model or plot_history."


class InputPath(_Text):
    """A file to read, relative to the workflow file."""

    __slots__ = ()
    wanted = "the path of a file"
    description = "A file to read; a relative path starts at the workflow file."

    @classmethod
    def read(cls, text: str) -> Self:
        """Refuse empty paths and URLs."""
        if not text.strip() or "\0" in text:
            raise expected(cls.wanted)
        if "://" in text:
            raise fail("expected a path; fetch a URL with a step of kind fetch")
        return cls(text)

    @property
    def plain(self) -> str:
        """The path in its shortest form."""
        return os.path.normpath(self)


class OutputPath(_Text):
    """A file to write, relative to the workflow file."""

    __slots__ = ()
    wanted = "the path of a file to write"
    description = "A file to write; a relative path starts at the workflow file."

    @classmethod
    def read(cls, text: str) -> Self:
        """Refuse empty paths, folders, and what a shell would expand."""
        if not text.strip() or "\0" in text or text.rpartition("/")[2] in {"", ".", ".."}:
            raise expected(cls.wanted)
        if text.startswith("~"):
            raise fail("'~' does not stand for a home folder here; write the whole path, or './~...' for such a name")
        return cls(text)


NameAlone = PlainSerializer(lambda path: path.rpartition("/")[2], return_type=str)
"""Marks a file to write of which only the name can change what is made, by its ending: the folder stays out of the
fingerprint, and the worker writes the file under its name for the runner to put it in place."""


def _path_of_url(url: str) -> str:
    """Return the path that a file URL names, with its escapes read."""
    from kflow.core.files.urls import local_path

    return str(local_path(url))


class Origin(_Text):
    """Where a file comes from: a URL, or a path relative to the workflow file."""

    __slots__ = ()
    wanted = "a URL or a path"
    description = "Where the file comes from: http://, https://, file://, or a path relative to the workflow file."

    @classmethod
    def read(cls, text: str) -> Self:
        """Accept paths and the three URL schemes."""
        scheme, separator, rest = text.partition("://")
        if not text.strip() or "\0" in text:
            raise expected(cls.wanted)
        if separator and scheme.lower() not in {"http", "https", "file"}:
            message = f"cannot fetch from {scheme}://; use http://, https://, file:// or a path"
            raise fail(message)
        if separator and not rest:
            message = f"{text!r} names no file"
            raise fail(message)
        if scheme.lower() == "file" and separator:
            try:
                _path_of_url(text)
            except ValueError as error:
                raise fail(str(error)) from None
        return cls(text)

    @property
    def is_remote(self) -> bool:
        """Whether the file is behind a network."""
        return "://" in self and self.lower().startswith(("http://", "https://"))

    @property
    def plain(self) -> str:
        """The origin, a path in its shortest form."""
        return str(self) if "://" in self else os.path.normpath(self)

    @property
    def local_path(self) -> str:
        """The path of an origin on this machine."""
        return _path_of_url(self) if "://" in self and self.lower().startswith("file://") else str(self)


class Digest(_Text):
    """The expected digest of a file: ``sha256:<hex>`` or bare hexadecimal digits."""

    __slots__ = ()
    wanted = "a digest in hexadecimal digits, such as sha256:9f86d081..."
    description = "The expected digest: 'sha256:<64 hex digits>', any other algorithm of hashlib, or bare hex digits."

    @classmethod
    def read(cls, text: str) -> Self:
        """Check the name of the algorithm and the number of digits."""
        name, separator, digits = text.rpartition(":")
        if not re.fullmatch(r"[0-9a-fA-F]+", digits):
            raise expected(cls.wanted)
        if separator and name.lower() in _DIGEST_LENGTH and len(digits) != _DIGEST_LENGTH[name.lower()]:
            message = (
                f"a {name.lower()} digest has {_DIGEST_LENGTH[name.lower()]} hex digits, this one has {len(digits)}"
            )
            raise fail(message)
        if not separator and len(digits) not in _DIGEST_LENGTH.values():
            message = f"no known digest has {len(digits)} hex digits (sha256 has 64, md5 has 32)"
            raise fail(message)
        return cls(text)


class Symbol(_Text):
    """A name in a Python file of the user's: ``layers.py:Swish``."""

    __slots__ = ()
    wanted = "'file.py:name', such as layers.py:Swish"
    description = "A name in a Python file beside the workflow: 'layers.py:Swish'."
    pattern = r"^[^:]+\.py:[A-Za-z_]\w*$"

    @classmethod
    def read(cls, text: str) -> Self:
        """Check the form ``file.py:name``."""
        if not re.fullmatch(cls.pattern or "", text):
            raise expected(cls.wanted)
        return cls(text)

    @property
    def plain(self) -> str:
        """The symbol, with the path of the file in its shortest form."""
        return f"{os.path.normpath(self.module)}:{self.name}"

    @property
    def module(self) -> str:
        """The path of the Python file."""
        return self.rpartition(":")[0]

    @property
    def name(self) -> str:
        """The name inside the file."""
        return self.rpartition(":")[2]


def _read_file_or_path(text: str) -> File | InputPath:
    return File.read(text) if parse_target(text) else InputPath.read(text)


class _FileOrPathSchema:
    """Tells pydantic to read either form with one error message."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = _text_schema("a path, or a reference to a file such as ${step.file}")
        return core_schema.no_info_after_validator_function(_read_file_or_path, schema)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        return {"type": "string", "description": "A reference to a file, or a path relative to the workflow file."}


FileOrPath = Annotated[File | InputPath, _FileOrPathSchema]


class Bound(BaseModel):
    """The least and the greatest value that is still good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Float | None = Field(default=None, description="The least value that is still good.")
    max: Float | None = Field(default=None, description="The greatest value that is still good.")

    def describe_miss(self, value: float) -> str | None:
        """Say in words how a value misses the bound; None when it does not."""
        if self.min is not None and not value >= self.min:
            return f"expected at least {self.min:g}, got {value:.6g}"
        if self.max is not None and not value <= self.max:
            return f"expected at most {self.max:g}, got {value:.6g}"
        return None
