"""Vectors to unit length, in NumPy: block by block, so that little but the result takes memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from kflow.core.arrays import tensors
from kflow.core.arrays.blocks import do_each
from kflow.core.rows.views import RowsView, by_rows, row_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    from kflow.core.rows.views import Rows

__all__ = ["normalize"]

_BLOCK = 2**21  # bytes that a thread does at a time: large, as Python serves one thread at a time
_WORTH_A_THREAD = 4  # blocks that a thread should have to do
_WIDE = 64  # from this many columns on, one dot product per row is quicker than one einsum for all rows


def normalize(
    x: ArrayLike, axis: int | tuple[int, ...] = -1, order: float = 2, *, out: Any = None, lazy: bool = False
) -> Any:
    """Scale vectors to length 1.

    Parameters
    ----------
    x : array_like of real numbers, HDF5Matrix or tensor
        Vectors, of any shape with at least one dimension. An `HDF5Matrix` is read in blocks of 16 MiB.
    axis : int or tuple of int, default -1
        The axis along which the vectors lie. With several axes, all their entries form one vector.
    order : float, default 2
        Which length: ``sum(abs(x)**order)**(1/order)``; ``inf`` and ``-inf`` are the largest and smallest
        ``abs(x)``, and 0 is the number of entries that are not zero, as in ``numpy.linalg.vector_norm``.
    out : ndarray or h5py.Dataset, optional
        Where the result is written: an array of the shape of ``x`` and of a type that its values can be cast
        to under the rule ``"same_kind"``. It may be ``x`` itself. By default a new array.
    lazy : bool, default False
        Whether to return a view that normalizes the rows when they are read. If the vectors lie across the
        rows, with axis 0, the lengths are calculated at once, in one pass over ``x``.

    Returns
    -------
    numpy.ndarray
        Of the shape of ``x``: of its type if that is a float type, else float64. Vectors of length 0 stay as
        they are. Given ``out``, this is returned; with ``lazy``, a `kflow.core.rows.views.RowsView`; for a tensor
        of TensorFlow or Keras, a tensor, whose type is ``keras.config.floatx()`` if ``x`` holds no floats.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers, ``axis`` is None, ``order`` is not a number, the type of ``out``
        does not fit, or ``out`` or ``lazy`` is given with a tensor.
    ValueError
        If ``order`` is NaN, ``out`` has another shape, or both ``out`` and ``lazy`` are given.
    numpy.exceptions.AxisError
        If ``x`` does not have that axis; a ValueError and an IndexError.

    Notes
    -----
    As ``keras.utils.normalize`` of Keras 2.1, except that a 1-D input gives a 1-D result, and that several
    axes mean a vector, not a matrix norm. Lengths are accumulated in at least float32, and vectors whose
    length over- or underflows are scaled first, so that finite input never gives NaN, and is flushed to
    zero only where the result is too small for its type. With a finite order above 0, an entry that is NaN or
    infinite makes NaN of its vector.

    Examples
    --------
    >>> normalize([[3, 4], [0, 0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    >>> normalize([1.0, 3.0], order=1)
    array([0.25, 0.75])
    """
    power = _power(order)
    if tensors.is_tensor(x):
        if out is not None or lazy:
            msg = "a tensor is normalized into a new tensor; out and lazy are for arrays"
            raise TypeError(msg)
        return tensors.normalize(x, _axes(axis, tensors.rank(x)), power)
    source = by_rows(x)
    dtype = _result_type(source.dtype)
    axes = _axes(axis, len(source.shape))
    if lazy:
        if out is not None:
            msg = "a lazy view has no rows of its own to write; give out or lazy, not both"
            raise ValueError(msg)
        return RowsView(source, _Scaling.of(source, axes, power, dtype), tuple(source.shape), dtype)
    target = np.empty(source.shape, dtype) if out is None else _checked(out, source, dtype)
    if isinstance(source, np.ndarray) and target is not source and np.may_share_memory(source, target):
        source = source.copy()  # else a block that is written could be one that is read later
    scaling = _Scaling.of(source, axes, power, dtype)
    if isinstance(source, np.ndarray) and isinstance(target, np.ndarray):
        _write_array(scaling, source, target)
        return target
    for start, stop in row_blocks(source):
        target[start:stop] = scaling(np.asarray(source[start:stop]))
    return target


def _write_array(scaling: _Scaling, source: NDArray[Any], target: NDArray[Any]) -> None:
    """Write all rows; in threads if that is worth it, for what takes time is memory that one processor waits for.

    Which thread does a block changes no bit of it, and the blocks are the same for any number of threads.
    """
    may_share = scaling.is_lean(source)
    blocks = list(row_blocks(source, _BLOCK if may_share else None))

    def write(start: int, stop: int) -> None:
        scaling.write(source[start:stop], target[start:stop])

    do_each(blocks, write, threads=len(blocks) // _WORTH_A_THREAD if may_share else 1)


def _power(order: float | str) -> float:
    """Return the order of the norm, checked."""
    if isinstance(order, str) or not isinstance(order, SupportsFloat) or np.ndim(order) or np.iscomplexobj(order):
        msg = f"order must be a number, not {order!r}; matrix norms such as 'fro' are not offered"
        raise TypeError(msg)
    if math.isnan(order):
        msg = "order must not be NaN"
        raise ValueError(msg)
    return float(order)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Return the axes counted from 0."""
    if not all(hasattr(each, "__index__") for each in (axis if isinstance(axis, tuple | list) else [axis])):
        msg = f"axis must be an integer or a tuple of integers, not {axis!r}; for all axes give each of them"
        raise TypeError(msg)
    return tuple(normalize_axis_tuple(axis, ndim))  # type: ignore[arg-type]  # it is no None


def _result_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the normalized vectors."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype.kind != "f":
        msg = f"only real numbers can be normalized, not type {dtype}"
        raise TypeError(msg)
    return dtype


def _checked(out: Any, source: Any, dtype: np.dtype[Any]) -> Any:
    """Return the array to write to, known to fit."""
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        msg = f"out must be an array or an HDF5 data set to write to, not a {type(out).__name__}"
        raise TypeError(msg)
    if tuple(out.shape) != tuple(source.shape):
        msg = f"out has shape {tuple(out.shape)}, and the result {tuple(source.shape)}"
        raise ValueError(msg)
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        msg = f"out has type {out.dtype}, which cannot hold the result, of type {dtype}"
        raise TypeError(msg)
    return out


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What is done to each block of rows: each vector is divided by its length."""

    axes: tuple[int, ...]
    power: float
    dtype: np.dtype[Any]
    lengths: _Lengths | None = None
    """Those of all vectors if they lie across the rows; else each block tells its own."""

    @classmethod
    def of(cls, source: Any, axes: tuple[int, ...], power: float, dtype: np.dtype[Any]) -> _Scaling:
        """Return what is to be done to the rows of a source."""
        alone = cls(axes, power, dtype)
        if 0 not in axes or not math.prod(source.shape):
            return alone

        def blocks() -> Iterable[NDArray[Any]]:
            return (alone.values(np.asarray(source[start:stop])) for start, stop in row_blocks(source))

        return cls(axes, power, dtype, _Lengths.of(blocks, axes, power))

    def is_lean(self, source: NDArray[Any]) -> bool:
        """Tell whether blocks need no memory of their own: asking for it in threads takes longer than they save."""
        is_measured = self.lengths is not None or (self.power == 2 and self.axes == (source.ndim - 1,))
        return is_measured and self.values(source[:0]).dtype == source.dtype

    def values(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return the rows in the type to calculate in."""
        return block.astype(np.result_type(self.dtype, np.float32), copy=False)

    def __call__(self, block: NDArray[Any], _: Rows | None = None) -> NDArray[Any]:
        """Return the rows normalized, which does not depend on their numbers."""
        scaled = np.empty(block.shape, self.dtype)
        self.write(block, scaled)
        return scaled

    def write(self, block: NDArray[Any], target: NDArray[Any]) -> None:
        """Write the rows, normalized, to an array."""
        if not block.size:
            return
        values = self.values(block)
        lengths = self.lengths or _Lengths.of(lambda: [values], self.axes, self.power)
        with np.errstate(all="ignore"):
            if lengths.peaks is not None:
                values = values / lengths.peaks
            np.divide(values, lengths.values, out=target, casting="same_kind")


@dataclass(frozen=True, slots=True)
class _Lengths:
    """The lengths of vectors, with the axes kept as 1; where there are peaks, of the vectors divided by them."""

    values: NDArray[Any]
    peaks: NDArray[Any] | None = None

    @classmethod
    def of(cls, blocks: Callable[[], Iterable[NDArray[Any]]], axes: tuple[int, ...], power: float) -> _Lengths:
        """Return the lengths of the vectors that lie in some blocks of rows."""
        with np.errstate(all="ignore"):  # what overflows here is done again
            lengths = _length(blocks(), axes, power)
            low, high = _safe_lengths(lengths.dtype, power)
            if lengths.min() >= low and lengths.max() <= high:  # not so if one is NaN
                return cls(lengths)
            if power != 0 and not math.isinf(power):  # else there is no sum that could overflow
                doubtful = ~((lengths >= low) & (lengths <= high))
                ends = (_extreme(block, axes, power) for block in blocks())
                peaks = reduce(np.maximum if power > 0 else np.minimum, ends)
                if (peaks[doubtful] > 0).any():  # else these are zero vectors
                    peaks = np.where(doubtful & (peaks != 0), peaks, 1).astype(peaks.dtype)
                    lengths = _length((block / peaks for block in blocks()), axes, power)
                    return cls(_or_one(lengths), peaks)
            return cls(_or_one(lengths))


def _safe_lengths(dtype: np.dtype[Any], power: float) -> tuple[Any, Any]:
    """Return the smallest and the largest length for which no power of an entry has overflowed, or lost digits."""
    limits = np.finfo(dtype)
    if power >= 0:
        return limits.tiny ** dtype.type(1 / max(power, 1)) * 10_000, limits.max
    # The small powers are those of large entries.
    high = limits.tiny ** dtype.type(1 / power) / 10_000
    return limits.max ** dtype.type(1 / min(power, -1)) * 10_000, min(high, limits.max)


def _extreme(block: NDArray[Any], axes: tuple[int, ...], power: float) -> Any:
    """Return the entry that says most of the length: divided by it, no power over- or underflows."""
    sizes = np.abs(block)
    return (sizes.max if power > 0 else sizes.min)(axis=axes, keepdims=True)


def _or_one(lengths: NDArray[Any]) -> NDArray[Any]:
    """Return the lengths with 1 for those that are 0."""
    return np.where(lengths == 0, lengths.dtype.type(1), lengths)


def _length(blocks: Iterable[NDArray[Any]], axes: tuple[int, ...], power: float) -> NDArray[Any]:
    """Return the lengths of the vectors in some blocks, with the axes kept as 1, in the type of the blocks."""
    dtype: Any = None
    total: Any = None
    for block in blocks:
        part = _part(block, axes, power)
        if total is None:
            dtype, total = block.dtype, part
        elif math.isinf(power):
            total = np.maximum(total, part) if power > 0 else np.minimum(total, part)
        else:
            total = np.add(total, part, dtype=np.result_type(part, np.float64))
    root = np.sqrt(total) if power == 2 else total if math.isinf(power) or power in (0, 1) else total ** (1 / power)
    return np.asarray(root).astype(dtype, copy=False)


def _part(values: NDArray[Any], axes: tuple[int, ...], power: float) -> Any:
    """Return what a block contributes: the sum of the powers of its entries, its extreme entry, or a count."""
    if power == 2 and axes == (values.ndim - 1,):
        return _dots(values)[..., np.newaxis]
    if power == 2:
        return _sum(np.square(values), axes)
    if power == 0:
        return np.count_nonzero(values, axis=axes, keepdims=True)
    sizes = np.abs(values)
    if math.isinf(power):
        return (np.max if power > 0 else np.min)(sizes, axis=axes, keepdims=True)
    if power < 1:  # the root of the sum is a power above 1, which needs a wide range
        sizes = sizes.astype(np.result_type(values.dtype, np.float64), copy=False)
    return _sum(sizes if power == 1 else sizes**power, axes)


def _dots(values: NDArray[Any]) -> NDArray[Any]:
    """Return the dot product of each row with itself."""
    if values.shape[-1] >= _WIDE:
        if values.strides[-1] <= 0:  # backwards or repeated, NumPy adds up one by one, and the sum drifts
            values = np.ascontiguousarray(values)
        return np.asarray(np.vecdot(values, values))
    # Not a matrix product, though it takes less alone: BLAS would start threads of its own beside ours.
    return np.asarray(np.einsum("...i,...i->...", values, values))


def _sum(terms: NDArray[Any], axes: tuple[int, ...]) -> Any:
    """Return sums along the axes, which are kept as 1."""
    if axes == (terms.ndim - 1,) and terms.flags.c_contiguous:  # along these NumPy adds up pairwise
        if terms.shape[-1] < _WIDE:
            return np.einsum("...i->...", terms)[..., np.newaxis]
        return terms.sum(axis=axes, keepdims=True, dtype=terms.dtype)
    return terms.sum(axis=axes, keepdims=True, dtype=np.result_type(terms.dtype, np.float64))  # without drift
