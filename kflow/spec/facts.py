"""What can be known of an output before anything runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file that lies on this machine already."""

    path: str


@dataclass(frozen=True, slots=True)
class ArrayFact:
    """The shape of an array, None where a length is unknown, and the range of classes it was encoded for."""

    shape: tuple[int | None, ...]
    is_one_hot: bool = False

    @property
    def rows(self) -> int | None:
        """The number of rows."""
        return self.shape[0] if self.shape else None


@dataclass(frozen=True, slots=True)
class ObjectsFact:
    """The names that a step registers."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFact:
    """What is known of a model; shapes are without the batch axis."""

    objects: tuple[str, ...] = ()
    """The custom objects that it was built with."""
    input_shape: tuple[int | None, ...] | None = None
    output_shape: tuple[int | None, ...] | None = None
    metrics: tuple[str, ...] | None = None
    """The names that evaluate will report; None when it cannot be told."""
    is_compiled: bool | None = None


Fact = FileFact | ArrayFact | ObjectsFact | ModelFact
