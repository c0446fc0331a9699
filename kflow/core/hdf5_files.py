"""HDF5 data sets opened for reading: only safe ones, by one thread at a time, anew in each process.

A file from elsewhere may point to other files or claim more than it holds; what does so is refused.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from difflib import get_close_matches
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

__all__ = ["Rows", "find_dataset", "hdf5_lock", "open_file"]

_MAX_CHUNK = 256 * 2**20  # HDF5 unpacks whole chunks: a larger one fills the memory for a single row
_SUSPECT_SIZE, _SUSPECT_RATIO = 4 * 2**30, 1000  # a small file that claims to hold this much is a trap
_NEAR = 64 * 1024  # rows with fewer bytes than this between them are read together
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


def hdf5_lock() -> AbstractContextManager[object]:
    """Return the lock of this process: ask for it at each use, as a fork replaces it."""
    return _lock


class Rows:
    """A data set opened by one process: its rows by range or by number.

    Given the stamp of an earlier opening, it raises OSError if the file has changed since.
    """

    def __init__(self, path: str, name: str, stamp: tuple[int, int] | None = None) -> None:
        self._forks = _forks
        self.where = _where(name, path)
        self._file = open_file(path)
        self._descriptor: int | None = self._file.id.get_vfd_handle()
        try:
            self.stamp = stamp or self._present_stamp()
            self._data = find_dataset(self._file, name, path)
            self.shape: tuple[int, ...] = tuple(self._data.shape)
            self.dtype: np.dtype[Any] = self._data.dtype
            self._mapped = _map(self._data)
            self._check_unchanged()
        except BaseException:
            self._file.close()
            raise

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was opened since the last fork; HDF5 handles must not be shared with a parent."""
        return self._forks == _forks

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
                    msg = f"rows {first} to {stop} of {self.where} cannot be read: {error}"
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
            msg = f"{self.where} is closed"
            raise ValueError(msg)
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        """Raise if the file was written to: reading a mapped file that was cut short kills the process."""
        if self._present_stamp() != self.stamp:
            msg = f"{self.where} has changed since it was opened; make a new HDF5Matrix to read what it holds now"
            raise OSError(msg)


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


def open_file(path: str) -> h5py.File:
    """Open a file for reading; what is not a complete HDF5 file raises OSError, saying what it is."""
    try:
        # A chunk cache that holds more than one row of chunks: with the default of 1 MiB, small batches
        # from a compressed file unpack the same chunks again and again (a hundred times slower).
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=64 * 2**20, rdcc_nslots=12_007)
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
        size = os.fstat(file.fileno()).st_size
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the data; fetch it with `git lfs pull`"
    return f"{path} is not a complete HDF5 file: {size} bytes, starting with {start[:16]!r} ({error})"


def find_dataset(file: h5py.File, name: str, path: str) -> h5py.Dataset:
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
            msg = f"{_where(name, path)} is refused: {part!r} is {what}"
            raise ValueError(msg)
    if not isinstance(node, h5py.Dataset):
        inside = ", ".join(f"{name.strip('/')}/{each}" for each in islice(node, 5)) or "nothing"
        msg = f"{name!r} of {path} is a group, not a data set (it holds {inside})"
        raise KeyError(msg)
    _check(node, _where(name, path))
    return node


def _where(name: str, path: str) -> str:
    """Return what error messages call a data set."""
    return f"data set {name!r} of {path}"


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
