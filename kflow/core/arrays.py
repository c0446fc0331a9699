"""Class labels to one-hot rows, and vectors to unit length, in NumPy."""

from __future__ import annotations

import math
from operator import index as as_integer
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["normalize", "to_categorical"]

_BLOCK = 16_384  # labels encoded at a time, so that the positions stay in the processor's cache
_WIDE = 64  # from this many columns on, BLAS dot products beat einsum, and are more precise


def to_categorical(y: ArrayLike, num_classes: int | None = None, dtype: DTypeLike = "float32") -> NDArray[Any]:
    """Encode class labels as one-hot rows.

    Parameters
    ----------
    y : array_like of int
        Labels from 0 to ``num_classes - 1``, of any shape. Floats, booleans and digit strings are taken
        if they are whole numbers. Tensors are converted with ``np.asarray``.
    num_classes : int, optional
        The number of classes. None or 0 takes the largest label plus one.
    dtype : dtype_like, default "float32"
        Type of the result: any number type, or bool.

    Returns
    -------
    numpy.ndarray
        A new array of shape ``y.shape + (num_classes,)``, where a last dimension of 1 of ``y`` is dropped
        if ``y`` has more than one dimension; ``(num_classes,)`` for a single label.

    Raises
    ------
    ValueError
        If a label is negative, not less than ``num_classes``, fractional, NaN or not a number (the message
        names the first such label and its index), if ``num_classes`` is negative, or if there are no
        labels and no ``num_classes``.
    TypeError
        If ``num_classes`` is not an integer, or ``y`` or ``dtype`` has a type that cannot hold labels.

    Notes
    -----
    The signature is the one of Keras 2.2.3, which added ``dtype`` to the two arguments of 2.1. Unlike
    Keras, a label of -1 is an error, not the last class, and 1.9 is an error, not class 1.

    Examples
    --------
    >>> to_categorical([0, 2, 1], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """
    kind = np.dtype(dtype)
    if kind.kind not in "biufc":
        msg = f"dtype must be a number type or bool, not {kind}"
        raise TypeError(msg)
    labels = _whole_numbers(np.asarray(y))
    columns = _number_of_classes(labels, num_classes)
    _check_range(labels, columns)
    shape = labels.shape[:-1] if labels.ndim > 1 and labels.shape[-1] == 1 else labels.shape
    encoded = np.zeros((*shape, columns), kind)
    ones, flat = encoded.reshape(-1), labels.reshape(-1)
    starts = np.arange(min(_BLOCK, flat.size)) * columns
    for first in range(0, flat.size, _BLOCK):
        block = flat[first : first + _BLOCK].astype(np.intp)
        block += starts[: block.size]
        ones[first * columns :][block] = 1
    return encoded


def _whole_numbers(y: NDArray[Any]) -> NDArray[Any]:
    """Return the labels in a numeric type, each known to be a whole number."""
    if y.dtype.kind in "iu":
        return y
    if y.dtype.kind == "b":
        return y.view(np.uint8)
    if y.dtype.kind in "OSU":
        y = _parsed(y)
    if y.dtype.kind != "f":
        msg = f"labels must be whole numbers, not of type {y.dtype}"
        raise TypeError(msg)
    _complain(y, ~np.isfinite(y) | (y != np.trunc(y)), "is not a whole number")
    return y


def _parsed(y: NDArray[Any]) -> NDArray[np.float64]:
    """Return labels given as strings or Python objects as floats."""
    parsed = np.empty(y.shape, np.float64)
    for where, label in np.ndenumerate(y.astype(object)):
        try:
            parsed[where] = float(label)
        except (TypeError, ValueError):
            msg = (
                f"label {label!r} at index {_short(where)} is not a number; give each class a number, from 0 on, first"
            )
            raise ValueError(msg) from None
    return parsed


def _number_of_classes(labels: NDArray[Any], num_classes: int | None) -> int:
    """Return the number of columns of the encoding."""
    if num_classes is not None:
        try:
            given = as_integer(num_classes)
        except TypeError:
            msg = f"num_classes must be an integer, not {num_classes!r}"
            raise TypeError(msg) from None
        if given < 0:
            msg = f"num_classes must not be negative, but is {given}"
            raise ValueError(msg)
        if given:
            return given
    if not labels.size:
        msg = "there are no labels to tell the number of classes from; give num_classes"
        raise ValueError(msg)
    return max(int(labels.max()) + 1, 0)


def _check_range(labels: NDArray[Any], columns: int) -> None:
    """Raise unless every label is a column."""
    if not labels.size:
        return
    if labels.min() < 0:
        _complain(labels, labels < 0, "is negative; labels count from 0")
    if labels.max() >= columns:
        _complain(labels, labels >= columns, f"does not fit in {columns} classes (0 to {columns - 1})")


def _complain(labels: NDArray[Any], wrong: NDArray[np.bool_], why: str) -> None:
    """Raise for the first wrong label, if there is one."""
    if wrong.any():
        where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        msg = f"label {labels[where].item()!r} at index {_short(where)} {why}"
        raise ValueError(msg)


def _short(where: Sequence[Any]) -> object:
    """Return an index as it is written in brackets."""
    position = tuple(int(i) for i in where)
    return position[0] if len(position) == 1 else position


def normalize(x: ArrayLike, axis: int | tuple[int, ...] = -1, order: float = 2) -> NDArray[Any]:
    """Scale vectors to length 1.

    Parameters
    ----------
    x : array_like of real numbers
        Vectors, of any shape with at least one dimension. Tensors are converted with ``np.asarray``.
    axis : int or tuple of int, default -1
        The axis along which the vectors lie. With several axes, all their entries form one vector.
    order : float, default 2
        Which length: ``sum(abs(x)**order)**(1/order)``; ``inf`` and ``-inf`` are the largest and smallest
        ``abs(x)``, and 0 is the number of entries that are not zero, as in ``numpy.linalg.vector_norm``.

    Returns
    -------
    numpy.ndarray
        A new array of the shape of ``x``: of its type if that is a float type, else float64. Vectors of
        length 0 stay as they are.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers, ``axis`` is None, or ``order`` is not a number.
    ValueError
        If ``order`` is NaN.
    numpy.exceptions.AxisError
        If ``x`` does not have that axis; a ValueError and an IndexError.

    Notes
    -----
    As ``keras.utils.normalize`` of Keras 2.1, except that a 1-D input gives a 1-D result, and that several
    axes mean a vector, not a matrix norm. Lengths are accumulated in at least float32, and vectors whose
    length over- or underflows are scaled first, so that finite input never gives NaN or is flushed to
    zero. Entries that are NaN or infinite give NaN in their vector.

    Examples
    --------
    >>> normalize([[3, 4], [0, 0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    >>> normalize([1.0, 3.0], order=1)
    array([0.25, 0.75])
    """
    given = np.asarray(x)
    axes = _axes(axis, given.ndim)
    power = _power(order)
    values = given.astype(_working_type(given.dtype), copy=False)
    result_type = given.dtype if given.dtype.kind == "f" else values.dtype
    if not values.size:
        return values.astype(result_type)
    with np.errstate(all="ignore"):  # what overflows here is done again below
        length = _length(values, axes, power)
        scaled = values / np.where(length == 0, 1, length)
    _mend(scaled, values, length, axes, power)
    return scaled.astype(result_type, copy=False)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Return the axes counted from 0."""
    if axis is None:
        msg = "axis must be an integer or a tuple of integers, not None; for all axes give each of them"
        raise TypeError(msg)
    return tuple(normalize_axis_tuple(axis, ndim))


def _power(order: float | str) -> float:
    """Return the order of the norm, checked."""
    if isinstance(order, str):
        msg = f"order must be a number, not {order!r}; matrix norms such as 'fro' are not offered"
        raise TypeError(msg)
    if math.isnan(order):
        msg = "order must not be NaN"
        raise ValueError(msg)
    return float(order)


def _working_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float type to calculate in."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype.kind != "f":
        msg = f"only real numbers can be normalized, not type {dtype}"
        raise TypeError(msg)
    return np.result_type(dtype, np.float32)


def _length(values: NDArray[Any], axes: tuple[int, ...], power: float) -> NDArray[Any]:
    """Return the lengths of the vectors, with the axes kept as 1, in the type of the values."""
    if power == 2 and axes == (values.ndim - 1,):  # one pass, no temporary array
        wide = values.shape[-1] >= _WIDE
        squares = np.vecdot(values, values) if wide else np.einsum("...i,...i->...", values, values)
        return np.asarray(np.sqrt(squares))[..., np.newaxis]
    if power == 2:
        length = np.sqrt(_total(np.square(values), axes))
    elif power == 0:
        length = np.count_nonzero(values, axis=axes, keepdims=True)
    elif math.isinf(power):
        extreme = np.max if power > 0 else np.min
        length = extreme(np.abs(values), axis=axes, keepdims=True)
    elif power == 1:
        length = _total(np.abs(values), axes)
    else:
        sizes = np.abs(values)
        if power < 1:  # the root of the sum is a power above 1, which needs a wide range
            sizes = sizes.astype(np.result_type(values.dtype, np.float64), copy=False)
        length = _total(sizes**power, axes) ** (1 / power)
    return np.asarray(length).astype(values.dtype, copy=False)


def _total(terms: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return sums along the axes."""
    # NumPy adds up pairwise along contiguous entries only; elsewhere a long sum in float32 drifts.
    pairwise = axes == (terms.ndim - 1,) and terms.flags.c_contiguous
    dtype = terms.dtype if pairwise else np.result_type(terms.dtype, np.float64)
    return np.asarray(terms.sum(axis=axes, keepdims=True, dtype=dtype))


def _mend(
    scaled: NDArray[Any], values: NDArray[Any], length: NDArray[Any], axes: tuple[int, ...], power: float
) -> None:
    """Do again, in place, the vectors whose length is out of the range of its type.

    They are divided by their largest entry first: then the squares neither overflow nor vanish.
    """
    if power <= 0 or math.isinf(power):  # counts, or lengths that one entry decides: no sum overflows
        return
    # Below this, powers of the entries have lost digits to underflow.
    smallest = float(np.finfo(length.dtype).tiny) ** (1 / max(power, 1)) * 1e4
    doubtful = (~np.isfinite(length) | (length < smallest)).squeeze(axes)
    if not doubtful.any():
        return
    last = tuple(range(-len(axes), 0))
    vectors = np.moveaxis(values, axes, last)[doubtful]
    peaks = np.max(np.abs(vectors), axis=last, keepdims=True)
    if not peaks.any():  # zero vectors are right already
        return
    vectors = vectors / np.where(peaks == 0, 1, peaks)
    with np.errstate(over="ignore", under="ignore"):
        lengths = _length(vectors, tuple(range(1, vectors.ndim)), power)
    np.moveaxis(scaled, axes, last)[doubtful] = vectors / np.where(lengths == 0, 1, lengths)
