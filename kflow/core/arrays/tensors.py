"""The same on tensors of TensorFlow and Keras: labels encoded, vectors normalized.

Nothing here loads TensorFlow: a tensor exists only where it is loaded already.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kflow.core.arrays.encoding import Encoding

__all__ = ["encode", "is_tensor", "normalize", "rank"]


def is_tensor(x: Any) -> bool:
    """Whether something is a tensor or variable of TensorFlow or Keras.

    Examples
    --------
    >>> is_tensor([1, 2])
    False
    """
    is_of_tensorflow = getattr(sys.modules.get("tensorflow"), "is_tensor", None)
    return bool(is_of_tensorflow is not None and is_of_tensorflow(x)) or _is_of_keras(x)


def _is_of_keras(x: Any) -> bool:
    """Whether something is a tensor without values, of a model that is being built."""
    return isinstance(x, getattr(sys.modules.get("keras"), "KerasTensor", ()))


def rank(x: Any) -> int:
    """Return the number of axes of a tensor.

    Raises
    ------
    ValueError
        If it is not known before the graph runs.
    """
    if getattr(x.shape, "rank", 0) is None:
        msg = "the number of axes of this tensor is not known; give it with tf.ensure_shape"
        raise ValueError(msg)
    return len(x.shape)


def _dense(x: Any) -> Any:
    """Return a tensor or variable as a dense tensor."""
    import tensorflow as tf

    if isinstance(x, tf.RaggedTensor | tf.SparseTensor):
        how = "to_tensor()" if isinstance(x, tf.RaggedTensor) else "tf.sparse.to_dense"
        msg = f"expected a dense tensor, not a {type(x).__name__}; make it one with {how}"
        raise TypeError(msg)
    return tf.convert_to_tensor(x)


def encode(y: Any, encoding: Encoding) -> Any:
    """Encode the labels in a tensor.

    In eager mode the labels are checked as those of arrays are. In a graph they are checked when it runs,
    and the number of classes must be given. XLA leaves out such checks: there the row of a wrong label is
    NaN where the type has one.

    Raises
    ------
    ValueError
        As for arrays, and in a graph if the number of classes is not given.
    TypeError
        If the tensor is ragged or sparse, or in a graph holds no numbers and there are no classes.
    """
    import tensorflow as tf

    if _is_of_keras(y):
        from kflow.core.arrays.operations import ToCategorical

        return ToCategorical.of(encoding)(y)
    y = _dense(y)
    if tf.is_symbolic_tensor(y):
        return _encode_in_graph(y, encoding)
    numbers = encoding.numbers(y.numpy())
    encoding = encoding.fitted_to(numbers)
    numbers = tf.constant(replace(encoding, sparse=True, dtype=np.dtype(np.int64)).encoded(numbers))
    return tf.cast(numbers, encoding.dtype.name) if encoding.sparse else _one_hot(numbers, encoding)


def _one_hot(numbers: Any, encoding: Encoding) -> Any:
    import tensorflow as tf

    dtype = tf.as_dtype(encoding.dtype.name)
    on, off = tf.cast(encoding.on, dtype), tf.cast(encoding.off, dtype)
    return tf.one_hot(numbers, encoding.columns, on, off, dtype=dtype)


def _encode_in_graph(y: Any, encoding: Encoding) -> Any:
    import tensorflow as tf

    if encoding.columns is None:
        msg = "the labels are known only when the graph runs; give num_classes or classes"
        raise ValueError(msg)
    if rank(y) > 1 and y.shape[-1] == 1:
        y = tf.squeeze(y, -1)
    numbers, is_wrong = _numbers_in_graph(y, encoding)
    where = tf.where(is_wrong)[:1]
    check = tf.debugging.Assert(
        tf.logical_not(tf.reduce_any(is_wrong)),
        ["label", tf.gather_nd(y, where), "at index", where, f"is none of {_described(encoding)}"],
    )
    with tf.control_dependencies([check]):
        numbers = tf.where(is_wrong, tf.constant(-1, numbers.dtype), numbers)
    if encoding.sparse:
        return tf.cast(numbers, encoding.dtype.name)
    encoded = _one_hot(numbers, encoding)
    if not encoded.dtype.is_floating:
        return encoded
    return tf.where(is_wrong[..., tf.newaxis], tf.constant(math.nan, encoded.dtype), encoded)


def _described(encoding: Encoding) -> str:
    if encoding.classes is not None:
        return f"the {encoding.columns} classes"
    return f"the whole numbers from 0 to {(encoding.columns or 0) - 1}"


def _numbers_in_graph(y: Any, encoding: Encoding) -> tuple[Any, Any]:
    """Return class numbers, and which of them are wrong."""
    import tensorflow as tf

    if encoding.classes is not None:
        is_class = tf.equal(y[..., tf.newaxis], _classes_like(y, encoding.classes.labels))
        return tf.argmax(is_class, -1), tf.logical_not(tf.reduce_any(is_class, -1))
    if y.dtype == tf.string or y.dtype.is_complex:
        msg = f"labels must be whole numbers, not of type {y.dtype.name}; for others give classes"
        raise TypeError(msg)
    numbers = tf.cast(y, tf.int64)
    is_wrong = (numbers < 0) | (numbers >= encoding.columns)
    if y.dtype.is_floating:
        is_wrong |= tf.math.logical_not(tf.math.is_finite(y)) | (tf.cast(numbers, y.dtype) != y)
    return numbers, is_wrong


def _classes_like(y: Any, labels: Any) -> Any:
    """Return the labels of the classes in the type of a tensor."""
    import tensorflow as tf

    try:
        alike = np.asarray(labels.tolist(), object if y.dtype == tf.string else y.dtype.as_numpy_dtype)
        if y.dtype == tf.string or alike.tolist() == labels.tolist():
            return tf.constant(alike.tolist(), y.dtype)
    except (TypeError, ValueError, OverflowError):
        pass
    msg = f"labels of type {y.dtype.name} cannot be the classes {labels.tolist()!r}"
    raise TypeError(msg)


def normalize(x: Any, axes: tuple[int, ...], power: float) -> Any:
    """Scale the vectors in a tensor to length 1; gradients flow through it.

    Raises
    ------
    TypeError
        If the tensor is ragged or sparse, or does not hold real numbers.
    """
    import keras
    import tensorflow as tf

    if _is_of_keras(x):
        from kflow.core.arrays.operations import Normalize

        return Normalize(axes, power)(x)
    x = _dense(x)
    if not (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool):
        msg = f"only real numbers can be normalized, not type {x.dtype.name}"
        raise TypeError(msg)
    dtype = x.dtype if x.dtype.is_floating else tf.as_dtype(keras.config.floatx())
    values = tf.cast(x, dtype if dtype.size >= tf.float32.size else tf.float32)
    if power != 0 and not math.isinf(power):  # so that no power over- or underflows; the result does not depend on it
        reduce = tf.reduce_max if power > 0 else tf.reduce_min
        peak = tf.stop_gradient(reduce(tf.abs(values), axes, keepdims=True))
        values = values / tf.where(peak > 0, peak, tf.ones_like(peak))
    return tf.cast(values / _length(values, axes, power), dtype)


def _length(values: Any, axes: tuple[int, ...], power: float) -> Any:
    """Return the lengths of vectors with the axes kept as 1; 1 where it is 0."""
    import tensorflow as tf

    if power == 2:
        # the root of 0 has no gradient
        return tf.sqrt(_or_one(tf.reduce_sum(tf.square(values), axes, keepdims=True)))
    if power == 0:
        return _or_one(tf.math.count_nonzero(values, axes, keepdims=True, dtype=values.dtype))
    sizes = tf.abs(values)
    if math.isinf(power):
        return _or_one((tf.reduce_max if power > 0 else tf.reduce_min)(sizes, axes, keepdims=True))
    powers = sizes if power == 1 else _powers(sizes, power)
    total = tf.reduce_sum(powers, axes, keepdims=True)
    return _or_one(_or_one(total) ** (1 / power))


def _powers(sizes: Any, power: float) -> Any:
    """Return powers whose gradient at 0 is 0: below 1 it has opposite infinite ones at either side, and no other."""
    import tensorflow as tf

    is_zero = tf.equal(sizes, 0)
    at_zero = tf.constant(0 if power > 0 else math.inf, sizes.dtype)
    return tf.where(is_zero, at_zero, tf.where(is_zero, tf.ones_like(sizes), sizes) ** power)


def _or_one(lengths: Any) -> Any:
    import tensorflow as tf

    return tf.where(tf.equal(lengths, 0), tf.ones_like(lengths), lengths)
