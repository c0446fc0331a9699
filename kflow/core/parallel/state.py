"""What a replica of a model has instead of the model's variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from kflow.core.parallel.joining import Assigned

__all__ = ["metric_variables", "noting_scope", "state_of"]

_SEED_STEP = 0x9E3779B9  # 2**32 divided by the golden ratio: the seeds of no two replicas are neighbours


def noting_scope(
    variables: Sequence[Any], values: Sequence[Any], tape: Any, rule_for: Callable[[Any, Any], str]
) -> Any:
    """Make a scope in which variables have these values, and what layers assign or add is noted, not done.

    Keras would update moving averages and seeds once per replica, and mix up the losses of the replicas.
    """
    import keras
    import tensorflow as tf

    class Scope(keras.StatelessScope):  # type: ignore[misc]  # Keras has no types
        """Notes what is assigned, cut off from where it comes from, as variables are."""

        def __init__(self) -> None:
            # A variable that a layer makes here could not be initialized in a replica; `find_rule` refuses it.
            super().__init__(zip(variables, values, strict=True), collect_losses=True, initialize_variables=False)
            self.before = dict(self.state_mapping)
            self.assigned: dict[int, Assigned] = {}

        def add_update(self, update: tuple[Any, Any]) -> None:
            variable, value = update
            rule = rule_for(variable, sys._getframe(1))
            value = tf.stop_gradient(value)
            if value.dtype.is_floating:
                tape.watch(value)
            super().add_update((variable, value))
            self.assigned[id(variable)] = Assigned(variable, self.before[id(variable)], value, rule)

    return Scope()


def state_of(variable: Any, number: int) -> Any:
    """Read a variable that is not trained; the seeds of random layers differ from replica to replica."""
    import tensorflow as tf

    value = tf.convert_to_tensor(variable)
    if number and variable.path.endswith("seed_generator_state"):
        with tf.device("CPU:0"):  # GPUs do not add such numbers
            return value + tf.constant([number * _SEED_STEP % 2**32, 0], value.dtype)
    return value


def metric_variables(model: Any) -> list[Any]:
    """List the variables of the metrics that layers keep, which Keras does not count among a model's."""
    return [variable for layer in model._flatten_layers() for metric in layer._metrics for variable in metric.variables]
