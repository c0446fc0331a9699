"""The rows of an HDF5 data set as one process reads them: one thread at a time, anew after each fork."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kflow.core.hdf5.files import CHUNK_CACHE, find_dataset, open_file, where_is
from kflow.core.rows.stored import empty_aligned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    import h5py
    from numpy.typing import NDArray

__all__ = ["Rows", "hdf5_lock"]

_NEAR = 64 * 1024  # rows with fewer bytes than this between them are read together

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

    def __init__(self, path: str, name: str, allow: Collection[str] = (), stamp: tuple[int, int] | None = None) -> None:
        self._forks = _forks
        self.where, self._path = where_is(name, path), path
        self._file = open_file(path)
        self._descriptor: int | None = self._file.id.get_vfd_handle()
        try:
            self.stamp = stamp or self._present_stamp()
            self._place = _place(os.fstat(self._descriptor))
            self._data = find_dataset(self._file, name, path, allow)
            self.shape: tuple[int, ...] = tuple(self._data.shape)
            self.dtype: np.dtype[Any] = self._data.dtype
            self._mapped = _map(self._data)
            self._unpacked: tuple[int, NDArray[Any]] | None = None
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
        self._mapped = self._unpacked = self._descriptor = None
        self._file.close()

    def span(self, first: int, stop: int) -> NDArray[Any]:
        """Return a copy of the rows from first to stop."""
        with _lock:
            self._check_unchanged()
            quick, skipped = self._quick(first, stop)
            if quick is None:
                return self._decoded(slice(first, stop))
        copy = empty_aligned((stop - first, *self.shape[1:]), self.dtype)
        copy[...] = quick[first - skipped : stop - skipped]
        return copy

    def take(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return a copy of these rows, which may be in any order and repeat."""
        if not rows.size:
            return self.span(0, 0)
        with _lock:
            self._check_unchanged()
            quick, skipped = self._mapped, 0
            if quick is None and self._unpacked is not None:
                quick, skipped = self._quick(int(rows.min()), int(rows.max()) + 1)
        if quick is not None:
            taken = empty_aligned((rows.size, *self.shape[1:]), self.dtype)
            # Any other mode than "clip" copies once more; the rows are known to be there.
            return quick.take(rows - skipped if skipped else rows, axis=0, out=taken, mode="clip")
        needed, position = np.unique(rows, return_inverse=True)
        gathered = self._gather(needed)
        return gathered if np.array_equal(needed, rows) else gathered[position]

    def stored(self, first: int, stop: int) -> tuple[NDArray[Any] | None, int]:
        """Return an array in a mapped file that holds these rows, if there is one, and the row it begins with."""
        with _lock:
            self._check_unchanged()
            return self._quick(first, stop)

    def blocks(self, first: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield ranges that cover the rows from first to stop: of about `size` bytes, and of whole chunks."""
        deep = self._data.chunks[0] if self._data.chunks else 1
        step = max(1, size // (max(1, self._row_bytes) * deep)) * deep
        while first < stop:
            end = min(stop, (first // step + 1) * step)
            yield first, end
            first = end

    @property
    def _row_bytes(self) -> int:
        """The bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def _quick(self, first: int, stop: int) -> tuple[NDArray[Any] | None, int]:
        """Return an array in a mapped file that holds these rows, if there is one, and the row it begins with."""
        if self._mapped is not None or self._unpacked is None:
            return self._mapped, 0
        begin, unpacked = self._unpacked
        return (unpacked, begin) if begin <= first and stop <= begin + len(unpacked) else (None, 0)

    def _decoded(self, selection: Any) -> NDArray[Any]:
        """Return what HDF5 reads for a selection."""
        try:
            return np.asarray(self._data[selection])
        except (OSError, RuntimeError) as error:
            rows = selection[0] if isinstance(selection, tuple) else selection
            msg = f"rows {rows.start} to {rows.stop} of {self.where} cannot be read: {error}"
            raise OSError(msg) from error

    def _gather(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Return rows given in ascending order, reading near ones, and those of one chunk, together.

        HDF5 is slow at selecting single rows (tens of times the cost of the bytes), and fast at ranges; and
        to read any row of a chunk it unpacks all of it.
        """
        gathered = np.empty((rows.size, *self.shape[1:]), self.dtype)
        apart = np.diff(rows) > max(1, _NEAR // max(1, self._row_bytes))
        if self._data.chunks and self._data.chunks[0] * self._row_bytes <= 4 * CHUNK_CACHE:
            apart &= np.diff(rows // self._data.chunks[0]) > 0
        first = 0
        for stop in [*(np.flatnonzero(apart) + 1), rows.size]:
            near = rows[first:stop]
            gathered[first:stop] = self.span(near[0], near[-1] + 1)[near - near[0]]
            first = stop
        return gathered

    def unpack(self, first: int, stop: int, *, is_shuffled: bool) -> None:
        """Make the rows from first to stop quick to read: in any order, or one range after another.

        Where HDF5 must decode the data, rows in a random order would decode each chunk again and again, and so
        would ranges when the chunks beside each other exceed the chunk cache. Then each chunk is decoded once,
        into a temporary file that has no name and is gone when this process is, or the file is closed.
        """
        with _lock:
            self._check_unchanged()
            bytes_needed = (stop - first) * self._row_bytes
            if bytes_needed <= 0 or self._quick(first, stop)[0] is not None or self.dtype.hasobject:
                return
            deep = self._data.chunks[0] if self._data.chunks else 0
            if is_shuffled or deep * self._row_bytes > CHUNK_CACHE:
                self._unpacked = (first, self._copied(first, stop))

    def _copied(self, first: int, stop: int) -> NDArray[Any]:
        """Return rows in a mapped temporary file."""
        shape = (stop - first, *self.shape[1:])
        copy = np.frombuffer(_temporary(prod(shape) * self.dtype.itemsize, self.where), self.dtype, prod(shape))
        copy = copy.reshape(shape)
        for selection in self._pieces(first, stop):
            rows, *others = selection
            copy[(slice(rows.start - first, rows.stop - first), *others)] = self._decoded(selection)
        return copy

    def _pieces(self, first: int, stop: int) -> Iterator[tuple[slice, ...]]:
        """Yield selections that cover the rows from first to stop, each a chunk or a few megabytes."""
        if self._data.chunks:
            everything = tuple(slice(0, length) for length in self.shape[1:])
            yield from self._data.iter_chunks((slice(first, stop), *everything))
        else:
            for begin, end in self.blocks(first, stop, 2**22):
                yield (slice(begin, end),)

    def _present_stamp(self) -> tuple[int, int]:
        """Return what changes when the open file is written to."""
        if self._descriptor is None:
            msg = f"{self.where} is closed"
            raise ValueError(msg)
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _is_replaced(self) -> bool:
        """Whether another file bears the name now; one that was only removed can still be read."""
        try:
            return _place(os.stat(self._path)) != self._place  # noqa: PTH116 - before each batch
        except OSError:
            return False

    def _check_unchanged(self) -> None:
        """Raise if the file was written to, which can kill who reads a mapped file, or has given way to another."""
        if self._present_stamp() != self.stamp or self._is_replaced():
            msg = f"{self.where} has changed since it was opened; make a new HDF5Matrix to read what it holds now"
            raise OSError(msg)


def _place(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others."""
    return status.st_dev, status.st_ino


def _map(data: h5py.Dataset) -> NDArray[Any] | None:
    """Return the data as an array on the mapped file, or None if its bytes do not lie there as they are.

    That is as fast as memory, where HDF5 takes three times as long for ranges and far more for single rows.
    """
    import h5py

    offset, size = data.id.get_offset(), prod(data.shape) * data.dtype.itemsize
    as_stored = data.id.get_type() == h5py.h5t.py_create(data.dtype, logical=True)
    if data.chunks is not None or offset is None or not as_stored or data.dtype.hasobject:
        return None
    if size == 0 or data.id.get_storage_size() != size:  # not written yet: HDF5 knows the fill value
        return None
    descriptor = data.file.id.get_vfd_handle()
    if offset + size > os.fstat(descriptor).st_size:
        return None
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    view = mmap.mmap(descriptor, size + skipped, access=mmap.ACCESS_READ, offset=offset - skipped)
    return np.frombuffer(view, data.dtype, prod(data.shape), skipped).reshape(data.shape)


def _temporary(size: int, what: str) -> mmap.mmap:
    """Return the bytes of a new file without a name: on a disk, where /tmp may be memory."""
    folder = Path(os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108 - the file has no name that one could guess
    if not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash later
        except OSError as error:
            msg = (
                f"{what} is compressed or in chunks, and to shuffle it {size:,} bytes are needed in {folder} "
                f"({error.strerror}); name a larger folder in TMPDIR, or read it in order or with shuffle='batch'"
            )
            raise OSError(error.errno, msg) from error
        return mmap.mmap(file.fileno(), size)
