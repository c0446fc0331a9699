"""One model computed on several devices at once, so that the results are those of one device.

MirroredStrategy of TensorFlow runs the replicas: it puts their operations on the devices and lets them wait for one
another. It does nothing else here. The weights stay where they are, the loss, the metrics and the update of the
weights are computed once, by Keras, from the joined outputs; so they need no scaling, whatever the loss and however
many rows each replica has.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kflow.core.parallel.exchange import as_replica, is_replica
from kflow.core.parallel.joining import Assigned, find_rule, join_assigned, refuse_hidden_variables, weighted_mean
from kflow.core.parallel.moments import synchronize_moments
from kflow.core.parallel.state import metric_variables, noting_scope, state_of

__all__ = ["Joined", "make_strategy", "run_replicas"]

_TURN = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The rows of a batch that each replica gets: where they start, how many, and their share of all."""

    starts: list[Any]
    sizes: list[Any]
    shares: list[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """What one replica computed, and the tape to compute the gradients with."""

    tape: Any
    weights: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    masks: list[Any]
    losses: list[Any]
    state: dict[int, Assigned]
    """What layers assigned to variables while they computed, by the id of the variable."""
    structure: Any


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """What all replicas computed together."""

    outputs: Any
    losses: list[Any]


def make_strategy(devices: Sequence[str]) -> Any:
    """Make the strategy that runs a replica on each device.

    Examples
    --------
    >>> make_strategy(["CPU:0"]).num_replicas_in_sync
    1
    """
    import tensorflow as tf

    # The default on CPUs, collective operations, fails for the second strategy of a process; and these few numbers
    # (the moments of batch normalization) gain nothing from NCCL.
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=tf.distribute.ReductionToOneDevice())


def run_replicas(model: Any, strategy: Any, merge_device: str, inputs: Any, training: bool | None) -> Joined:
    """Divide a batch, compute the model on each device, and join what comes out.

    Parameters
    ----------
    model : keras.Model
        Any built model; its variables are read, and those that are not trained are updated once.
    strategy : tf.distribute.MirroredStrategy
        As `make_strategy` makes it.
    merge_device : str
        Where the outputs are joined.
    inputs : nested tensors
        A batch; the first axis of each tensor is cut.
    training : bool, optional
        As Keras passes it to layers.

    Returns
    -------
    Joined
        The outputs, structured and masked as those of the model; and the losses that layers added (activity
        regularizers, ``add_loss``), each the mean over the rows.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> run_replicas(model, make_strategy(["CPU:0"]), "CPU:0", keras.ops.ones((3, 4)), False).outputs.shape
    TensorShape([3, 1])
    """
    import tensorflow as tf

    tensors = tf.nest.flatten(inputs)
    run = _Run(model, strategy, merge_device, inputs, training, _cut(tensors[0], strategy.num_replicas_in_sync))
    # The weights are arguments, read outside of the replicas: so the gradients reach the variables of the model.
    weights = [tf.convert_to_tensor(variable) for variable in run.trained]
    compute = tf.custom_gradient(run.compute)
    found = iter(tf.nest.flatten(compute(*weights, *tensors)))
    replica = run.replicas[0]
    outputs = [next(found) for _ in replica.outputs]
    losses = [next(found) for _ in replica.losses]
    for output, mask in zip(outputs, replica.masks, strict=True):
        if mask is not None:
            output._keras_mask = next(found)
    for assigned in replica.state.values():
        assigned.variable.assign(next(found))
    return Joined(tf.nest.pack_sequence_as(replica.structure, outputs), losses)


def _cut(tensor: Any, count: int) -> Cut:
    """Deal out the rows as evenly as possible: the first replicas take one row more.

    A replica for which no row is left starts at the last one. It must compute something, since kernels and layers
    fail on no rows or give NaN; what it computes counts nothing. Where the number of rows is known, so are the cuts.
    """
    import tensorflow as tf

    if (rows := tensor.shape[0]) is not None:
        whole, rest = divmod(rows, count)
        sizes = [whole + (number < rest) for number in range(count)]
        starts = [min(number * whole + min(number, rest), rows - 1) for number in range(count)]
        return Cut(starts, sizes, [size / max(rows, 1) for size in sizes])
    with tf.device("CPU:0"):
        rows = tf.shape(tensor)[0]
        whole, rest = rows // count, rows % count
        sizes = [whole + tf.cast(number < rest, rows.dtype) for number in range(count)]
        starts = [tf.minimum(number * whole + tf.minimum(number, rest), rows - 1) for number in range(count)]
        return Cut(starts, sizes, [tf.cast(size / rows, "float32") for size in sizes])


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A batch on its way through the replicas, forwards and backwards."""

    model: Any
    strategy: Any
    merge_device: str
    inputs: Any
    training: bool | None
    cut: Cut
    replicas: list[Replica] = field(default_factory=list)

    @property
    def trained(self) -> list[Any]:
        """The variables that are trained."""
        return list(self.model.trainable_variables)

    @property
    def untrained(self) -> list[Any]:
        """All other variables, those of metrics as well."""
        return [*self.model.non_trainable_variables, *metric_variables(self.model)]

    def compute(self, *tensors: Any) -> Any:
        """Compute all replicas and join them; give the gradient as well, as `tf.custom_gradient` wants it.

        TensorFlow places what a gradient computes on the default device, wherever the forward operation was; a
        gradient of our own is the way to have it on the replica's.
        """
        count = len(self.trained)
        synchronize_moments()
        self.replicas.extend(self._on_each(partial(self._forward, tensors[:count], tensors[count:])))
        return self._join(), self._backward

    def _on_each(self, function: Any) -> list[Any]:
        """Call a function on each device with the number of the replica, and list what it gives."""
        import tensorflow as tf

        results: dict[int, Any] = {}

        def call(number: int) -> None:
            with as_replica(self.cut.sizes[number] > 0):
                results[number] = function(number)

        numbers = self.strategy.experimental_distribute_values_from_function(lambda each: each.replica_id_in_sync_group)
        # One batch at a time: in several threads, one slice of an eager tensor in ten thousand had a single row.
        with contextlib.nullcontext() if is_replica() else _TURN:
            self.strategy.run(tf.autograph.experimental.do_not_convert(call), args=(numbers,))
        return [results[number] for number in sorted(results)]

    # --- forwards --------------------------------------------------------------------------------------

    def _forward(self, weights: Sequence[Any], tensors: Sequence[Any], number: int) -> Replica:
        import tensorflow as tf

        own_weights = [tf.identity(weight) for weight in weights]
        with tf.device("CPU:0"):  # where Keras feeds batches, so that each device is sent only its part
            parts = self._take(tensors, number, at_least=1)
            self._require_rows(parts[0], number)
        own_inputs = [tf.identity(part) for part in parts]
        untrained = self.untrained
        state = [state_of(variable, number) for variable in untrained]
        rule_for = partial(find_rule, self.model, len(self.cut.sizes))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([tensor for tensor in own_weights + own_inputs if tensor.dtype.is_floating])
            before = _operations()
            with noting_scope([*self.trained, *untrained], [*own_weights, *state], tape, rule_for) as scope:
                structure = self.model(tf.nest.pack_sequence_as(self.inputs, own_inputs), training=self.training)
            refuse_hidden_variables(self.model, _operations()[len(before) :])
            outputs = tf.nest.flatten(structure)
            masks = [getattr(output, "_keras_mask", None) for output in outputs]
            rows = self._own_rows(outputs, parts[0], number)
        masks = [None if mask is None else self._own(mask, number) for mask in masks]
        return Replica(tape, own_weights, own_inputs, rows, masks, list(scope.losses), scope.assigned, structure)

    def _own_rows(self, outputs: Sequence[Any], part: Any, number: int) -> list[Any]:
        """Cut off what the part only has so as not to be empty; refuse outputs without a row for each of its rows."""
        import tensorflow as tf

        names = [tensor._keras_history.operation.name for tensor in self.model.outputs]
        rows = []
        for name, output in zip(names, outputs, strict=True):
            count = tf.shape(output)[0]
            message = (
                f"the model {self.model.name!r} cannot be divided among devices: its output {name!r} has x rows for "
                "y rows of the inputs; reshape it to one row each, or do not divide the model"
            )
            with tf.device("CPU:0"):
                check = tf.debugging.assert_equal(count, tf.shape(part)[0], message)
            with tf.control_dependencies([check]):
                rows.append(self._own(output, number))
        return rows

    def _require_rows(self, part: Any, number: int) -> None:
        """Let no row be lost unseen, should threads outside of here disturb a slice; in a graph none can."""
        size, rows = self.cut.sizes[number], part.shape[0]
        if isinstance(size, int) and rows not in (None, size, max(size, 1)):
            message = f"TensorFlow cut {rows} rows for a device that was to get {size}; call it again"
            raise RuntimeError(message)

    def _own(self, tensor: Any, number: int) -> Any:
        """Cut off the row that a replica without rows computes, if it may be one."""
        size = self.cut.sizes[number]
        return tensor if isinstance(size, int) and size else tensor[:size]

    def _take(self, tensors: Sequence[Any], number: int, at_least: int = 0) -> list[Any]:
        """Cut a replica's rows out."""
        import tensorflow as tf

        start, size = self.cut.starts[number], self.cut.sizes[number]
        size = max(size, at_least) if isinstance(size, int) else tf.maximum(size, at_least)
        return [tensor[start : start + size] for tensor in tensors]

    def _join(self) -> list[Any]:
        """Join outputs, losses, masks and new values of variables, in this order."""
        import tensorflow as tf

        with tf.device(self.merge_device):
            first = self.replicas[0]
            outputs = [tf.concat(parts, 0) for parts in zip(*(each.outputs for each in self.replicas), strict=True)]
            losses = [
                weighted_mean(parts, self.cut.shares)
                for parts in zip(*(each.losses for each in self.replicas), strict=True)
            ]
            masks = [
                tf.concat([each.masks[index] for each in self.replicas], 0)
                for index, mask in enumerate(first.masks)
                if mask is not None
            ]
            state = [
                join_assigned([each.state[key] for each in self.replicas], self.cut.sizes, self.cut.shares)
                for key in first.state
            ]
        return [*outputs, *losses, *masks, *state]

    # --- backwards -------------------------------------------------------------------------------------

    def _backward(self, *upstream: Any) -> list[Any]:
        import tensorflow as tf

        found = self._on_each(partial(self._gradients, upstream))
        variables = self.trained
        gradients = []
        for index, each in enumerate(zip(*found, strict=True)):
            if index < len(variables):
                with tf.device(variables[index].value.device):
                    gradients.append(_sum(each))
            else:
                with tf.device(self.merge_device):
                    gradients.append(None if each[0] is None else tf.concat(each, 0))
        return gradients

    def _gradients(self, upstream: Sequence[Any], number: int) -> list[Any]:
        """Compute the gradients of one replica, for its weights and then for its rows of the inputs."""
        import tensorflow as tf

        replica = self.replicas[number]
        count = len(replica.outputs)
        with tf.device(self.merge_device):
            seeds = self._take(upstream[:count], number)
        for loss in upstream[count : count + len(replica.losses)]:
            seeds.append(loss * tf.cast(self.cut.shares[number], loss.dtype))
        pairs = [
            pair for pair in zip(replica.outputs + replica.losses, seeds, strict=True) if pair[0].dtype.is_floating
        ]
        targets, seeds = (list(each) for each in zip(*pairs, strict=True))
        # A weight that a layer assigned to has a gradient from before and one from after, as a variable has.
        keys = [id(variable) for variable in self.trained]
        assigned = {keys.index(key): each.value for key, each in replica.state.items() if key in keys}
        sources = [*replica.weights, *replica.inputs, *assigned.values()]
        gradients = replica.tape.gradient(targets, sources, seeds)
        for index in reversed(assigned):
            gradients[index] = _sum([each for each in (gradients[index], gradients.pop()) if each is not None])
        inputs = gradients[len(replica.weights) :]
        own = [None if each is None else self._own(tf.convert_to_tensor(each), number) for each in inputs]
        return [*gradients[: len(replica.weights)], *own]


def _operations() -> list[Any]:
    """List the operations of the graph that is being built; none where operations run at once."""
    import tensorflow as tf

    return [] if tf.executing_eagerly() else list(tf.compat.v1.get_default_graph().get_operations())


def _sum(gradients: Sequence[Any]) -> Any:
    """Add gradients up; those of embeddings stay lists of rows."""
    import tensorflow as tf

    if not gradients or gradients[0] is None:
        return None
    if not all(isinstance(each, tf.IndexedSlices) for each in gradients):
        return tf.add_n([tf.convert_to_tensor(each) for each in gradients])
    values, indices = ([getattr(each, name) for each in gradients] for name in ("values", "indices"))
    return tf.IndexedSlices(tf.concat(values, 0), tf.concat(indices, 0), gradients[0].dense_shape)
