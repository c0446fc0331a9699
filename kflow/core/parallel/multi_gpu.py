"""Training on several devices with the `multi_gpu_model` of Keras 2.1."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from kflow.core.parallel.devices import choose_devices, list_devices
from kflow.core.parallel.moments import has_own_moments
from kflow.core.parallel.replicas import make_strategy, run_replicas

__all__ = ["multi_gpu_model"]


def multi_gpu_model(
    model: Any,
    gpus: int | Sequence[int | str] | None = None,
    cpu_merge: bool = True,
    cpu_relocation: bool = False,
    *,
    fall_back: bool = False,
) -> Any:
    """Make a model that computes each batch on several GPUs, with the results of one.

    The batch is cut into one part per device, as evenly as possible; each device runs the model forwards and
    backwards on its part, with the same weights; the outputs are joined in order.

    Parameters
    ----------
    model : keras.Model
        The template: a functional or built Sequential model. It shares its weights with the result, so what the
        result learns, the template knows (unless `cpu_relocation`).
    gpus : int, sequence of int or str, optional
        How many GPUs, at least two; or the ids of which; or names of TensorFlow's logical devices of any kind, such
        as ``['CPU:0', 'CPU:1']``. None means all GPUs that TensorFlow sees.
    cpu_merge : bool, default True
        Join the outputs on the CPU; otherwise on the first device.
    cpu_relocation : bool, default False
        Copy the template with its weights to the CPU first, for a template that was made under a GPU's scope. The
        result then no longer shares weights with `model`.
    fall_back : bool, default False
        Where the devices are not there, warn with the reason and compute on one device, instead of raising.

    Returns
    -------
    keras.Model
        A new, uncompiled functional model with the inputs, outputs and names of the template, which is
        ``result.get_layer(model.name)``. ``save_weights`` and ``load_weights`` write and read the template's files.
        ``save`` keeps devices and optimizer as well; import ``DataParallel`` from this module before loading such a
        file. Where its devices are missing the loaded model warns and computes on one. It is never compiled by XLA,
        which would put everything on one device.

    Raises
    ------
    TypeError
        `model` is not a Keras model, or `gpus` has another type than said above.
    ValueError
        Fewer than two devices, or one that is repeated or not there; a Keras backend other than TensorFlow; a
        template that cannot be divided by rows: without inputs, with a fixed batch size, with sparse inputs, with
        an output that has no row for each row of the inputs, with layers that are stateful or of dtype float8, made in
        the scope of a strategy, divided already, or with a ``train_step``, ``test_step``, ``predict_step`` or
        ``compute_loss`` of its own. From the result, at its first batch: a layer that is not Keras's assigns to a
        weight or metric, and its class has no ``state_over_devices`` that says how this is joined.
    tf.errors.InvalidArgumentError
        From the result, at its first batch: an output has more or fewer rows than the inputs.

    Warns
    -----
    UserWarning
        With `fall_back`, that and why one device is used.

    Notes
    -----
    Outputs, losses, gradients and trained weights equal those of one device up to the rounding of float32, also for
    batches that do not divide: losses and metrics see the joined outputs; batch normalization takes its moments over
    all parts; what activity regularizers and ``add_loss`` add is averaged over the rows; what layers assign to their
    weights is joined as their attribute ``state_over_devices`` says: ``{'weight': 'sum'}``, or ``'mean'``, ``'max'``,
    ``'min'``, ``'same'``. Dropout draws another mask on each device, from the seeds of its layers, so that a repeated
    training is equal to the first. A device without a row in a small batch computes the last row again, and that
    counts nothing.

    The arguments are those of ``keras.utils.multi_gpu_model`` in Keras 2.1.6.

    Examples
    --------
    >>> import keras
    >>> template = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> multi_gpu_model(template, gpus=["CPU:0", "CPU:99"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: cannot divide the model among devices: there is no CPU:99; TensorFlow sees CPU:0...
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        msg = f"multi_gpu_model needs the TensorFlow backend; Keras runs on {keras.backend.backend()}"
        raise ValueError(msg)
    import tensorflow as tf

    _check_template(model)
    devices = _choose_or_fall_back(gpus) if fall_back else choose_devices(gpus)
    if cpu_relocation:
        with tf.device("CPU:0"):
            clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        model = clone
    graph = _graph(model)
    layer, parallel = _classes()
    taken = [tensor._keras_history.operation.name for tensor in (*graph.inputs, *graph.outputs)]
    *names, own_name = _distinct([*taken, f"{model.name}_replicas"])
    replicas = layer(model, devices, "CPU:0" if cpu_merge else devices[0], name=own_name)
    merged = keras.tree.flatten(replicas(graph.input))
    output_names = names[len(graph.inputs) :]
    named = [keras.layers.Identity(name=name)(output) for name, output in zip(output_names, merged, strict=True)]
    return parallel(graph.input, keras.tree.pack_sequence_as(graph.output, named))


def _choose_or_fall_back(gpus: int | Sequence[int | str] | None) -> tuple[str, ...]:
    """Choose devices; where the wanted ones are not there, one, with a warning."""
    try:
        return choose_devices(gpus)
    except ValueError as error:
        return _fall_back(str(error))


def _fall_back(reason: str) -> tuple[str, ...]:
    """Choose one device, and warn."""
    there = list_devices()
    device = "GPU:0" if "GPU:0" in there else "CPU:0"
    warnings.warn(f"{reason}; {device} computes everything", stacklevel=4)
    return (device,)


def _find_devices(devices: Sequence[str], merge_device: str, **_: Any) -> dict[str, Any]:
    """Return the devices of a saved model; where one is missing, one that is there, with a warning."""
    there = list_devices()
    missing = [device for device in devices if device not in there]
    if missing:
        (merge_device,) = devices = _fall_back(f"the model was saved for {', '.join(missing)}, which is not there")
    return {"devices": devices, "merge_device": merge_device}


# --- what can be divided -----------------------------------------------------------------------------------


def _check_template(model: Any) -> None:
    """Refuse what cannot be divided by rows, with the reason."""
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
    problem = _find_layer_problem(model) or _find_model_problem(model) or _find_tensor_problem(model)
    if problem:
        msg = f"the model {model.name!r} cannot be divided among devices: {problem}"
        raise ValueError(msg)


def _find_tensor_problem(model: Any) -> str:
    for tensor in model.inputs:
        if tensor.sparse:
            return f"its input {tensor.name!r} is sparse; make it dense"
        if tensor.shape[0] is not None:
            return f"its input {tensor.name!r} has the fixed batch size {tensor.shape[0]}; leave it open (shape=...)"
    for tensor in model.outputs:
        if not tensor.shape or tensor.shape[0] is not None:
            name = tensor._keras_history.operation.name
            return f"its output {name!r} has the shape {tensor.shape}, so no row for each row of the inputs"
    return ""


def _find_layer_problem(model: Any) -> str:
    layers = model._flatten_layers()
    if any(isinstance(layer, _classes()[0]) for layer in layers):
        return "it is divided already; divide the model that it was made of"
    stateful = [layer.name for layer in layers if getattr(layer, "stateful", False)]
    if stateful:
        return f"{', '.join(stateful)} keeps a state for each row of a batch (stateful=True); use stateful=False"
    moments = [layer.name for layer in layers if has_own_moments(layer)]
    if moments:
        return (
            f"{', '.join(moments)} computes the moments of a batch normalization in its own way (_moments); use Keras's"
        )
    overwritten = [variable.path for variable in model.trainable_variables if variable.overwrite_with_gradient]
    if overwritten:
        return f"{overwritten[0]} is replaced by its gradient, as in layers of dtype float8; use another dtype"
    return ""


def _find_model_problem(model: Any) -> str:
    import keras
    import tensorflow as tf

    own = [
        name
        for name in ("train_step", "test_step", "predict_step", "compute_loss")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        return f"its class {type(model).__name__} has its own {', '.join(own)}, which the divided model would not use"
    if tf.distribute.has_strategy() or any(
        isinstance(variable.value, tf.distribute.DistributedValues) for variable in model.variables
    ):
        return "it was made, or is used, in the scope of a distribution strategy; make it outside"
    return ""


def _graph(model: Any) -> Any:
    """Return the functional model inside a Sequential, whose `input` and `output` are its own."""
    import keras

    return model._functional if isinstance(model, keras.Sequential) else model


def _distinct(names: Sequence[str]) -> list[str]:
    """Number repeated names as Keras 2.2.3 did: a, a, b becomes a, a_1, b."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in range(1, len(names) + 1))
        distinct.append(name if name not in distinct else next(new for new in numbered if new not in distinct))
    return distinct


# --- the classes that Keras saves and loads ----------------------------------------------------------------

_NO_HDF5 = "a divided model is saved as .keras; as HDF5 save the model that it was made of"


def __getattr__(name: str) -> Any:
    """Make the classes when one is first asked for, since a subclass of a Keras class loads TensorFlow."""
    if name in {"DataParallel", "ParallelModel"}:
        return _classes()[name == "ParallelModel"]
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


@cache
def _classes() -> tuple[type, type]:
    """Define and register the layer that runs the replicas, and the model around it, once."""
    layer = _define_layer()
    model = _define_model(layer)
    for each in (layer, model):
        each.__qualname__ = each.__name__  # where `__getattr__` has them, so that models can be pickled
    return layer, model


def _template_method(name: str) -> Callable[..., None]:
    """Make a method that calls the template's of this name."""

    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        getattr(self.template, name)(*args, **kwargs)

    return method


def _define_layer() -> type:
    import keras
    from keras.src.backend.common import global_state

    @keras.saving.register_keras_serializable(package="kflow")
    class DataParallel(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        """A model that runs once per device, each time on a part of the batch."""

        # One layer owns all replicas: Keras saves the weights of a template only once, and a file with several
        # layers that share it could not be loaded.

        def __init__(self, template: Any, devices: Sequence[str], merge_device: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.template = template
            self.devices = tuple(devices)
            self.merge_device = merge_device
            self.strategy = make_strategy(devices)
            self.supports_jit = False  # XLA would run the whole step on one device and ignore the others

        @property
        def metrics(self) -> list[Any]:
            """Those of the template itself, not those that it was compiled with; Keras finds those of its layers."""
            return list(self.template._metrics)

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            """Compute all replicas and join their outputs."""
            joined = run_replicas(self.template, self.strategy, self.merge_device, inputs, training)
            self.add_loss(joined.losses)
            return joined.outputs

        def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
            """Describe the outputs, which are those of the template."""
            return self.template.compute_output_spec(inputs, training=training)

        # Code for Keras 2.1 takes what is at layers[-2], which is this layer now, for the template.
        save = _template_method("save")
        save_weights = _template_method("save_weights")
        load_weights = _template_method("load_weights")

        def get_config(self) -> dict[str, Any]:
            """Describe the layer with its template; not for HDF5, as `keras.saving.save_model` would have it."""
            if global_state.get_global_attribute("use_legacy_config", False):
                raise ValueError(_NO_HDF5)
            template = keras.saving.serialize_keras_object(self.template)
            template.pop("compile_config", None)  # this model has an optimizer of its own
            own = {"template": template, "devices": list(self.devices), "merge_device": self.merge_device}
            return {**super().get_config(), **own}

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            """Make the layer again, for one device where those of the file are missing."""
            template = keras.saving.deserialize_keras_object(config["template"])
            return cls(**{**config, **_find_devices(**config), "template": template})

    return DataParallel


def _refuse_weights_alone(frame: Any) -> None:
    """Refuse the functions of `keras.saving`, which go past the methods of a model."""
    name = frame.f_back.f_code.co_name.removesuffix("_only")  # that called the function that walks through the model
    if name in {"save_weights", "load_weights"}:
        msg = f"keras.saving.{name} does not know the files of a divided model; call its method {name}"
        raise ValueError(msg)


def _define_model(layer: type) -> type:
    import keras

    @keras.saving.register_keras_serializable(package="kflow")
    class ParallelModel(keras.Model):  # type: ignore[misc]  # Keras has no types
        """The model around a `DataParallel` layer; its files of weights are those of the template."""

        @property
        def replicas(self) -> Any:
            """The layer that runs the replicas."""
            return next(each for each in self.layers if isinstance(each, layer))

        def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
            """Return a layer by its name or place; by the template's name the template, as Keras 2.1 does."""
            template = self.replicas.template
            return template if index is None and name == template.name else super().get_layer(name, index)

        def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
            """Save the model with its devices and its optimizer, as ``.keras``."""
            if str(filepath).endswith((".h5", ".hdf5")):
                raise ValueError(f"{filepath}: {_NO_HDF5}")
            super().save(filepath, *args, **kwargs)

        def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
            """Save the weights of the template."""
            self.replicas.template.save_weights(filepath, *args, **kwargs)

        def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
            """Load weights that the template, or this model, saved."""
            self.replicas.template.load_weights(filepath, *args, **kwargs)

        def save_own_variables(self, store: Any) -> None:
            """Save none, for all are the layers'; and refuse a file of weights that the template could not load."""
            _refuse_weights_alone(sys._getframe(1))
            super().save_own_variables(store)

        def load_own_variables(self, store: Any) -> None:
            """Load none; and refuse a file of weights, which is the template's."""
            _refuse_weights_alone(sys._getframe(1))
            super().load_own_variables(store)

    return ParallelModel
