"""The numbers of the calls in the graph of a functional model, which Keras 2 and Keras 3 count differently.

A tensor is named there by a layer, the number of the layer's call, and its place in what the call gave. For Keras 2 a
model's own inputs are its call 0, so the first call of a model by another is number 1 (keras 2.1.6,
``engine/topology.py``). For Keras 3 it is 0, but 1 where the outer model lists its outputs and the inner one is
functional.
"""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["modern_calls", "old_calls"]

# Where a model's configuration lists its tensors.
_ENDS = ("input_layers", "output_layers")


def modern_calls(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a functional model with the numbers of Keras 3 instead of those of Keras 2."""
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(map(_has_old_nodes, layers)):
        return config
    shifts = {name: -first for name, first in _first_calls(config, layers).items()}
    ends = {layer["name"]: shifts.get(layer["name"], 0) + _is_functional(layer) for layer in layers}
    return _with_calls(config, shifts, ends)


def old_calls(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration, the nodes of which are lists already, with the numbers of Keras 2 instead."""
    shifts = {layer["name"]: int(_is_functional(layer) or _is_sequential(layer)) for layer in config["layers"]}
    ends = {layer["name"]: int(_is_sequential(layer)) for layer in config["layers"]}
    return _with_calls(config, shifts, ends)


def _with_calls(config: dict[str, Any], shifts: Mapping[str, int], ends: Mapping[str, int]) -> dict[str, Any]:
    layers = [{**layer, "inbound_nodes": _moved(layer["inbound_nodes"], shifts)} for layer in config["layers"]]
    return {**config, "layers": layers, **{key: _moved(config[key], ends) for key in _ENDS if key in config}}


def _first_calls(config: Mapping[str, Any], layers: list[Any]) -> dict[str, int]:
    """Return for each layer that is referred to the number of its first call, 0 or 1."""
    numbers: dict[str, set[int]] = {}
    for name, number, *_ in _references([*(layer["inbound_nodes"] for layer in layers), *map(config.get, _ENDS)]):
        numbers.setdefault(name, set()).add(number)
    # A call that nothing refers to is no part of a model, hence n calls are numbered up to n - 1 or up to n. tf.keras
    # numbers those of a Sequential model by whether it had an input of its own; this way nobody has to know.
    calls = {layer["name"]: len(layer["inbound_nodes"]) for layer in layers}
    return {name: int(min(used) > 0 and max(used) == calls.get(name)) for name, used in numbers.items()}


def _has_old_nodes(layer: Any) -> bool:
    nodes = layer.get("inbound_nodes") if isinstance(layer, dict) and isinstance(layer.get("name"), str) else None
    return isinstance(nodes, list) and all(isinstance(node, list | tuple) for node in nodes)


def _is_functional(layer: Mapping[str, Any]) -> bool:
    config = layer.get("config")
    return isinstance(config, dict) and all(key in config for key in ("layers", *_ENDS))


def _is_sequential(layer: Mapping[str, Any]) -> bool:
    config = layer["config"]
    return isinstance(config, list) or (isinstance(config, dict) and "build_input_shape" in config)


def _is_reference(value: Any) -> bool:
    """Whether this is ``[layer, call, tensor]``, with the arguments of the call after it or without."""
    is_list = isinstance(value, list | tuple) and len(value) in (3, 4)
    return is_list and isinstance(value[0], str) and type(value[1]) is int


def _references(value: Any) -> Iterator[Any]:
    if _is_reference(value):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _moved(value: Any, shifts: Mapping[str, int]) -> Any:
    if _is_reference(value):
        return [value[0], value[1] + shifts.get(value[0], 0), *value[2:]]
    if isinstance(value, dict):
        return {key: _moved(item, shifts) for key, item in value.items()}
    return [_moved(item, shifts) for item in value] if isinstance(value, list | tuple) else value
