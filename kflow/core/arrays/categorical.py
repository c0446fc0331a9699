"""Class labels to one-hot rows and back, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kflow.core.arrays import tensors
from kflow.core.arrays.classes import Classes
from kflow.core.arrays.encoding import Encoding
from kflow.core.rows.views import RowsView, by_rows, row_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["from_categorical", "to_categorical"]


def to_categorical(
    y: ArrayLike,
    num_classes: int | None = None,
    dtype: DTypeLike = "float32",
    *,
    classes: Iterable[Any] | None = None,
    label_smoothing: float = 0.0,
    sparse: bool = False,
    lazy: bool = False,
) -> Any:
    """Encode class labels as one-hot rows.

    Parameters
    ----------
    y : array_like of int, HDF5Matrix or tensor
        Labels from 0 to ``num_classes - 1``, of any shape. Floats, booleans and digit strings are taken
        if they are whole numbers. With ``classes``, labels of any kind.
    num_classes : int, optional
        The number of classes. None or 0 takes the number of ``classes``, or else the largest label plus one.
    dtype : dtype_like, default "float32"
        Type of the result: any number type of NumPy, bfloat16 or bool; also as TensorFlow's.
    classes : iterable or mapping, optional
        The label of each class, in the order of the columns: texts, numbers that do not count from 0, or
        anything that can be hashed; or a mapping from label to column, such as ``class_indices`` of Keras.
        Labels read as bytes are compared with texts as UTF-8.
    label_smoothing : float, default 0
        The share, from 0 to 1, that is taken from a label's class and spread over all: ``s`` makes
        ``1 - s + s / num_classes`` of 1 and ``s / num_classes`` of 0, as the losses of Keras do.
    sparse : bool, default False
        Whether to return class numbers in place of rows, as ``sparse_categorical_crossentropy`` takes them:
        int32, or ``dtype`` if that is an integer type.
    lazy : bool, default False
        Whether to return a view that encodes the rows when they are read. All labels are checked at once,
        in one pass.

    Returns
    -------
    numpy.ndarray
        A new array of shape ``y.shape + (num_classes,)``, where a last dimension of 1 of ``y`` is dropped
        if ``y`` has more than one dimension; ``(num_classes,)`` for a single label. With ``sparse``, without
        the last dimension; with ``lazy``, a `kflow.core.rows.views.RowsView`; for a tensor of TensorFlow or Keras,
        a tensor.

    Raises
    ------
    ValueError
        If a label is negative, not less than ``num_classes``, fractional, NaN, not a number or none of
        ``classes`` (the message names the first such label and its index), if ``num_classes`` is negative or
        not the number of ``classes``, if a class comes twice, if ``label_smoothing`` is not between 0 and 1,
        or if there are no labels and neither ``num_classes`` nor ``classes``.
    TypeError
        If ``num_classes`` is not an integer, ``y`` or ``dtype`` has a type that cannot hold labels,
        ``label_smoothing`` is given with an integer ``dtype`` or ``sparse``, or ``lazy`` with a tensor.
    tensorflow.errors.InvalidArgumentError
        If a label is wrong in a graph of TensorFlow, when it runs.

    Notes
    -----
    The positional arguments are those of Keras 2.2.3, which added ``dtype`` to the two of 2.1. Unlike
    Keras, a label of -1 is an error, not the last class, and 1.9 is an error, not class 1. The formula of
    ``label_smoothing`` is that of ``keras.losses.CategoricalCrossentropy``.

    Examples
    --------
    >>> to_categorical([0, 2, 1], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    >>> to_categorical(["dog", "cat"], classes=["cat", "dog"], dtype="uint8")
    array([[0, 1],
           [1, 0]], dtype=uint8)
    """
    encoding = Encoding.of(num_classes, dtype, classes, label_smoothing, sparse)
    if tensors.is_tensor(y):
        if lazy:
            msg = "a tensor is encoded into a new tensor; lazy is for arrays"
            raise TypeError(msg)
        return tensors.encode(y, encoding)
    if lazy:
        return _view(encoding, y)
    numbers = encoding.numbers(y)
    return encoding.fitted_to(numbers).encoded(numbers)


def _view(encoding: Encoding, y: Any) -> RowsView:
    """Return a view that encodes labels when they are read, all known to be right."""
    source = by_rows(encoding.as_labels(y))
    if not source.shape:
        msg = "a single label has no rows that could be read one by one; leave lazy away"
        raise ValueError(msg)
    greatest: int | None = None
    for start, stop in row_blocks(source):
        rows = range(start, stop)
        numbers = encoding.numbers(source[start:stop], rows)
        encoding.check(numbers, rows)
        if numbers.size:
            greatest = max(greatest or 0, int(numbers.max()))
    encoding = encoding.fitted(greatest)
    return RowsView(source, encoding, encoding.shape(source.shape), encoding.dtype)


def from_categorical(y: ArrayLike, classes: Iterable[Any] | None = None) -> NDArray[Any]:
    """Return the labels of one-hot rows, or the most likely labels of predictions: the inverse of `to_categorical`.

    Parameters
    ----------
    y : array_like of real numbers
        Rows, of shape ``(..., num_classes)``: one-hot, smoothed, or what a model predicts. Tensors and
        views are converted with ``np.asarray``.
    classes : iterable, optional
        The label of each class, as given to `to_categorical`. By default the labels are the class numbers.

    Returns
    -------
    numpy.ndarray
        Of the shape of ``y`` without the last dimension: the label of the largest entry of each row, and of
        the first of those if several are largest. int64 without ``classes``, else of their type, or of objects
        where no type holds them all unchanged.

    Raises
    ------
    ValueError
        If a row is all zeros or has a NaN, and so names no class; if ``y`` has no columns, or has not as many
        as there are classes.

    Examples
    --------
    >>> from_categorical([[0.1, 0.9], [0.8, 0.2]], classes=["cat", "dog"])
    array(['dog', 'cat'], dtype='<U3')
    """
    rows = np.asarray(y)
    known = None if classes is None else Classes.of(classes)
    if not rows.ndim or not rows.shape[-1]:
        msg = f"expected rows with a column for each class, not shape {rows.shape}"
        raise ValueError(msg)
    if known is not None and rows.shape[-1] != len(known):
        msg = f"the rows have {rows.shape[-1]} columns, but there are {len(known)} classes"
        raise ValueError(msg)
    numbers = rows.argmax(axis=-1)
    largest = np.take_along_axis(rows, numbers[..., np.newaxis], -1)[..., 0]  # NaN where a row has one
    lost = (largest != largest) | ((largest == 0) & ~rows.any(axis=-1))  # noqa: PLR0124 - true for NaN only
    if lost.any():
        where = tuple(int(i) for i in np.unravel_index(int(np.argmax(lost)), lost.shape))
        msg = (
            f"the row at index {where[0] if len(where) == 1 else where} is all zeros or has a NaN, so it names no class"
        )
        raise ValueError(msg)
    return numbers if known is None else known.labels[numbers, ...]  # with ... an array also of a single label
