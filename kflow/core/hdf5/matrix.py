"""Rows of an HDF5 data set, read when they are asked for."""

from __future__ import annotations

import os
from operator import index as as_integer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kflow.core.hdf5.files import check_allowed
from kflow.core.hdf5.rows import Rows, hdf5_lock
from kflow.core.rows.array import RowsArray
from kflow.core.rows.fitting import teach_keras
from kflow.core.rows.indexing import rows_of_index

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import DTypeLike, NDArray

__all__ = ["HDF5Matrix"]

_BLOCK = 2**20  # bytes that iteration reads at a time

teach_keras()  # now, as `model.fit(HDF5Matrix(...))` takes the method before it makes the window


class HDF5Matrix(RowsArray):
    """A read-only window on the rows of an HDF5 data set, indexed like a NumPy array.

    Parameters
    ----------
    datapath : str or path
        The HDF5 file.
    dataset : str
        Path of the data set in the file, such as ``"train/images"``. It must hold integers, floats or
        booleans, in this file: what is not so is refused.
    start : int, default 0
        The first row of the window.
    end : int, optional
        The row after the last one; None is the end of the data.
    normalizer : callable, optional
        Applied to what is read, at each read: a block of rows, of shape ``(n, ...)`` and never empty, to an
        array of as many rows. It must treat each row alike. It may change the dtype and the shape of the rows.
    allow : collection of str, default ()
        What to read all the same, in a file that you trust: ``"external_links"``, ``"external_storage"`` and
        ``"virtual"`` (data in other files), ``"size"`` (chunks above 256 MiB; more than 4 GiB that take less
        than a thousandth of it in the file), ``"dtype"`` (strings, complex and compound numbers),
        ``"filters"`` (other compression than gzip, lzf, szip, shuffle and fletcher32).

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
    a fork and read by several threads: each process opens the file for itself.

    ``fit``, ``evaluate`` and ``predict`` of Keras take windows, alone, in lists and dictionaries, and beside
    arrays, and read them batch by batch; see `kflow.core.rows.fitting`. ``np.asarray`` reads a window whole.
    The arguments are those of ``keras.utils.HDF5Matrix`` in Keras 2.1, and ``allow``.

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
        *,
        allow: Collection[str] = (),
    ) -> None:
        _check_types(datapath, dataset, normalizer)
        self.datapath = str(Path(datapath).absolute())  # still right after a change of directory
        self.dataset = dataset
        self.normalizer = normalizer
        self.allow = check_allowed(allow)
        self._closed = False
        self._stamp: tuple[int, int] | None = None
        self._rows: Rows | None = None
        self._is_probed = False
        rows = self._opened()
        self.start, self.end = _window(start, end, rows.shape, rows.where)
        self.dtype, row_shape = rows.dtype, rows.shape[1:]
        if normalizer is not None:  # one row, real if there is one, tells what it makes of all
            real = rows.span(self.start, min(self.start + 1, self.end))
            probe = self._normalized(real if real.size else np.zeros((1, *row_shape), self.dtype))
            self.dtype, row_shape = probe.dtype, probe.shape[1:]
        self.shape: tuple[int, ...] = (self.end - self.start, *row_shape)
        self._is_probed = True

    @property
    def gives_copies(self) -> bool:
        """Whether what is read is surely nobody else's; a normalizer may give what it likes."""
        return self.normalizer is None

    def __repr__(self) -> str:
        where = f"{self.datapath!r}, {self.dataset!r}, start={self.start}, end={self.end}"
        return f"HDF5Matrix({where}): shape {self.shape}, dtype {self.dtype}"

    def __getitem__(self, key: Any) -> Any:
        """Return what NumPy returns for this index of ``matrix[:]``."""
        wanted, index = rows_of_index(key, self.shape)
        return self._read(wanted)[index]

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows in order."""
        for first, stop in self._opened().blocks(self.start, self.end, _BLOCK):
            yield from self[first - self.start : stop - self.start]

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

    def unpack(self, start: int = 0, end: int | None = None, *, is_shuffled: bool = False) -> None:
        """Make these rows of the window quick to read in order, or in any order.

        Does nothing for data that lies in the file as it is. Compressed data, and chunks, are decoded once
        into a temporary file (in ``TMPDIR``, or ``/var/tmp``), from which all later reads are served; it is
        gone after ``close()``. ``fit`` does this by itself when it shuffles.

        Parameters
        ----------
        start : int, default 0
            The first row, counted from the start of the window.
        end : int, optional
            The row after the last one; None is the end of the window.
        is_shuffled : bool, default False
            Whether the rows will be read in any order. In order only data whose chunks are so large that
            HDF5 would decode them several times is unpacked.

        Raises
        ------
        OSError
            If there is not enough room for the file.
        """
        first, stop, _ = slice(start, end).indices(len(self))
        self._opened().unpack(self.start + first, self.start + max(first, stop), is_shuffled=is_shuffled)

    def stored(self, start: int, end: int) -> tuple[NDArray[Any], int] | None:
        """Return where these rows of the window lie in a mapped file, if what is read is what lies there.

        Parameters
        ----------
        start, end : int
            The first row of the window, and the one after the last.

        Returns
        -------
        (ndarray, int) or None
            Rows of the data set, not to be written to, and the number in it of the window's row 0, which may be
            negative. None where the data must be decoded (see `unpack`) or normalized, or a subclass reads otherwise.

        Raises
        ------
        OSError
            If the file has changed since it was opened.
        ValueError
            If the window is closed.
        """
        if self.normalizer is not None or type(self).__getitem__ is not HDF5Matrix.__getitem__:
            return None
        found, skipped = self._opened().stored(self.start + start, self.start + end)
        return None if found is None else (found, self.start - skipped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}  # the path travels, not the open file

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

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
                rows = Rows(self.datapath, self.dataset, self.allow, self._stamp)
                self._stamp, self._rows = rows.stamp, rows
            return rows

    def _read(self, wanted: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Return these rows of the window, in this order, normalized."""
        rows = self._opened()
        if not isinstance(wanted, slice):
            return self._normalized(rows.take(wanted + self.start if self.start else wanted))
        first, stop, step = wanted.indices(len(self))
        if step == 1:
            return self._normalized(rows.span(self.start + first, self.start + max(first, stop)))
        beyond = len(self) + 1  # a longer step reaches no further row, and may be one that no array can hold
        return self._normalized(rows.take(self.start + np.arange(first, stop, max(-beyond, min(step, beyond)))))

    def _normalized(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return the block as the normalizer leaves it."""
        if self.normalizer is None:
            return block
        if self._is_probed and not len(block):  # what it makes of no rows is known, and block.max() would fail
            return np.empty((0, *self.shape[1:]), self.dtype)
        normalized = np.asarray(self.normalizer(block))
        if normalized.shape[:1] != block.shape[:1]:
            msg = (
                f"the normalizer of {self.dataset!r} made shape {normalized.shape} of {block.shape}; "
                "it must keep the first axis, the rows"
            )
            raise ValueError(msg)
        if self._is_probed and (normalized.dtype, normalized.shape[1:]) != (self.dtype, self.shape[1:]):
            msg = (
                f"the normalizer of {self.dataset!r} made rows of shape {normalized.shape[1:]} and type "
                f"{normalized.dtype}, and of the first row {self.shape[1:]} and {self.dtype}; it must make all alike"
            )
            raise ValueError(msg)
        return normalized


def _check_types(datapath: object, dataset: object, normalizer: object) -> None:
    """Raise TypeError for what can be no path of a file or of a data set, or cannot be called."""
    if not isinstance(datapath, str | os.PathLike) or not isinstance(os.fspath(datapath), str):
        msg = f"datapath must be the path of a file, not {datapath!r}"
        raise TypeError(msg)
    if not isinstance(dataset, str):
        msg = f"dataset must be the path of a data set in the file, such as 'train/images', not {dataset!r}"
        raise TypeError(msg)
    if normalizer is not None and not callable(normalizer):
        msg = f"normalizer must be a function that takes rows, not {normalizer!r}"
        raise TypeError(msg)


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
