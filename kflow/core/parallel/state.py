"""What a replica of a model has instead of the model's variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["noting_scope", "state_of"]

_SEED_STEP = 0x9E3779B9  # 2**32 divided by the golden ratio: the seeds of no two replicas are neighbours


def noting_scope(variables: Sequence[Any], values: Sequence[Any], tape: Any) -> Any:
    """Make a scope in which variables have these values, and what layers assign or add is noted, not done.

    Keras would update moving averages and seeds once per replica, and mix up the losses of the replicas.
    """
    import keras
    import tensorflow as tf

    places = {id(variable): index for index, variable in enumerate(variables)}

    class Scope(keras.StatelessScope):  # type: ignore[misc]  # Keras has no types
        """Notes what is assigned, cut off from where it comes from, as variables are."""

        def __init__(self) -> None:
            super().__init__(zip(variables, values, strict=True), collect_losses=True)
            self.assigned: dict[int, Any] = {}

        def add_update(self, update: tuple[Any, Any]) -> None:
            variable, value = update
            value = tf.stop_gradient(value)
            if value.dtype.is_floating:
                tape.watch(value)
            super().add_update((variable, value))
            self.assigned[places[id(variable)]] = value

    return Scope()


def state_of(variable: Any, number: int) -> Any:
    """Read a variable that is not trained; the seeds of random layers differ from replica to replica."""
    import tensorflow as tf

    value = tf.convert_to_tensor(variable)
    if number and variable.path.endswith("seed_generator_state"):
        with tf.device("CPU:0"):  # GPUs do not add such numbers
            return value + tf.constant([number * _SEED_STEP % 2**32, 0], value.dtype)
    return value
