"""Rows of an HDF5 data set, read when they are asked for.

``python -m kflow.core.hdf5`` describes data sets for another process: it reads a JSON list of
``{"path": ..., "dataset": ...}`` from standard input and prints a JSON list of ``{"shape": ...,
"dtype": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from operator import index as as_integer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kflow.core.hdf5_files import Rows, find_dataset, hdf5_lock, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

__all__ = ["DatasetInfo", "HDF5Matrix", "describe_dataset"]

_BLOCK = 2**20  # bytes that iteration reads at a time


@dataclass(frozen=True)
class DatasetInfo:
    """The shape of a data set and the NumPy name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


def describe_dataset(datapath: str | os.PathLike[str], dataset: str) -> DatasetInfo:
    """Return the shape and dtype of a data set without reading its data.

    Parameters
    ----------
    datapath : str or path
        The HDF5 file.
    dataset : str
        Path of the data set in the file, such as ``"train/images"``.

    Returns
    -------
    DatasetInfo
        The shape, which is ``()`` for a scalar, and the dtype as text.

    Raises
    ------
    FileNotFoundError, OSError, KeyError, ValueError, TypeError
        As for `HDF5Matrix`.

    Examples
    --------
    >>> import h5py, tempfile
    >>> path = tempfile.mkdtemp() + "/digits.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["images"] = np.zeros((10, 8, 8), "uint8")
    >>> describe_dataset(path, "images")
    DatasetInfo(shape=(10, 8, 8), dtype='uint8')
    """
    path = str(Path(datapath).absolute())
    with hdf5_lock(), open_file(path) as file:
        found = find_dataset(file, dataset, path)
        return DatasetInfo(tuple(found.shape), str(found.dtype))


class HDF5Matrix:
    """A read-only window on the rows of an HDF5 data set, indexed like a NumPy array.

    Parameters
    ----------
    datapath : str or path
        The HDF5 file.
    dataset : str
        Path of the data set in the file, such as ``"train/images"``. It must hold integers, floats or
        booleans, in this file: links to other places, virtual data sets and external storage are refused.
    start : int, default 0
        The first row of the window.
    end : int, optional
        The row after the last one; None is the end of the data.
    normalizer : callable, optional
        Applied to what is read: a block of rows, of shape ``(n, ...)``, to an array of as many rows. It
        must treat each row alike. It may change the dtype and the shape of the rows.

    Attributes
    ----------
    shape, dtype, ndim, size
        As of the NumPy array that ``matrix[:]`` gives, so after the normalizer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it is not a complete HDF5 file; on reading, if it has changed since the window was made.
    KeyError
        If there is no such data set; the message lists those that exist.
    IndexError
        If the window ends after the data does, or on an index outside the window.
    ValueError
        If ``start`` or ``end`` is negative or ``start`` is greater than ``end``, if the data set is scalar
        or is refused, if the normalizer changes the number of rows, or on use after ``close()``.
    TypeError
        If the dtype is another one, or ``start`` or ``end`` is not an integer.

    Notes
    -----
    Every index that NumPy takes gives what it gives for ``matrix[:]``, and none reaches a row outside the
    window. Only the rows that are needed are read, but these whole. A window can be pickled, used after
    a fork and read by several threads: each process opens the file for itself. ``np.asarray`` (and so
    ``fit``, given a matrix as it is) reads all of it; to read batch by batch, index it in a ``Sequence``.
    The arguments are those of ``keras.utils.HDF5Matrix`` in Keras 2.1.

    Examples
    --------
    >>> import h5py, tempfile
    >>> path = tempfile.mkdtemp() + "/digits.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["images"] = np.arange(10, dtype="uint8")
    >>> with HDF5Matrix(path, "images", start=2, end=8, normalizer=lambda x: x / 10) as x:
    ...     print(x.shape, x.dtype, x[-1], x[[3, 0, 3]])
    (6,) float64 0.7 [0.5 0.2 0.5]
    """

    def __init__(
        self,
        datapath: str | os.PathLike[str],
        dataset: str,
        start: int = 0,
        end: int | None = None,
        normalizer: Callable[[NDArray[Any]], Any] | None = None,
    ) -> None:
        self.datapath = str(Path(datapath).absolute())  # still right after a change of directory
        self.dataset = dataset
        self.normalizer = normalizer
        self._closed = False
        self._stamp: tuple[int, int] | None = None
        self._rows: Rows | None = None
        rows = self._opened()
        self.start, self.end = _window(start, end, rows.shape, rows.where)
        self.dtype, row_shape = rows.dtype, rows.shape[1:]
        if normalizer is not None:  # one row, real if there is one, tells what it makes of all
            real = rows.span(self.start, min(self.start + 1, self.end))
            probe = self._normalized(real if real.size else np.zeros((1, *row_shape), self.dtype))
            self.dtype, row_shape = probe.dtype, probe.shape[1:]
        self.shape: tuple[int, ...] = (self.end - self.start, *row_shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = f"{self.datapath!r}, {self.dataset!r}, start={self.start}, end={self.end}"
        return f"HDF5Matrix({where}): shape {self.shape}, dtype {self.dtype}"

    def __getitem__(self, key: Any) -> Any:
        """Return what NumPy returns for this index of ``matrix[:]``."""
        parts = [_plain(part) for part in (key if isinstance(key, tuple) else (key,))]
        at = _row_part(parts, self.shape)
        if at is None:
            return self._read(slice(None))[tuple(parts)]
        before, after = parts[:at], parts[at + 1 :]
        alone = all(part is None or part is ... or isinstance(part, slice) for part in before + after)
        wanted, local = _localized(parts[at], self.shape, alone)
        return self._read(wanted)[(*before, *local, *after)]

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows in order."""
        step = max(1, _BLOCK * len(self) // max(1, self.size * self.dtype.itemsize))
        for first in range(0, len(self), step):
            yield from self[first : first + step]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole window into a new array."""
        if copy is False:
            msg = "an HDF5Matrix lies in a file, so an array of it is always a copy"
            raise ValueError(msg)
        return np.asarray(self[:], dtype=dtype)

    def close(self) -> None:
        """Close the file; shape and dtype stay known, reading becomes an error."""
        with hdf5_lock():
            self._closed = True
            rows, self._rows = self._rows, None
            if rows is not None and rows.is_of_this_process:
                rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}  # the path travels, not the open file

    def _opened(self) -> Rows:
        """Return the data set as opened by this process."""
        rows = self._rows
        if rows is not None and rows.is_of_this_process:
            return rows
        with hdf5_lock():
            if self._closed:
                msg = f"the window on {self.dataset!r} of {self.datapath} is closed"
                raise ValueError(msg)
            rows = self._rows  # another thread may have opened it meanwhile
            if rows is None or not rows.is_of_this_process:
                rows = Rows(self.datapath, self.dataset, self._stamp)
                self._stamp, self._rows = rows.stamp, rows
            return rows

    def _read(self, wanted: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Return these rows of the window, in this order, normalized."""
        rows = self._opened()
        if not isinstance(wanted, slice):
            return self._normalized(rows.take(wanted + self.start))
        first, stop, step = wanted.indices(len(self))
        if step == 1:
            return self._normalized(rows.span(self.start + first, self.start + max(first, stop)))
        return self._normalized(rows.take(self.start + np.arange(first, stop, step)))

    def _normalized(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return the block as the normalizer leaves it."""
        if self.normalizer is None:
            return block
        normalized = np.asarray(self.normalizer(block))
        if normalized.shape[:1] != block.shape[:1]:
            msg = (
                f"the normalizer of {self.dataset!r} made shape {normalized.shape} of {block.shape}; "
                "it must keep the first axis, the rows"
            )
            raise ValueError(msg)
        return normalized


def _window(start: int, end: int | None, shape: tuple[int, ...], where: str) -> tuple[int, int]:
    """Return the first row and the row after the last of a window, checked."""
    if not shape:
        msg = f"{where} is a single value and has no rows"
        raise ValueError(msg)
    try:
        bounds = as_integer(start), shape[0] if end is None else as_integer(end)
    except TypeError:
        msg = f"start and end must be integers, not {start!r} and {end!r}"
        raise TypeError(msg) from None
    asked = f"rows {bounds[0]} to {bounds[1]} of {where}"
    if min(bounds) < 0:
        msg = f"{asked}: start and end must not be negative"
        raise ValueError(msg)
    if max(bounds) > shape[0]:
        msg = f"{asked}: it has {shape[0]} rows only"
        raise IndexError(msg)
    if bounds[0] > bounds[1]:
        msg = f"{asked}: start must not be greater than end"
        raise ValueError(msg)
    return bounds


def _plain(part: Any) -> Any:
    """Return one part of an index as None, ..., a slice, a bool, an int or an array."""
    if part is None or part is ... or isinstance(part, slice | bool):
        return part
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
        if part.shape != shape[: part.ndim]:
            msg = f"a mask of shape {part.shape} does not fit shape {shape}"
            raise IndexError(msg)
        part, *others = part.nonzero()
    rows = _positions(part, shape)
    if alone and rows.ndim == 1 and not others:
        return rows, [slice(None)]
    needed, position = np.unique(rows, return_inverse=True)
    return needed, [position.reshape(rows.shape), *others]


def _positions(rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return row numbers counted from 0, each known to lie in the window."""
    wrong = (rows < -shape[0]) | (rows >= shape[0])
    if wrong.any():
        msg = f"row {rows[wrong][0]} is outside of the window, which has {shape[0]} rows"
        raise IndexError(msg)
    rows = rows.astype(np.intp)
    return np.where(rows < 0, rows + shape[0], rows)


def main() -> int:
    """Answer each line of standard input, a JSON list of data sets, with a line; until the input ends."""
    for line in sys.stdin:
        try:
            wanted = [(str(asked["path"]), str(asked["dataset"])) for asked in json.loads(line)]
        except (ValueError, LookupError, TypeError) as error:
            sys.stderr.write(f'expected a JSON list of {{"path": ..., "dataset": ...}}: {error!r}\n')
            return 2
        sys.stdout.write(json.dumps([_described(path, dataset) for path, dataset in wanted]) + "\n")
        sys.stdout.flush()
    return 0


def _described(path: str, dataset: str) -> dict[str, object]:
    """Return what is known of a data set, or why nothing is."""
    try:
        info = describe_dataset(path, dataset)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        return {"error": str(error.args[-1] if error.args else error)}
    return {"shape": info.shape, "dtype": info.dtype}


if __name__ == "__main__":
    sys.exit(main())
