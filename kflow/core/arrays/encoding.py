"""How labels become one-hot rows: each label is checked, and a wrong one is named with its place."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from operator import index as as_integer
from typing import TYPE_CHECKING, Any, Self, SupportsFloat

import numpy as np

from kflow.core.arrays.blocks import do_each
from kflow.core.arrays.classes import Classes
from kflow.core.rows.views import as_array, refuse_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from kflow.core.rows.views import Rows

__all__ = ["Encoding"]

_MOST = 2**53  # classes: up to here floats tell whole numbers apart
_BFLOAT16 = "bfloat16"  # a float type that NumPy itself does not know, and takes for one without numbers
_BLOCKS_AT_A_TIME = 8  # by one thread: as Python serves one thread at a time
_BLOCK = 32_768  # labels encoded at a time, so that the positions stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Encoding:
    """What labels become: how many columns, of which type, and what stands for a class."""

    columns: int | None
    """The number of classes; None if it is the greatest label plus one."""
    dtype: np.dtype[Any]
    classes: Classes | None = None
    label_smoothing: float = 0.0
    sparse: bool = False

    @classmethod
    def of(
        cls,
        num_classes: int | None,
        dtype: DTypeLike,
        classes: Iterable[Any] | None,
        label_smoothing: float,
        sparse: bool,
    ) -> Self:
        """Return an encoding, with everything checked."""
        known = None if classes is None else Classes.of(classes)
        columns = _number_of_columns(num_classes, known)
        kind = _number_type(dtype)
        given: Any = label_smoothing
        if not isinstance(given, SupportsFloat):
            msg = f"label_smoothing must be a number between 0 and 1, not {given!r}"
            raise TypeError(msg)
        if not 0 <= label_smoothing <= 1:
            msg = f"label_smoothing must be between 0 and 1, but is {label_smoothing}"
            raise ValueError(msg)
        if label_smoothing and (sparse or kind.kind in "biu"):
            msg = "label_smoothing makes fractions, which need a float type" + (" and dense rows" if sparse else "")
            raise TypeError(msg)
        if sparse and kind.kind not in "iu":
            kind = np.dtype(np.int32)
        return cls(None, kind, known, float(label_smoothing), sparse).with_columns(columns)

    def with_columns(self, columns: int | None) -> Self:
        """Return the same encoding for a number of classes, which the type of a sparse one must hold."""
        if self.sparse and columns and columns - 1 > np.iinfo(self.dtype).max:
            msg = f"dtype {self.dtype} cannot number {columns} classes"
            raise TypeError(msg)
        return type(self)(columns, self.dtype, self.classes, self.label_smoothing, self.sparse)

    @property
    def on(self) -> float:
        """The entry at a label's class."""
        return 1.0 - self.label_smoothing + self.off

    @property
    def off(self) -> float:
        """The entry elsewhere in the row."""
        return self.label_smoothing / self.columns if self.columns else 0.0

    def fitted(self, greatest: int | None) -> Self:
        """Return the encoding with as many columns as the greatest class number needs, if that is not given."""
        if self.columns is not None:
            return self
        if greatest is None:
            msg = "there are no labels to tell the number of classes from; give num_classes"
            raise ValueError(msg)
        return self.with_columns(max(greatest + 1, 0))

    def fitted_to(self, numbers: NDArray[Any]) -> Self:
        """Return the encoding with as many columns as class numbers need, if that is not given."""
        if self.columns is not None:
            return self
        greatest = int(numbers.max()) if numbers.size else None
        if greatest is not None and greatest >= _MOST:
            self.check(numbers)
        return self.fitted(greatest)

    def shape(self, labels: Sequence[int]) -> tuple[int, ...]:
        """Return the shape that labels of a shape are encoded to."""
        plain = tuple(labels[:-1] if len(labels) > 1 and labels[-1] == 1 else labels)
        return plain if self.sparse else (*plain, self.columns or 0)

    def as_labels(self, y: Any) -> Any:
        """Return labels as something with a shape and rows."""
        refuse_masks(y, "y")
        if hasattr(y, "dtype") and hasattr(y, "shape"):
            return y
        return as_array(y, "y") if self.classes is None else self.classes.as_labels(y)

    def numbers(self, y: Any, rows: Rows | None = None) -> NDArray[Any]:
        """Return the class numbers of labels; ``rows`` are the numbers of the rows that they are, for errors."""
        labels = np.asarray(self.as_labels(y))
        if self.classes is None:
            return _whole_numbers(labels, rows)
        numbers = self.classes.numbers(labels)
        _complain(labels, numbers < 0, self.classes.describe_miss, rows)
        return numbers

    def __call__(self, y: Any, rows: Rows | None = None) -> NDArray[Any]:
        """Return labels encoded; ``rows`` are the numbers of the rows that they are, for errors."""
        return self.encoded(self.numbers(y, rows), rows)

    def encoded(self, numbers: NDArray[Any], rows: Rows | None = None) -> NDArray[Any]:
        """Return class numbers encoded, after a check that each is a column."""
        if self.sparse or numbers.dtype.kind == "f":  # huge floats are no integers
            self.check(numbers, rows)
        if self.sparse:
            return numbers.reshape(self.shape(numbers.shape)).astype(self.dtype)
        shape, columns, off = self.shape(numbers.shape), self.columns or 0, self.off
        encoded = np.full(shape, off, self.dtype) if off else np.zeros(shape, self.dtype)
        entries, flat = encoded.reshape(-1), numbers.reshape(-1)
        starts = np.arange(min(_BLOCK, flat.size)) * columns

        def write(first: int, last: int) -> None:
            places = np.empty_like(starts)
            for start in range(first, last, _BLOCK):
                block = flat[start : min(start + _BLOCK, last)].astype(np.intp, copy=False)
                if block.view(np.uintp).max() >= columns:  # read so, negative ones are the greatest
                    self.check(numbers, rows)
                here = np.add(block, starts[: block.size], out=places[: block.size])
                entries[start * columns :][here] = self.on

        step = _BLOCK * _BLOCKS_AT_A_TIME
        spans = [(first, min(first + step, flat.size)) for first in range(0, flat.size, step)]
        do_each(spans, write, threads=len(spans) // 2)
        return encoded

    def check(self, numbers: NDArray[Any], rows: Rows | None = None) -> None:
        """Raise unless every class number is a column; ``rows`` are the numbers of the rows, for errors."""
        wrong = (numbers < 0) | (numbers >= (_MOST if self.columns is None else self.columns))
        _complain(numbers, wrong, self._describe_misfit, rows)

    def _describe_misfit(self, number: float) -> str:
        if number < 0:
            return f"is negative; labels count from 0, or are named with {_CLASSES}"
        if self.columns is None:
            return f"is too large to be the number of a class; name the classes with {_CLASSES}"
        columns = self.columns
        fit = f"does not fit in {columns} classes (0 to {columns - 1})"
        return f"{fit}; if labels count from 1, name them with {_CLASSES}" if number == columns else fit


_CLASSES = "classes=[...]"


def _number_type(dtype: Any) -> np.dtype[Any]:
    """Return a type that is given for NumPy or for tensors, known to be that of numbers."""
    if isinstance(dtype, str) and dtype == _BFLOAT16:
        import_module("ml_dtypes")  # it comes with TensorFlow, and teaches NumPy the name
    kind: np.dtype[Any] = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    if kind.kind not in "biufc" and kind.name != _BFLOAT16:
        msg = f"dtype must be a number type or bool, not {kind}"
        raise TypeError(msg)
    return kind


def _number_of_columns(num_classes: int | None, classes: Classes | None) -> int | None:
    """Return the number of columns, as far as it is given."""
    if num_classes is None:
        return None if classes is None else len(classes)
    try:
        given = as_integer(num_classes)
    except TypeError:
        msg = f"num_classes must be an integer, not {num_classes!r}"
        raise TypeError(msg) from None
    if not 0 <= given <= _MOST:
        msg = f"num_classes must not be {'negative' if given < 0 else 'so large'}, but is {given}"
        raise ValueError(msg)
    if classes is not None and given not in {0, len(classes)}:
        msg = f"num_classes is {given}, but there are {len(classes)} classes"
        raise ValueError(msg)
    return len(classes) if classes is not None else given or None


def _whole_numbers(y: NDArray[Any], rows: Rows | None) -> NDArray[Any]:
    """Return labels in a numeric type, each known to be a whole number."""
    if y.dtype.kind in "iu":
        return y
    if y.dtype.kind == "b":
        return y.view(np.uint8)
    if y.dtype.kind in "OSUT":
        y = _parsed(y, rows)
    if y.dtype.name == _BFLOAT16:
        y = y.astype(np.float32)
    if y.dtype.kind != "f":
        msg = f"labels must be whole numbers, not of type {y.dtype}"
        raise TypeError(msg)
    _complain(y, ~np.isfinite(y) | (y != np.trunc(y)), lambda _: "is not a whole number", rows)
    return y


def _parsed(y: NDArray[Any], rows: Rows | None) -> NDArray[np.float64]:
    """Return labels given as text or Python objects as floats."""
    parsed = np.empty(y.shape, np.float64)
    for where, label in np.ndenumerate(y.astype(object)):
        try:
            parsed[where] = float(label)
        except (TypeError, ValueError):
            msg = f"label {label!r}{_place(where, rows)} is not a number; name the classes with {_CLASSES}"
            raise ValueError(msg) from None
    return parsed


def _complain(
    labels: NDArray[Any], wrong: NDArray[np.bool_], describe: Callable[[Any], str], rows: Rows | None
) -> None:
    """Raise for the first wrong label, if there is one."""
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        label = labels[where]
        label = label.item() if isinstance(label, np.generic) else label
        msg = f"label {label!r}{_place(where, rows)} {describe(label)}"
        raise ValueError(msg)


def _place(where: Sequence[Any], rows: Rows | None) -> str:
    """Say at which index a label is, in rows of these numbers or of all; nothing of one that is alone."""
    if not where:
        return ""
    place = (int(where[0] if rows is None else rows[where[0]]), *(int(i) for i in where[1:]))
    return f" at index {place[0] if len(place) == 1 else place}"
