"""Descriptions of Keras 2.1 and what they are in Keras 3, in both directions.

Keras 2.1 wrote ``{"class_name": ..., "config": ...}`` and nothing else, a Sequential model as a list of layers,
a functional one as the class ``Model`` whose nodes are lists ``[layer, node, tensor, arguments]``, and functions
as their names (keras 2.1.6, ``engine/topology.py`` and ``models.py``).
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from kflow.core.serialization.calls import modern_calls, old_calls
from kflow.core.serialization.optimizers import modern_optimizer, old_optimizer

# What Keras 2.1 stored beside a Lambda layer's function and Keras 3 does not take.
_OLD_LAMBDA_KEYS = (
    "batch_input_shape",
    "function_type",
    "module",
    "output_shape_type",
    "output_shape_module",
)

# The layers that had no data_format in Keras 2.1.
_CHANNELS_LAST = (
    "AveragePooling1D",
    "Conv1D",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "MaxPooling1D",
    "ZeroPadding1D",
)

# What Keras 3 has under another name.
OLD_NAMES = {
    "ThresholdedReLU": "ReLU",
    "cosine": "cosine_similarity",
    "cosine_proximity": "cosine_similarity",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "maxnorm": "max_norm",
    "nonneg": "non_neg",
    "unitnorm": "unit_norm",
}

# Where a model's configuration lists its tensors.
_ENDS = ("input_layers", "output_layers")

# Where a layer's configuration names an activation.
_ACTIVATION_KEYS = ("activation", "recurrent_activation")

# Where Keras 3 takes the description of a function, but not its name.
_FUNCTION_KEYS = ("function", "fn")


def keras2_hard_sigmoid(x: Any) -> Any:
    """Return ``clip(0.2 * x + 0.5, 0, 1)``, which Keras 2 called hard_sigmoid (``keras/backend``, 2.1.6).

    Keras 3 gives that name to ``clip(x / 6 + 0.5, 0, 1)``. A layer that was read from a description of Keras 2 has this
    function; once saved by Keras 3, ``load_model`` needs it in ``custom_objects``.

    Parameters
    ----------
    x : tensor or array
        Of any shape and float type.

    Returns
    -------
    tensor
        Of the shape and type of ``x``.

    Examples
    --------
    >>> [round(float(keras2_hard_sigmoid(x)), 1) for x in (-3.0, 1.0)]
    [0.0, 0.7]
    """
    ops = import_module("keras").ops
    return ops.clip(ops.convert_to_tensor(0.2 * x + 0.5), 0.0, 1.0)


def modern(node: Mapping[str, Any], factory: Any) -> Any:
    """Return the configuration of a description, in which what Keras 2.1 wrote is as Keras 3 wants it.

    Parameters
    ----------
    node : mapping
        The description. One with ``module`` was written by Keras 3, and its configuration is returned as it is.
    factory : class or function
        What the description's class name means.
    """
    config = node["config"]
    if "module" in node or not inspect.isclass(factory):
        return config
    if issubclass(factory, import_module("keras").Sequential):
        return _modern_sequential(node)
    if not isinstance(config, dict):
        return config
    return {key: _modern_function(key, value) for key, value in _modern_values(config, factory).items()}


def _modern_values(config: dict[str, Any], factory: type) -> dict[str, Any]:
    keras = import_module("keras")
    if issubclass(factory, keras.optimizers.Optimizer):
        return modern_optimizer(config, factory)
    if issubclass(factory, keras.Model):
        return {key: _modern_ends(value) if key in _ENDS else value for key, value in modern_calls(config).items()}
    if issubclass(factory, keras.layers.Lambda):
        return _modern_lambda(config)
    if issubclass(factory, keras.layers.Layer) and not issubclass(factory, keras.layers.InputLayer):
        return _modern_layer(config, factory)
    return config


def _modern_layer(config: dict[str, Any], factory: type) -> dict[str, Any]:
    """Return what means in Keras 3 what it meant in Keras 2."""
    layers = import_module("keras").layers
    dropped = {"batch_input_shape"}
    if issubclass(factory, layers.SpatialDropout1D | layers.SpatialDropout2D | layers.SpatialDropout3D):
        dropped = {"batch_input_shape", "noise_shape", "trainable"}  # no arguments of theirs, and without effect
    config = {key: value for key, value in config.items() if key not in dropped}
    if issubclass(factory, layers.ReLU) and "theta" in config:
        config = {("threshold" if key == "theta" else key): value for key, value in config.items()}
    hard = _modern_function("function", keras2_hard_sigmoid.__name__)
    renamed = {key: hard for key in _ACTIVATION_KEYS if config.get(key) == "hard_sigmoid"}
    return {**_old_defaults(factory), **config, **renamed}


def _old_defaults(factory: type) -> dict[str, Any]:
    """Return what is not in a layer's configuration of Keras 2.1, and is something else by default in Keras 3."""
    layers = import_module("keras").layers
    if issubclass(factory, layers.GRU | layers.GRUCell):
        return {"reset_after": False}  # in Keras 3 it is True, with weights of another shape
    if issubclass(factory, tuple(getattr(layers, name) for name in _CHANNELS_LAST)):
        return {"data_format": "channels_last"}  # in Keras 3 it is that of the process
    return {}


def _modern_ends(tensors: Any) -> Any:
    # A single input or output was a list of one, which to Keras 3 is a model that takes or gives lists.
    is_single = isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list)
    return tensors[0] if is_single else tensors


def _modern_lambda(config: dict[str, Any]) -> dict[str, Any]:
    if isinstance(config.get("function"), list) or config.get("output_shape_type") == "lambda":
        msg = "a Lambda layer with byte code of Keras 2 cannot be read; write its function as a layer"
        raise ValueError(msg)
    kept = {key: value for key, value in config.items() if key not in _OLD_LAMBDA_KEYS}
    if config.get("output_shape_type") == "function":
        kept["output_shape"] = _modern_function("function", config.get("output_shape"))
    if isinstance(config.get("arguments"), dict):
        kept["arguments"] = {key: _modern_argument(value) for key, value in config["arguments"].items()}
    return kept


def _modern_argument(value: Any) -> Any:
    if not isinstance(value, dict) or value.get("type") != "ndarray" or "value" not in value:
        return value
    dtype = np.asarray(value["value"]).dtype.name  # Keras 2.1 did not write it
    return {"class_name": "__numpy__", "config": {"value": value["value"], "dtype": dtype}}


def _modern_function(key: str, value: Any) -> Any:
    if key not in _FUNCTION_KEYS or not isinstance(value, str):
        return value
    return {"module": "builtins", "class_name": "function", "config": value, "registered_name": "function"}


def _modern_sequential(node: Mapping[str, Any]) -> Any:
    config = node["config"]
    config = {"layers": config} if isinstance(config, list) else config
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        msg = f"the configuration of a Sequential model must be a list of layers, but is a {type(config).__name__}"
        raise ValueError(msg)
    layers = list(config["layers"])
    first = layers[0].get("config") if layers and isinstance(layers[0], dict) else None
    shape = first.get("batch_input_shape") if isinstance(first, dict) else None
    if isinstance(first, dict) and shape is not None and layers[0].get("class_name") != "InputLayer":
        dtype = first.get("dtype", "float32")
        layers.insert(0, {"class_name": "InputLayer", "config": {"batch_shape": shape, "dtype": dtype}})
    return {"name": node.get("name"), **config, "layers": layers}  # a layer of a model has its name beside it


def as_keras_2(value: Any) -> Any:
    """Return a description of Keras 3 in the form of Keras 2.1.

    Raises
    ------
    ValueError
        If a part has no form there: operations that are not layers, functions of ``keras.ops``, layers that are called
        with anything but tensors or a list of them, models whose inputs or outputs have names, functions in a list or
        dictionary, where their names would be read as texts, a dtype policy that is no part of a layer, and generators
        of random numbers.
    """
    _check_plain(value)
    return _old(value)


def _check_plain(value: Any, where: str = "") -> None:
    """Refuse what would be written as a bare name, and not be found again by it."""
    if isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, " in a list")
    elif isinstance(value, dict) and not _is_description(value):
        for item in value.values():
            _check_plain(item, " in a dictionary")
    elif isinstance(value, dict):
        if value["class_name"] == "function" and where:
            raise _no_form(f"the function {value['config']}{where}")
        if _is_policy(value):
            raise _no_form(f"the dtype policy {value['config']['name']} by itself")
        if value.get("module") == "keras.random":
            raise _no_form(f"the {value['class_name']}")


def _is_description(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("class_name"), str) and "config" in value


def _is_policy(node: Mapping[str, Any]) -> bool:
    is_keras = (node.get("module") or "") in {"keras", "keras.dtype_policies"}
    return is_keras and "DTypePolicy" in node["class_name"] and "name" in node["config"]


def _old(value: Any) -> Any:
    if isinstance(value, list | tuple):
        items = [_old(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if not isinstance(value, dict):
        return value
    if _is_description(value):
        return _old_description(value)
    return {key: _old(item) for key, item in value.items()}


def _old_description(node: Mapping[str, Any]) -> Any:
    name, module, config = node["class_name"], node.get("module") or "", node["config"]
    if name == "function":
        if module == "keras.ops":
            raise _no_form(f"the function keras.ops.{config}")
        return config
    if _is_policy(node):
        return config["name"]
    if name.startswith("__"):
        return node
    if module.startswith("keras.src.ops."):
        raise _no_form(f"the operation {name} ({node.get('name')})")
    beside = {key: node[key] for key in ("name", "inbound_nodes") if key in node}
    if "inbound_nodes" in beside:
        beside["inbound_nodes"] = [_old_node(each, str(node.get("name"))) for each in beside["inbound_nodes"]]
    old_name = "Model" if name == "Functional" else node.get("registered_name") or name
    return {"class_name": old_name, "config": _old_values(name, module, config), **beside}


def _old_values(name: str, module: str, config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    if name == "Sequential":
        return [_old(layer) for layer in config["layers"]]
    ends = {key: _old_ends(config[key]) for key in _ENDS if key in config and "layers" in config}
    config = {**_old(config), **ends}
    if ends:
        config = old_calls(config)
    if module.startswith("keras"):
        config = {**config, **_old_activations(config)}
    if module == "keras.optimizers":
        return old_optimizer(config)
    renamed = {"batch_shape": "batch_input_shape"} if name == "InputLayer" else {}
    return {renamed.get(key, key): item for key, item in config.items()}


def _old_activations(config: dict[str, Any]) -> dict[str, str]:
    """Return the activations that have another name in Keras 2, and refuse the one whose name means another there."""
    names = {key: config[key] for key in _ACTIVATION_KEYS if isinstance(config.get(key), str)}
    if "hard_sigmoid" in names.values():
        raise _no_form("the activation hard_sigmoid of Keras 3, which is another function than that of Keras 2,")
    return {key: "hard_sigmoid" for key, name in names.items() if name == keras2_hard_sigmoid.__name__}


def _old_ends(tensors: Any) -> Any:
    if isinstance(tensors, dict):
        raise _no_form("a model whose inputs or outputs have names")
    is_single = bool(tensors) and isinstance(tensors[0], str)
    return [list(tensors)] if is_single else [list(tensor) for tensor in tensors]


def _old_node(node: Any, layer: str) -> list[Any]:
    arguments, keywords = node["args"], node["kwargs"]
    tensors = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list | tuple) else arguments
    if len(arguments) != 1 or not all(map(_is_tensor, tensors)) or any(map(_is_tensor, keywords.values())):
        raise _no_form(f"the way in which the layer {layer!r} is called, with more than a tensor or a list of tensors,")
    # Keras 3 says of a model that it has no mask, which would keep Keras 2.1 from finding one.
    keywords = {key: _old(value) for key, value in keywords.items() if (key, value) != ("mask", None)}
    return [[*tensor["config"]["keras_history"], keywords] for tensor in tensors]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _no_form(what: str) -> ValueError:
    return ValueError(f"{what} has no form in the format of Keras 2.1; write it with keras_version=3")
