"""Batch normalization over the rows of all replicas of a model."""

from __future__ import annotations

import functools
import threading
from typing import Any

from kflow.core.parallel.exchange import add_up, can_exchange, is_replica, rows_or_zero

__all__ = ["has_own_moments", "synchronize_moments"]

_LOCK = threading.Lock()


def synchronize_moments() -> None:
    """Let batch normalization take mean and variance over the rows of all replicas, where it computes in a replica.

    Keras can do so itself (``synchronized=True``), but not for masked inputs, with less precision (the difference of
    two large numbers), and with a gradient that must be computed in the same run of the strategy.

    The class is changed, once and for good, and not the layers for as long as they compute: other threads may use
    the same layers, which outside of a replica do what they did before.
    """
    import keras

    with _LOCK:
        local = keras.layers.BatchNormalization._moments
        if not hasattr(local, "is_synchronized"):
            keras.layers.BatchNormalization._moments = _over_all_replicas(local)


def has_own_moments(layer: Any) -> bool:
    """Tell whether a layer of batch normalization computes its moments in another way than Keras."""
    import keras

    kind = keras.layers.BatchNormalization
    return isinstance(layer, kind) and type(layer)._moments is not kind._moments


def _over_all_replicas(local: Any) -> Any:
    """Wrap the method of Keras that computes moments."""
    import keras

    @functools.wraps(local)
    def moments(layer: Any, inputs: Any, mask: Any) -> Any:
        if not is_replica():
            return local(layer, inputs, mask)
        # Without a mask Keras itself would synchronize the moments of a layer that asks for it.
        own = keras.ops.moments(inputs, layer._reduction_axes) if mask is None else local(layer, inputs, mask)
        return _join(own, inputs, mask) if can_exchange() else own

    moments.is_synchronized = True  # type: ignore[attr-defined]
    return moments


def _join(own: tuple[Any, Any], inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Compute mean and variance of all replicas from those of each, weighed by its values."""
    import tensorflow as tf

    mean, variance = own
    values = tf.size(inputs) // tf.size(mean) if mask is None else tf.math.count_nonzero(mask, dtype="int32")
    count = tf.cast(rows_or_zero(values), inputs.dtype)
    total, all_counts = add_up(count * mean, count)
    whole_mean = tf.math.divide_no_nan(total, all_counts)
    (squares,) = add_up(count * (variance + tf.square(mean - whole_mean)))
    return whole_mean, tf.math.divide_no_nan(squares, all_counts)
