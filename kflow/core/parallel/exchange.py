"""What the replicas of a model tell one another while they compute."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["add_up", "as_replica", "can_exchange", "is_replica", "rows_or_zero", "sum_over_devices"]

_REPLICA = threading.local()  # a replica has a thread of its own, so what other threads compute is not touched


@contextlib.contextmanager
def as_replica(has_rows: Any) -> Iterator[None]:
    """Make this thread a replica that has rows of the batch, or has none and computes the last row again."""
    _REPLICA.has_rows, _REPLICA.graph = has_rows, _current_graph()
    try:
        yield
    finally:
        del _REPLICA.has_rows, _REPLICA.graph


def is_replica() -> bool:
    """Tell whether this thread is a replica."""
    return hasattr(_REPLICA, "has_rows")


def can_exchange() -> bool:
    """Tell whether the replicas can wait for one another here, which they cannot within a loop or a condition."""
    return _current_graph() is _REPLICA.graph


def rows_or_zero(value: Any) -> Any:
    """Return a value of this replica, or zero where it has no rows."""
    import tensorflow as tf

    return tf.where(_REPLICA.has_rows, value, tf.zeros_like(value))


def add_up(*values: Any) -> Any:
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


def sum_over_devices(value: Any) -> Any:
    """Add a sum over the rows of one device up over all devices, for a layer that needs that of the whole batch.

    Parameters
    ----------
    value : tensor
        A sum over the rows of a batch: in a divided model, over those that the device has.

    Returns
    -------
    tensor
        The sum over all rows, on each device the same; it has a gradient. Outside of a model that `multi_gpu_model`
        divided, `value` itself, so a layer that uses it works everywhere.

    Raises
    ------
    ValueError
        In a loop or a condition of TensorFlow, where devices cannot wait for one another.

    Examples
    --------
    >>> sum_over_devices(3.0)
    3.0
    """
    import tensorflow as tf

    if not is_replica():
        return value
    if not can_exchange():
        msg = "sum_over_devices is called in a loop or a condition, where devices cannot wait for one another"
        raise ValueError(f"{msg}; call it outside")
    (total,) = add_up(rows_or_zero(tf.convert_to_tensor(value)))
    return total


def _current_graph() -> Any:
    """Return the graph that is being built, or None where operations run at once."""
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
