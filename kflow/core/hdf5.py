"""Rows of an HDF5 data set, read when they are asked for.

``python -m kflow.core.hdf5`` describes data sets for another process: it reads a JSON list of
``{"path": ..., "dataset": ...}`` from standard input and prints a JSON list of ``{"shape": ...,
"dtype": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
from collections import deque
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from math import prod
from operator import index as as_integer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

__all__ = ["DatasetInfo", "HDF5Matrix", "describe_dataset"]

_MIB = 2**20
_MAX_CHUNK = 256 * _MIB  # HDF5 unpacks whole chunks: a larger one fills the memory for a single row
_SUSPECT_SIZE, _SUSPECT_RATIO = 4 * 2**30, 1000  # a small file that claims to hold this much is a trap
_NEAR = 64 * 1024  # rows with fewer bytes than this between them are read together
_BLOCK = _MIB  # bytes that iteration reads at a time
_MOST_NODES, _MOST_NAMES = 1000, 20  # how far an error message looks for the data sets that exist

_lock = threading.RLock()  # HDF5 is not thread-safe, and a handle must be opened once only
_forks = 0  # tells handles opened before a fork from those of this process, without a system call


def _begin_child() -> None:
    """Give a forked child a lock that no thread holds, and handles of its own."""
    global _lock, _forks
    _lock, _forks = threading.RLock(), _forks + 1


# A fork waits for the reads of other threads: the child would inherit HDF5 in the middle of one.
os.register_at_fork(
    before=lambda: _lock.acquire(),  # noqa: PLW0108 - a child that forks has another lock
    after_in_parent=lambda: _lock.release(),  # noqa: PLW0108
    after_in_child=_begin_child,
)


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
    with _lock, _open(path) as file:
        found = _find(file, dataset, path)
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
        self._rows: _Rows | None = None
        rows = self._opened()
        self.start, self.end = _window(start, end, rows.shape, f"data set {dataset!r} of {self.datapath}")
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
        with _lock:
            self._closed = True
            rows, self._rows = self._rows, None
            if rows is not None and rows.forks == _forks:
                rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}  # the path travels, not the open file

    def _opened(self) -> _Rows:
        """Return the data set as opened by this process."""
        rows = self._rows
        if rows is not None and rows.forks == _forks:
            return rows
        with _lock:
            if self._closed:
                msg = f"the window on {self.dataset!r} of {self.datapath} is closed"
                raise ValueError(msg)
            if self._rows is None or self._rows.forks != _forks:
                rows = _Rows(self.datapath, self.dataset)
                if self._stamp is not None and rows.stamp != self._stamp:
                    rows.close()
                    raise OSError(_changed(f"data set {self.dataset!r} of {self.datapath}"))
                self._stamp, self._rows = rows.stamp, rows
            return self._rows

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


class _Rows:
    """A data set opened by one process: its rows by range or by number."""

    def __init__(self, path: str, name: str) -> None:
        self.forks = _forks
        self._where = f"data set {name!r} of {path}"
        self._file = _open(path)
        self._descriptor: int | None = self._file.id.get_vfd_handle()
        try:
            self.stamp = self._present_stamp()
            self._data = _find(self._file, name, path)
            self.shape: tuple[int, ...] = tuple(self._data.shape)
            self.dtype: np.dtype[Any] = self._data.dtype
            self._mapped = _map(self._data)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._mapped = self._descriptor = None
        self._file.close()

    def span(self, first: int, stop: int) -> NDArray[Any]:
        """Return a copy of the rows from first to stop."""
        with _lock:
            self._check_unchanged()
            mapped = self._mapped
            if mapped is None:
                try:
                    return np.asarray(self._data[first:stop])
                except (OSError, RuntimeError) as error:
                    msg = f"rows {first} to {stop} of {self._where} cannot be read: {error}"
                    raise OSError(msg) from error
        return np.array(mapped[first:stop])

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return a copy of these rows, which may be in any order and repeat."""
        with _lock:
            self._check_unchanged()
            mapped = self._mapped
        if mapped is not None:
            return mapped.take(rows, axis=0)
        needed, position = np.unique(rows, return_inverse=True)
        gathered = self._gather(needed)
        return gathered if np.array_equal(needed, rows) else gathered[position]

    def _gather(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return rows given in ascending order, reading near ones together.

        HDF5 is slow at selecting single rows (tens of times the cost of the bytes), and fast at ranges.
        """
        gathered = np.empty((rows.size, *self.shape[1:]), self.dtype)
        gap = max(1, _NEAR // max(1, prod(self.shape[1:]) * self.dtype.itemsize))
        first = 0
        ends = [*(np.flatnonzero(np.diff(rows) > gap) + 1), rows.size] if rows.size else []
        for stop in ends:
            near = rows[first:stop]
            gathered[first:stop] = self.span(near[0], near[-1] + 1)[near - near[0]]
            first = stop
        return gathered

    def _present_stamp(self) -> tuple[int, int]:
        """Return what changes when the open file is written to."""
        if self._descriptor is None:
            msg = f"{self._where} is closed"
            raise ValueError(msg)
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        """Raise if the file was written to: reading a mapped file that was cut short kills the process."""
        if self._present_stamp() != self.stamp:
            raise OSError(_changed(self._where))


def _changed(where: str) -> str:
    """Return the message for a file that is not the one that was opened."""
    return f"{where} has changed since it was opened; make a new HDF5Matrix to read what it holds now"


def _map(data: h5py.Dataset) -> NDArray[Any] | None:
    """Return the data as an array on the mapped file, or None if its bytes do not lie there as they are.

    That is as fast as memory, where HDF5 takes three times as long for ranges and far more for single rows.
    """
    offset, size = data.id.get_offset(), prod(data.shape) * data.dtype.itemsize
    as_stored = data.id.get_type() == h5py.h5t.py_create(data.dtype, logical=True)
    if data.chunks is not None or offset is None or not as_stored:
        return None
    if size == 0 or data.id.get_storage_size() != size:  # not written yet: HDF5 knows the fill value
        return None
    descriptor = data.file.id.get_vfd_handle()
    if offset + size > os.fstat(descriptor).st_size:
        return None
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    view = mmap.mmap(descriptor, size + skipped, access=mmap.ACCESS_READ, offset=offset - skipped)
    return np.frombuffer(view, data.dtype, prod(data.shape), skipped).reshape(data.shape)


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
    if not isinstance(part, np.ndarray | np.bool_):
        try:
            return as_integer(part)
        except TypeError:
            pass
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


def _open(path: str) -> h5py.File:
    """Open a file for reading."""
    try:
        # A chunk cache that holds more than one row of chunks: with the default of 1 MiB, small batches
        # from a compressed file unpack the same chunks again and again (a hundred times slower).
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=64 * _MIB, rdcc_nslots=12_007)
    except FileNotFoundError:
        msg = f"there is no file {path}"
        raise FileNotFoundError(msg) from None
    except PermissionError:
        raise
    except OSError as error:
        raise OSError(_why_unreadable(path, error)) from error


def _why_unreadable(path: str, error: OSError) -> str:
    """Return what is wrong with a file that HDF5 does not open."""
    if not Path(path).is_file():
        return f"{path} is not a file"
    with Path(path).open("rb") as file:
        start = file.read(48)
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the data; fetch it with `git lfs pull`"
    size = Path(path).stat().st_size
    return f"{path} is not a complete HDF5 file: {size} bytes, starting with {start[:16]!r} ({error})"


def _find(file: h5py.File, name: str, path: str) -> h5py.Dataset:
    """Return a data set that lies in this file, and is safe to read.

    The name is followed link by link: HDF5 itself would follow a link to any other file.
    """
    node, hops, todo = file, 0, deque(name.split("/"))
    while todo:
        part = todo.popleft()
        if part in {"", "."}:
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise KeyError(_no_dataset(file, name, path))
        if isinstance(link, h5py.SoftLink) and hops < 100:
            hops += 1
            node = file if link.path.startswith("/") else node
            todo.extendleft(reversed(link.path.split("/")))
        elif isinstance(link, h5py.HardLink):
            node = node[part]
        else:
            what = f"an external link to {link.filename!r}" if hasattr(link, "filename") else "an endless link"
            msg = f"data set {name!r} of {path} is refused: {part!r} is {what}"
            raise ValueError(msg)
    if not isinstance(node, h5py.Dataset):
        raise KeyError(_no_dataset(file, name, path))
    _check(node, f"data set {name!r} of {path}")
    return node


def _check(data: h5py.Dataset, where: str) -> None:
    """Raise unless the data is of a known kind, lies in the file and is not a trap."""
    if data.is_virtual or data.external:
        kind = "is virtual" if data.is_virtual else "has external storage"
        msg = f"{where} is refused: it {kind}, so its data lies in other files"
        raise ValueError(msg)
    if data.shape is None or data.dtype.kind not in "biuf":
        what = "no data" if data.shape is None else f"dtype {data.dtype}"
        msg = f"{where} has {what}; only integers, floats and booleans can be read"
        raise TypeError(msg)
    size = prod(data.shape) * data.dtype.itemsize
    chunk = prod(data.chunks or (0,)) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    if chunk > _MAX_CHUNK or size > max(_SUSPECT_SIZE, _SUSPECT_RATIO * stored):
        msg = f"{where} is refused: it claims {size} bytes, in chunks of {chunk}, but stores {stored}"
        raise ValueError(msg)


def _no_dataset(file: h5py.File, name: str, path: str) -> str:
    """Return the message for a name that is not one of a data set."""
    names = _dataset_names(file)
    near = get_close_matches(name.strip("/"), names, 1, 0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"{path} has no data set {name!r}{guess} (it has: {listed or 'none'})"


def _dataset_names(file: h5py.File) -> list[str]:
    """Return the names of data sets, near the root first, looking at so many nodes only."""
    names: list[str] = []
    todo: deque[tuple[str, h5py.Group]] = deque([("", file)])
    budget = _MOST_NODES
    while todo and budget > 0:
        prefix, group = todo.popleft()
        for key in islice(group, budget):
            budget -= 1
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            kind = group.get(key, getclass=True)
            if kind is h5py.Dataset:
                names.append(prefix + key)
            elif kind is h5py.Group:
                todo.append((f"{prefix}{key}/", group[key]))
    return names


def main() -> int:
    """Describe the data sets named on standard input, each for itself."""
    try:
        wanted = [(str(asked["path"]), str(asked["dataset"])) for asked in json.load(sys.stdin)]
    except (ValueError, LookupError, TypeError) as error:
        sys.stderr.write(f'expected a JSON list of {{"path": ..., "dataset": ...}}: {error!r}\n')
        return 2
    json.dump([_described(path, dataset) for path, dataset in wanted], sys.stdout)
    sys.stdout.write("\n")
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
