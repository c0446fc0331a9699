"""GPUs: how many there are, and training one model on several of them.

Counting reads files of the driver, so that a scheduler can ask without loading TensorFlow, which would
claim the memory of every GPU. Training splits each batch over the devices, as Keras 2.1 did.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

__all__ = ["count_gpus", "multi_gpu_model", "visible_gpus"]

_ROOT = Path("/")


def visible_gpus(*, root: Path = _ROOT, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """List the NVIDIA GPUs that a CUDA program started now would see, without loading one.

    Parameters
    ----------
    root : Path, default '/'
        Where ``proc`` and ``dev`` are. The driver lists each GPU as ``proc/driver/nvidia/gpus/<bus id>``;
        where that is hidden, as in some containers, the files ``dev/nvidia<number>`` are counted.
    environ : mapping, default `os.environ`
        Read for ``CUDA_VISIBLE_DEVICES``: a list of indices, UUIDs or beginnings of UUIDs. As in CUDA,
        the first entry that names no GPU ends the list, an entry that is repeated empties it, and
        a MIG slice, of which CUDA uses one per process, is the last one.

    Returns
    -------
    tuple of str
        Entries to put into ``CUDA_VISIBLE_DEVICES`` for a child process, in the order of CUDA's numbering.

    Notes
    -----
    The rules are those of the chapter "CUDA environment variables" of NVIDIA's CUDA programming guide.
    GPUs of other makers, and those of the Windows subsystem for Linux, are not seen.

    Examples
    --------
    >>> visible_gpus(environ={"CUDA_VISIBLE_DEVICES": ""})
    ()
    """
    present = _present_gpus(root)
    wanted = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(str(index) for index in range(len(present)))
    chosen: dict[int, str] = {}
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.startswith("MIG-") and present:
            return (*chosen.values(), entry)
        index = _find_gpu(entry, present)
        if index is None:
            break
        if index in chosen:
            return ()
        chosen[index] = entry
    return tuple(chosen.values())


def count_gpus(*, root: Path = _ROOT, environ: Mapping[str, str] | None = None) -> int:
    """Count the NVIDIA GPUs that a CUDA program started now would see, without loading TensorFlow.

    Parameters
    ----------
    root, environ
        As in `visible_gpus`.

    Returns
    -------
    int
        Zero or more.

    Examples
    --------
    >>> count_gpus(environ={"CUDA_VISIBLE_DEVICES": "-1"})
    0
    """
    return len(visible_gpus(root=root, environ=environ))


def _present_gpus(root: Path) -> list[str]:
    """List the UUIDs of the GPUs in the machine, in the order of their bus ids; '' for an unknown one."""
    listed = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    if listed:
        return [_read_uuid(path) for path in listed]
    return ["" for path in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]


def _read_uuid(information: Path) -> str:
    """Read the line "GPU UUID: GPU-..." of the driver's description of one GPU."""
    found = re.search(r"^GPU UUID:\s*(GPU-[0-9A-Fa-f-]+)", information.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else ""


def _find_gpu(entry: str, present: Sequence[str]) -> int | None:
    """Resolve one entry of CUDA_VISIBLE_DEVICES, or None when it names no GPU or more than one."""
    if entry.isascii() and entry.isdigit():
        return int(entry) if int(entry) < len(present) else None
    if not entry.startswith("GPU-"):
        return None
    matches = [index for index, uuid in enumerate(present) if uuid.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None


# --- one model on several devices --------------------------------------------------------------------------


def multi_gpu_model(
    model: Any,
    gpus: int | Sequence[int] | None = None,
    cpu_merge: bool = True,
    cpu_relocation: bool = False,
    *,
    devices: Sequence[str] | None = None,
) -> Any:
    """Make a model that computes each batch on several GPUs.

    The batch is cut into one part per device, as evenly as possible; each device runs the model forwards and
    backwards on its part, with the same weights; the outputs are joined in order.

    Parameters
    ----------
    model : keras.Model
        The template: a functional or built Sequential model. It shares its weights with the result, so save,
        load and reuse the template (unless `cpu_relocation`).
    gpus : int or sequence of int, optional
        How many GPUs, at least two, or the ids of which; None means all that TensorFlow sees.
    cpu_merge : bool, default True
        Join the outputs on the CPU; otherwise on the first device.
    cpu_relocation : bool, default False
        Copy the template with its weights to the CPU first, for a template that was made under a GPU's
        scope. The result then no longer shares weights with `model`.
    devices : sequence of str, optional
        Names of TensorFlow's logical devices, such as ``['GPU:0', 'GPU:1']`` or ``['CPU:0', 'CPU:1']``,
        instead of `gpus`.

    Returns
    -------
    keras.Model
        A new, uncompiled functional model with the inputs, outputs and names of the template. Its own
        ``save`` works too; import ``DataParallel`` from this module before loading such a file. It is
        never compiled by XLA, which would put everything on one device.

    Raises
    ------
    TypeError
        `model` is not a Keras model, or `gpus` or `devices` has another type than said above.
    ValueError
        Fewer than two devices, one that is repeated or not there, both `gpus` and `devices`, a template
        without inputs, or a Keras backend other than TensorFlow.

    Notes
    -----
    The mean of a loss, its gradients and the outputs equal those of one device up to the order of summation.
    What a layer computes from its whole batch does not: batch normalization uses the statistics of each
    part, and activity regularizers and ``add_loss`` add up over the parts. In a batch with fewer rows than
    devices, the devices left over compute the last row again, and their results are dropped.

    Examples
    --------
    >>> import keras
    >>> template = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> parallel = multi_gpu_model(template, gpus=2)  # doctest: +SKIP
    >>> parallel.compile("sgd", "mse")  # doctest: +SKIP
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        msg = f"multi_gpu_model needs the TensorFlow backend; Keras runs on {keras.backend.backend()}"
        raise ValueError(msg)
    _check_template(model)
    chosen = _choose_devices(gpus, devices)
    if cpu_relocation:
        with tf.device("CPU:0"):
            clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        model = clone
    graph = _graph(model)
    replicas = _layer_class()(model, chosen, "CPU:0" if cpu_merge else chosen[0], name=f"{model.name}_replicas")
    merged = keras.tree.flatten(replicas(graph.input))
    names = _distinct([output._keras_history.operation.name for output in graph.outputs])
    named = [keras.layers.Identity(name=name)(output) for name, output in zip(names, merged, strict=True)]
    return keras.Model(graph.input, keras.tree.pack_sequence_as(graph.output, named))


def _check_template(model: object) -> None:
    """Refuse what has no inputs to divide."""
    import keras

    if not isinstance(model, keras.Model):
        msg = f"model is a {type(model).__name__}; multi_gpu_model takes a keras.Model"
        raise TypeError(msg)
    if not getattr(model, "inputs", None):
        msg = (
            f"the model {model.name!r} has no inputs yet: begin it with keras.Input, or build it; "
            "a subclassed model must be wrapped in a functional one"
        )
        raise ValueError(msg)


def _graph(model: Any) -> Any:
    """Return the functional model inside a Sequential, whose `input` and `output` are its own."""
    import keras

    return model._functional if isinstance(model, keras.Sequential) else model


def _choose_devices(gpus: int | Sequence[int] | None, devices: Sequence[str] | None) -> tuple[str, ...]:
    """Turn the request into names such as 'GPU:0' of at least two different devices that are there."""
    if gpus is not None and devices is not None:
        msg = "both gpus and devices are given; give one of them"
        raise ValueError(msg)
    there = _list_devices()
    if devices is not None:
        if isinstance(devices, str) or not all(isinstance(device, str) for device in devices):
            msg = f"devices is {devices!r}; give a list of names such as ['GPU:0', 'GPU:1']"
            raise TypeError(msg)
        chosen = tuple(_shorten(device) for device in devices)
    else:
        chosen = _choose_gpus(gpus, there)
    problem = (
        f"{len(chosen)} asked for, and at least 2 are needed"
        if len(chosen) < 2
        else f"{', '.join(chosen)} names a device twice"
        if len(set(chosen)) < len(chosen)
        else f"there is no {', '.join(missing)}"
        if (missing := [device for device in chosen if device not in there])
        else ""
    )
    if problem:
        msg = f"cannot divide the model among devices: {problem}; TensorFlow sees {', '.join(there)}"
        raise ValueError(msg)
    return chosen


def _choose_gpus(gpus: int | Sequence[int] | None, there: Sequence[str]) -> tuple[str, ...]:
    """Name the GPUs of Keras 2.1's argument: a number, a list of ids, or None for all."""
    if gpus is None:
        return tuple(device for device in there if device.startswith("GPU:"))
    ids = range(gpus) if isinstance(gpus, int) else gpus
    is_ids = isinstance(ids, Sequence) and all(isinstance(index, int) for index in ids)
    if isinstance(gpus, bool | str) or not is_ids:
        msg = f"gpus is {gpus!r}; give a number of GPUs, such as 2, a list of their ids, or None for all"
        raise TypeError(msg)
    return tuple(f"GPU:{index}" for index in ids)


def _list_devices() -> list[str]:
    """List the devices that TensorFlow sees."""
    import tensorflow as tf

    return [_shorten(device.name) for device in tf.config.list_logical_devices()]


def _shorten(device: str) -> str:
    """Write '/device:GPU:0', '/gpu:0' and 'gpu:0' as 'GPU:0'."""
    return device.strip("/").upper().removeprefix("DEVICE:")


def _distinct(names: Sequence[str]) -> list[str]:
    """Number repeated names as Keras 2.2.3 did: a, a, b becomes a, a_1, b."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in range(1, len(names) + 1))
        distinct.append(name if name not in distinct else next(new for new in numbered if new not in distinct))
    return distinct


def __getattr__(name: str) -> Any:
    """Make the layer class when it is first asked for, since a subclass of a Keras class loads TensorFlow."""
    if name == "DataParallel":
        return _layer_class()
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


@cache
def _layer_class() -> type:
    """Define and register the layer that runs the towers."""
    import keras

    @keras.saving.register_keras_serializable(package="kflow")
    class DataParallel(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        """A model that runs once per device, each time on a part of the batch."""

        # One layer owns all towers: Keras saves the weights of a template only once, and a file with several
        # layers that share it could not be loaded.

        def __init__(self, template: Any, devices: Sequence[str], merge_device: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.template = template
            self.devices = tuple(devices)
            self.merge_device = merge_device
            self.supports_jit = False  # XLA would run the whole step on one device and ignore the others

        @property
        def metrics(self) -> list[Any]:
            """Nothing: those of a compiled template are not this model's."""
            return []

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            """Compute all towers and join their outputs."""
            return _run_towers(self.template, self.devices, self.merge_device, inputs, training)

        def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
            """Describe the outputs, which are those of the template."""
            return self.template.compute_output_spec(inputs, training=training)

        def get_config(self) -> dict[str, Any]:
            """Describe the layer with its template."""
            template = keras.saving.serialize_keras_object(self.template)
            own = {"template": template, "devices": list(self.devices), "merge_device": self.merge_device}
            return {**super().get_config(), **own}

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            """Make the layer again, on a machine that has the same devices."""
            _choose_devices(None, config["devices"])
            template = keras.saving.deserialize_keras_object(config["template"])
            return cls(**{**config, "template": template})

    return DataParallel


def _run_towers(model: Any, devices: Sequence[str], merge_device: str, inputs: Any, training: bool | None) -> Any:
    """Divide the inputs, run a tower on each device, and join the outputs in order."""
    import tensorflow as tf

    outputs: Any = None
    parts = []
    for number, device in enumerate(devices):
        with tf.device("CPU:0"):  # where Keras feeds batches, so that each device is sent only its part
            begin, size = _bounds(tf.shape(tf.nest.flatten(inputs)[0])[0], number, len(devices))
            share = tf.nest.map_structure(partial(_slice, begin=begin, size=tf.maximum(size, 1)), inputs)
        outputs = _run_tower(model, device, share, training)
        with tf.device(device):
            parts.append([_slice(x, 0, tf.where(size > 0, tf.shape(x)[0], 0)) for x in tf.nest.flatten(outputs)])
    with tf.device(merge_device):
        merged = [tf.concat(pieces, axis=0) for pieces in zip(*parts, strict=True)]
    return tf.nest.pack_sequence_as(outputs, merged)


def _bounds(rows: Any, number: int, towers: int) -> tuple[Any, Any]:
    """Say where a tower's rows begin and how many they are: the first `rows % towers` take one row more.

    A tower without rows begins at the last row. It must compute something, since layers such as batch
    normalization turn no rows into NaN; its result is dropped.
    """
    import tensorflow as tf

    size = rows // towers + tf.cast(number < rows % towers, rows.dtype)
    return tf.minimum(number * (rows // towers) + tf.minimum(number, rows % towers), rows - 1), size


def _slice(tensor: Any, begin: Any, size: Any) -> Any:
    """Cut rows out of a tensor."""
    return tensor[begin : begin + size]


def _run_tower(model: Any, device: str, inputs: Any, training: bool | None) -> Any:
    """Run the model forwards, and later backwards, on one device.

    TensorFlow places what a gradient computes on the default device, wherever the forward operation was;
    a gradient of our own is the way to have it on the tower's.
    """
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def tower(*tensors: Any) -> Any:
        with tf.device(device), tf.GradientTape(persistent=True) as tape:
            tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
            outputs = model(tf.nest.pack_sequence_as(inputs, tensors), training=training)

        def backward(*upstream: Any, variables: Sequence[Any] | None = None) -> Any:
            pairs = [pair for pair in zip(tf.nest.flatten(outputs), upstream, strict=True) if pair[0].dtype.is_floating]
            targets, seeds = zip(*pairs, strict=True)
            floats = [index for index, tensor in enumerate(tensors) if tensor.dtype.is_floating]
            sources = [*(tensors[index] for index in floats), *(variables or ())]
            with tf.device(device):
                found = tape.gradient(list(targets), sources, list(seeds))
            to_inputs = dict(zip(floats, found, strict=False))
            gradients = [to_inputs.get(index) for index in range(len(tensors))]
            return gradients if variables is None else (gradients, found[len(floats) :])

        return outputs, backward

    return tower(*tf.nest.flatten(inputs))
