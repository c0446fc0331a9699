"""Rows that are calculated from the rows of another array when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kflow.core.rows.array import RowsArray
from kflow.core.rows.fitting import teach_keras
from kflow.core.rows.indexing import rows_of_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Rows: TypeAlias = range | NDArray[np.intp]  # the numbers of some rows

__all__ = ["RowsView", "as_array", "by_rows", "refuse_masks", "row_blocks"]

_CACHED = 2**20  # bytes of an array in memory that are worked on at a time: they stay in the processor's cache
_READ = 2**24  # bytes of what lies elsewhere that are read at a time

teach_keras()  # now, as `model.fit(normalize(..., lazy=True))` takes the method before it makes the view


def by_rows(x: ArrayLike) -> Any:
    """Return ``x`` if its rows are to be read by index, as those of an `HDF5Matrix` are, and else an array of it.

    Raises
    ------
    TypeError
        If it has masked entries.
    ValueError
        If it holds rows of different lengths.

    Examples
    --------
    >>> by_rows([[1, 2], [3, 4]])[1:]
    array([[3, 4]])
    """
    refuse_masks(x, "x")
    return x if getattr(x, "is_read_by_rows", False) is True else as_array(x, "x")


def as_array(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return an array of something, whose name is for errors.

    Raises
    ------
    ValueError
        If it holds rows of different lengths.

    Examples
    --------
    >>> as_array([[1], [2, 3]], "y")
    Traceback (most recent call last):
    ValueError: y has rows of different lengths, which no array can hold; pad them to one length
    """
    try:
        return np.asarray(x)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        msg = f"{name} has rows of different lengths, which no array can hold; pad them to one length"
        raise ValueError(msg) from None


def refuse_masks(x: object, name: str) -> None:
    """Raise TypeError if an array has masked entries."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        msg = f"{name} has masked entries, which would count like the others; fill them, or leave their rows out"
        raise TypeError(msg)


def row_blocks(source: Any, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the first row, and the row after the last one, of blocks that fit into memory easily, or of some bytes.

    Examples
    --------
    >>> list(row_blocks(np.zeros((5, 2**17), "float32")))
    [(0, 2), (2, 4), (4, 5)]
    """
    size = size or (_CACHED if isinstance(source, np.ndarray) else _READ)
    step = max(1, size // max(1, prod(source.shape[1:]) * source.dtype.itemsize))
    for start in range(0, source.shape[0], step):
        yield start, min(start + step, source.shape[0])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RowsView(RowsArray):
    """A read-only array whose rows are calculated when they are read.

    It is indexed like the NumPy array that ``view[:]`` gives, and only the rows that an index names are
    read. It can be pickled if its source can. ``fit``, ``evaluate`` and ``predict`` of Keras read it batch by
    batch, see `kflow.core.rows.fitting`; ``np.asarray(view)`` calculates all rows.

    Attributes
    ----------
    source : ndarray, HDF5Matrix or RowsView
        The rows that the view is calculated from, on at least one axis.
    change : callable
        Makes of a block of rows of the source, shape ``(n, ...)``, and of the numbers of these rows, as many rows of
        the view.
    shape : tuple of int
        The number of rows, and the shape of one.
    dtype : numpy.dtype
        The type of the entries.

    Examples
    --------
    >>> view = RowsView(np.arange(4), lambda block, rows: block**2, (4,), np.dtype("int64"))
    >>> view[-1], view[[2, 0]], len(view)
    (np.int64(9), array([4, 0]), 4)
    """

    source: Any
    change: Callable[[NDArray[Any], Rows], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.change, self.shape, self.dtype)

    def __repr__(self) -> str:
        return f"RowsView of {type(self.source).__name__}: shape {self.shape}, dtype {self.dtype}"

    def __getitem__(self, key: Any) -> Any:
        """Return what NumPy returns for this index of ``view[:]``."""
        rows, index = rows_of_index(key, self.shape)
        numbers = range(self.shape[0])[rows] if isinstance(rows, slice) else rows
        return self.change(np.asarray(self.source[rows]), numbers)[index]

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows in order."""
        for start, stop in row_blocks(self.source):
            yield from self[start:stop]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Calculate all rows."""
        if copy is False:
            msg = "the rows of a view are calculated when they are read, so an array of them is always a copy"
            raise ValueError(msg)
        rows = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for start, stop in row_blocks(self.source):
            rows[start:stop] = self[start:stop]
        return rows

    def unpack(self, start: int = 0, end: int | None = None, *, is_shuffled: bool = False) -> None:
        """Make these rows of the source quick to read, if it can; see `HDF5Matrix.unpack`."""
        if hasattr(self.source, "unpack"):
            self.source.unpack(start, end, is_shuffled=is_shuffled)
