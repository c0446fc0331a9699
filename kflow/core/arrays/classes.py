"""The labels that classes have: from label to number and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Classes"]

_SHOWN = 10  # as many classes are listed in an error
_EXACT = 2**53  # up to here floats tell whole numbers apart
_TABLE = 2**20  # numbers that are not further apart are looked up in a table


@dataclass(frozen=True)
class Classes:
    """The labels of some classes, in the order of their numbers.

    Examples
    --------
    >>> animals = Classes.of(["cat", "dog"])
    >>> animals.numbers(np.array(["dog", "cat", "cow"]))
    array([ 1,  0, -1])
    >>> animals.labels[[1, 0]]
    array(['dog', 'cat'], dtype='<U3')
    """

    names: tuple[Any, ...]

    @classmethod
    def of(cls, labels: Iterable[Any]) -> Self:
        """Return the classes with these labels, each known to be another.

        Raises
        ------
        TypeError
            If the labels are one text, a set, or no sequence, or cannot be told apart by ``==``.
        ValueError
            If there are none, or one comes twice or is NaN; or if those of a dictionary, from label to number,
            are not numbered 0, 1, 2 and so on.
        """
        if isinstance(labels, str | bytes) or not hasattr(labels, "__iter__"):
            msg = f"classes must be a list of labels, one for each class, not {labels!r}"
            raise TypeError(msg)
        if isinstance(labels, Mapping):
            labels = _by_number(labels)
        if isinstance(labels, Set):
            msg = "classes is a set, which has no order; give a list, such as sorted(classes)"
            raise TypeError(msg)
        names = tuple(labels.tolist() if isinstance(labels, np.ndarray | np.generic) else labels)
        names = tuple(name.item() if isinstance(name, np.generic) else name for name in names)
        if not names:
            msg = "classes is empty; it must have one label for each class"
            raise ValueError(msg)
        seen: set[Any] = set()
        for name in names:
            if not isinstance(name, Hashable):
                msg = f"{name!r} cannot be a class: labels are texts, numbers or tuples of them"
                raise TypeError(msg)
            if name in seen or name != name:  # noqa: PLR0124 - NaN equals nothing, itself included
                msg = f"the label {name!r} cannot be a class" if name not in seen else f"classes has {name!r} twice"
                raise ValueError(msg)
            seen.add(name)
        return cls(names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """The labels as an array: of text or of numbers if all are and none changes by it, else of objects."""
        are_texts = all(isinstance(name, str) for name in self.names)
        if are_texts or all(isinstance(name, bool | int | float) for name in self.names):
            labels = np.array(self.names)
            became_floats = labels.dtype.kind == "f" and not any(isinstance(name, float) for name in self.names)
            # [2**63, -1] become floats, 2**53 + 1 beside 0.5 is rounded, and "a\0" is cut.
            if not became_floats and tuple(labels.tolist()) == self.names:
                return labels
        labels = np.empty(len(self), object)
        labels[:] = self.names
        return labels

    @cached_property
    def _are_small_numbers(self) -> bool:
        """Whether all are numbers that NumPy's floats tell apart."""
        return all(isinstance(name, bool | int | float) and abs(name) <= _EXACT for name in self.names)

    def as_labels(self, y: Any) -> NDArray[Any]:
        """Return labels as an array: of objects unless all are small numbers.

        NumPy would make text of 1 beside "a", and 2.0**53 of 2**53 + 1 beside 0.5.
        """
        if any(isinstance(name, tuple) for name in self.names) and isinstance(y, list | tuple):
            labels = np.empty(len(y), object)
            labels[:] = y  # NumPy would take tuples for rows
            return labels
        return np.asarray(y, None if self._are_small_numbers else object)

    def numbers(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Return the number of the class of each label, and -1 where there is none."""
        labels = self.labels
        if y.dtype.kind in "iu" and labels.dtype.kind == "i" and int(labels.max()) - int(labels.min()) < _TABLE:
            return self._looked_up(y)
        if y.dtype.kind == labels.dtype.kind and y.dtype.kind in "biuf":
            order = np.argsort(labels)
            found = order[np.minimum(np.searchsorted(labels, y, sorter=order), len(self) - 1)]
            return np.where(labels[found] == y, found, -1)
        number = {name: at for at, name in enumerate(self.names)}
        # h5py reads texts as bytes
        number |= {name.encode(): at for name, at in list(number.items()) if isinstance(name, str)}
        # What has no hash is no label either: a row among labels that are no rows.
        numbers = [number.get(label, -1) if isinstance(label, Hashable) else -1 for label in y.reshape(-1).tolist()]
        return np.array(numbers, np.intp).reshape(y.shape)

    def _looked_up(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Return the class numbers of integers, from a table."""
        low, high = self.labels.min(), self.labels.max()
        table = np.full(int(high) - int(low) + 1, -1)
        table[self.labels - low] = np.arange(len(self))
        if not y.size or (y.min() >= low and y.max() <= high):
            return np.asarray(table[y.astype(np.intp, copy=False) - low])
        numbers, known = np.full(y.shape, -1), (y >= low) & (y <= high)
        numbers[known] = table[y[known].astype(np.intp) - low]
        return numbers

    def describe_miss(self, label: Any) -> str:
        """Say that a label is none of the classes, and which may be meant."""
        text = label.decode(errors="replace") if isinstance(label, bytes) else label
        cutoff = 0.6 if isinstance(text, str) else 1.0  # 30 is not like 3, but '3' may be meant
        near = get_close_matches(str(text), [str(name) for name in self.names], cutoff=cutoff)
        if near:
            meant = " or ".join(repr(name) for name in self.names if str(name) in near)
            return f"is none of the {len(self)} classes; did you mean {meant}?"
        shown = ", ".join(repr(name) for name in self.names[:_SHOWN])
        return f"is none of the {len(self)} classes, {shown}{', ...' if len(self) > _SHOWN else ''}"


def _by_number(numbers: Mapping[Any, Any]) -> list[Any]:
    """Return the labels of a dictionary from label to number, such as ``class_indices`` of Keras, in their order."""
    if not all(hasattr(each, "__index__") for each in numbers.values()) or set(numbers.values()) != set(
        range(len(numbers))
    ):
        given = ", ".join(f"{label!r}: {number!r}" for label, number in list(numbers.items())[:_SHOWN])
        msg = f"classes must number the labels 0 to {len(numbers) - 1}, each once, and not {{{given}}}"
        raise ValueError(msg)
    return sorted(numbers, key=lambda label: int(numbers[label]))
