"""NumPy's indexing, taken apart: which rows an index needs, and what then picks its result from them."""

from __future__ import annotations

from contextlib import suppress
from operator import index as as_integer
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["rows_of_index"]


def rows_of_index(key: Any, shape: tuple[int, ...]) -> tuple[slice | NDArray[np.intp], tuple[Any, ...]]:
    """Return which rows of an array an index needs, and the index that picks its result from these rows.

    Parameters
    ----------
    key : object
        Anything that NumPy takes between brackets.
    shape : tuple of int
        The shape of the array, of at least one axis.

    Returns
    -------
    rows : slice or numpy.ndarray
        The rows to read: a slice, or an array of row numbers counted from 0.
    index : tuple
        ``array[rows][index]`` is ``array[key]``.

    Raises
    ------
    IndexError
        If a row is out of range, there are too many indices, or a part of the index picks no rows.

    Examples
    --------
    >>> rows_of_index((-1, 0), (5, 2))
    (array([4]), (0, 0))
    """
    parts = [_plain(part) for part in (key if isinstance(key, tuple) else (key,))]
    at = _row_part(parts, shape)
    if at is None:
        return slice(None), tuple(parts)
    before, after = parts[:at], parts[at + 1 :]
    alone = all(part is None or part is ... or isinstance(part, slice) for part in before + after)
    try:
        rows, local = _localized(parts[at], shape, alone)
    except IndexError:
        if not _picks_nothing(parts, shape):
            raise
        rows, local = slice(0, 0), [np.zeros_like(parts[at])]
    return rows, (*before, *local, *after)


def _plain(part: Any) -> Any:
    """Return one part of an index as None, ..., a slice, a bool, an int or an array."""
    if part is None or part is ... or isinstance(part, slice | bool):
        return part
    if not isinstance(part, np.ndarray):
        with suppress(TypeError):
            return as_integer(part)
    array = np.asarray(part)
    if array.size == 0 and not isinstance(part, np.ndarray):
        array = array.astype(np.intp)  # NumPy takes [], which has no type, as integers
    if array.dtype.kind not in "biu":
        msg = f"rows are picked by integers, slices, ..., None and arrays of integers or bools, not {part!r}"
        raise IndexError(msg)
    return array if array.ndim else array.item()


def _row_part(parts: list[Any], shape: tuple[int, ...]) -> int | None:
    """Return which part of an index picks the rows; None if all rows are picked."""
    taken = [_axes_taken(part) for part in parts]
    if sum(taken) > len(shape):
        msg = f"too many indices: {sum(taken)} for shape {shape}"
        raise IndexError(msg)
    for at, part in enumerate(parts):
        if part is ... and sum(taken) < len(shape):
            return None
        if taken[at]:
            return at
    return None


def _axes_taken(part: Any) -> int:
    """Return how many axes a part of an index is about."""
    if part is None or part is ... or isinstance(part, bool):
        return 0
    return int(part.ndim) if isinstance(part, np.ndarray) and part.dtype == bool else 1


def _localized(part: Any, shape: tuple[int, ...], alone: bool) -> tuple[slice | NDArray[np.intp], list[Any]]:
    """Return which rows to read, and the index that then picks from them what ``part`` picks from all."""
    if isinstance(part, slice):
        return part, [slice(None)]
    if isinstance(part, int):
        return _positions(np.array([part]), shape), [0]
    others: list[Any] = []
    if part.dtype == bool:
        if any(side not in {0, axis} for side, axis in zip(part.shape, shape, strict=False)):  # NumPy passes empty ones
            msg = f"a mask of shape {part.shape} does not fit shape {shape}"
            raise IndexError(msg)
        part, *others = part.nonzero()
    rows = _positions(part, shape)
    if alone and rows.ndim == 1 and not others:
        return rows, [slice(None)]
    needed, position = np.unique(rows, return_inverse=True)
    return needed, [position.reshape(rows.shape), *others]


def _picks_nothing(parts: list[Any], shape: tuple[int, ...]) -> bool:
    """Return whether NumPy takes an index with a wrong row: it does not look at rows that meet an empty array."""
    try:
        return bool(np.broadcast_to(np.False_, shape)[tuple(parts)].size == 0)
    except (IndexError, OverflowError):
        return False


def _positions(rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return row numbers counted from 0, each known to lie in the window."""
    if not rows.size or (rows.min() >= 0 and rows.max() < shape[0]):
        return rows.astype(np.intp, copy=False)
    wrong = (rows < -shape[0]) | (rows >= shape[0])
    if wrong.any():
        msg = f"row {rows[wrong][0]} is outside of the window, which has {shape[0]} rows"
        raise IndexError(msg)
    rows = rows.astype(np.intp)
    return np.where(rows < 0, rows + shape[0], rows)
