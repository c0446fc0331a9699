"""Whether dividing a batch among several devices pays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kflow.core.parallel.replicas import make_strategy, run_replicas

__all__ = ["Scaling", "measure_scaling"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Seconds that a batch takes, forwards and backwards: on one device, on all, and on each with its part."""

    one_device: float
    all_devices: float
    parts: dict[str, float]

    @property
    def speedup(self) -> float:
        """How many times faster all devices are than one."""
        return self.one_device / self.all_devices

    @property
    def efficiency(self) -> float:
        """The speed-up per device; 1 is the best that can be."""
        return self.speedup / len(self.parts)


def measure_scaling(model: Any, inputs: Any, *, rounds: int = 5) -> Scaling:
    """Measure whether dividing a batch pays.

    Parameters
    ----------
    model : keras.Model
        What `multi_gpu_model` returned.
    inputs : nested arrays
        A batch, of the size that shall be trained with.
    rounds : int, default 5
        How often everything is measured; the shortest times count.

    Returns
    -------
    Scaling
        In seconds.

    Raises
    ------
    TypeError
        `model` is not a divided model.

    Warns
    -----
    UserWarning
        All devices together are not faster than one: the work per device is too small.

    Examples
    --------
    >>> Scaling(one_device=0.4, all_devices=0.25, parts={"GPU:0": 0.2, "GPU:1": 0.2}).efficiency
    0.8
    """
    import tensorflow as tf

    replicas = getattr(model, "replicas", None)
    if replicas is None:
        msg = f"model is a {type(model).__name__} that is not divided; give what multi_gpu_model made of it"
        raise TypeError(msg)
    batch = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    rows = len(tf.nest.flatten(batch)[0])
    part = tf.nest.map_structure(lambda tensor: tensor[: -(-rows // len(replicas.devices))], batch)
    steps = {
        "": _make_step(replicas.template, replicas.devices[:1], batch),
        "all": _make_step(replicas.template, replicas.devices, batch),
        **{device: _make_step(replicas.template, (device,), part) for device in replicas.devices},
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):  # the first traces
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if number:
                times[name].append(time.perf_counter() - begin)
    best = {name: min(seconds) for name, seconds in times.items()}
    scaling = Scaling(best.pop(""), best.pop("all"), best)
    if scaling.speedup <= 1:
        message = (
            f"{rows} rows take {scaling.all_devices:.3g} s on {', '.join(replicas.devices)} together and "
            f"{scaling.one_device:.3g} s on one of them; use larger batches, or one device"
        )
        warnings.warn(message, stacklevel=2)
    return scaling


def _make_step(template: Any, devices: Sequence[str], batch: Any) -> Any:
    """Make a function that computes outputs and gradients, and waits for them."""
    import tensorflow as tf

    strategy = make_strategy(devices)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def step() -> Any:
        with tf.GradientTape() as tape:
            joined = run_replicas(template, strategy, devices[0], batch, training=False)
            total = tf.add_n([tf.reduce_mean(tf.cast(each, "float32")) for each in tf.nest.flatten(joined.outputs)])
        gradients = tape.gradient(total, [variable.value for variable in template.trainable_variables])
        return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(each)) for each in gradients if each is not None])

    return lambda: step().numpy()
