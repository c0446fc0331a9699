"""Batch normalization over the rows of all replicas of a model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

__all__ = ["REPLICA", "synchronized_moments"]

REPLICA = threading.local()  # `rows`: 1 in a replica that has rows of the batch, 0 in one that has none


@contextlib.contextmanager
def synchronized_moments(model: Any) -> Iterator[None]:
    """Let the layers of batch normalization take mean and variance over the rows of all replicas.

    Keras can do so itself (``synchronized=True``), but not for masked inputs, with less precision (the difference of
    two large numbers), and with a gradient that must be computed in the same run of the strategy.
    """
    import keras

    layers = [each for each in model._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]
    asked = [layer.synchronized for layer in layers]
    for layer in layers:
        layer.synchronized = False
        layer._moments = partial(_moments, layer._moments, _current_graph())
    try:
        yield
    finally:
        for layer, before in zip(layers, asked, strict=True):
            layer.synchronized = before
            del layer._moments


def _current_graph() -> Any:
    """Return the graph that is being built, or None where operations run at once."""
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _moments(local: Any, graph: Any, inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Compute mean and variance of all replicas from those of each, weighed by its values."""
    import tensorflow as tf

    mean, variance = local(inputs, mask)
    if _current_graph() is not graph:  # within a loop, where replicas cannot wait for one another
        return mean, variance
    values = tf.size(inputs) // tf.size(mean) if mask is None else tf.math.count_nonzero(mask, dtype="int32")
    count = tf.cast(tf.where(REPLICA.rows, values, 0), inputs.dtype)
    total, all_counts = _add_up(count * mean, count)
    whole_mean = tf.math.divide_no_nan(total, all_counts)
    (squares,) = _add_up(count * (variance + tf.square(mean - whole_mean)))
    return whole_mean, tf.math.divide_no_nan(squares, all_counts)


def _add_up(*values: Any) -> Any:
    """Add values of all replicas up, forwards and backwards; each replica gets the sums."""
    import tensorflow as tf

    def reduce(strategy: Any, *values: Any) -> Any:
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(each, each) for each in values])

    def add_over_replicas(*values: Any) -> list[Any]:
        return list(tf.distribute.get_replica_context().merge_call(reduce, args=values))

    # The gradient is summed in the context of its own run; that of `all_reduce` insists on the one of the forward run.
    # The sums are arguments, since TensorFlow searches the graph between results and arguments each time.
    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def connect(*tensors: Any) -> Any:
        sums = [tf.identity(each) for each in tensors[len(values) :]]
        return sums, lambda *upstream: [*add_over_replicas(*upstream), *(None for _ in values)]

    return connect(*values, *add_over_replicas(*values))
