"""What a picture of a model shows, whatever it is written in: boxes, boxes inside boxes, and arrows between them.

A drawing depends on the model alone (names and positions, never memory addresses), so that two processes
make the same one, and a diff of two texts shows what changed in the model.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Box", "Drawing", "Look", "describe"]

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What a drawing shows of each layer."""

    show_shapes: bool = False
    show_layer_names: bool = True
    show_dtype: bool = False
    show_params: bool = False
    show_trainable: bool = False
    show_layer_activations: bool = False
    expand_nested: bool = False
    layer_range: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """One layer: the names that lead to it, what is written on it, and the boxes in it when it is an expanded model.

    All but the path can be printed as it is: characters that cannot are shown by their escapes.
    """

    path: Path
    name: str
    kind: str
    family: str
    facts: tuple[tuple[str, str], ...]
    inside: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """A model as a graph of boxes; an arrow is the paths of the box that it leaves and of the box that it enters."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[Path, Path], ...]
    has_names: bool


def describe(model: Any, look: Look) -> Drawing:
    """Describe a model; the boxes are in the order of ``model.summary()``.

    Raises
    ------
    TypeError
        `model` is not a Keras model.
    ValueError
        The model has no layers, is not built, or the range names no layers of it.
    """
    _require_drawable(model)
    graph = _graph(model)
    if graph is None:
        boxes: tuple[Box, ...] = (_box((model.name,), model, [], look),)
        arrows: dict[tuple[Path, Path], None] = {}
    else:
        calls = _calls(graph)
        if look.layer_range is not None:
            calls = _within(calls, look.layer_range)
        arrows = {}  # a dict, so that each arrow is drawn once and in the model's order
        boxes = _boxes(calls, (), look, arrows)
    return Drawing(boxes, tuple(arrows), look.show_layer_names)


def _require_drawable(model: object) -> None:
    import keras

    if not isinstance(model, keras.Model):
        msg = f"model is a {type(model).__name__}; plot_model draws a keras.Model"
        raise TypeError(msg)
    if isinstance(model, keras.Sequential) and not model.layers:
        msg = f"the model {model.name!r} has no layers to draw: add one first"
        raise ValueError(msg)
    if not model.built:
        msg = (
            f"the model {model.name!r} is not built, so its layers have no shapes to draw: "
            "call model.build(input_shape) first, or give the model a keras.Input"
        )
        raise ValueError(msg)


def _graph(operation: Any) -> Any:
    """Return the functional model that an operation is or wraps, or None when there is none or it is not known."""
    import keras

    from kflow.core.parallel.multi_gpu import DataParallel

    if isinstance(operation, keras.layers.Wrapper):
        return _graph(operation.layer)
    if isinstance(operation, DataParallel):
        return _graph(operation.template)
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth") else None


def _calls(graph: Any) -> dict[str, list[Any]]:
    """List the calls (Keras nodes) of a functional model by the name of what is called.

    A layer is often part of more graphs than one, so its own list of calls would say too much.
    """
    calls: dict[str, list[Any]] = {operation.name: [] for operation in graph.operations}
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            calls[node.operation.name].append(node)
    return calls


def _within(calls: Mapping[str, list[Any]], limits: Sequence[str]) -> dict[str, list[Any]]:
    """Keep the layers from the first that matches one limit to the last that matches the other."""
    if not isinstance(limits, list | tuple) or [type(limit) for limit in limits] != [str, str]:
        msg = f"layer_range is {limits!r}; give two names of layers, such as ('first', 'last')"
        raise ValueError(msg)
    names = list(calls)
    first, last = min(_matching(names, limits[0])), max(_matching(names, limits[1]))
    if first > last:
        msg = f"layer_range {tuple(limits)!r} ends before it begins; the order is that of model.summary()"
        raise ValueError(msg)
    return {name: calls[name] for name in names[first : last + 1]}


def _matching(names: Sequence[str], limit: str) -> list[int]:
    """Find a layer by its name, or all whose names begin with a match of a pattern, as later Keras 2 did."""
    if limit in names:
        return [names.index(limit)]
    try:
        found = [place for place, name in enumerate(names) if re.match(limit, name)]
    except re.error:
        found = []
    if not found:
        near = difflib.get_close_matches(limit, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, names))}"
        msg = f"layer_range names {limit!r}, but no layer of the model has that name or matches it; {hint}"
        raise ValueError(msg)
    return found


def _boxes(
    calls: Mapping[str, list[Any]], path: Path, look: Look, arrows: dict[tuple[Path, Path], None]
) -> tuple[Box, ...]:
    """Make the boxes of one model, and add its arrows and those of the models in it."""
    boxes = []
    for name, nodes in calls.items():
        here, operation = (*path, name), nodes[0].operation
        graph = _graph(operation) if look.expand_nested else None
        inside = () if graph is None else _boxes(_calls(graph), here, look, arrows)
        boxes.append(_box(here, operation, nodes, look, inside))
        for node in nodes:
            for index, tensor in enumerate(node.input_tensors):
                if tensor._keras_history.operation.name in calls:
                    arrows[_source(tensor, path, look), _target(operation, index, path, look)] = None
    return tuple(boxes)


def _source(tensor: Any, path: Path, look: Look) -> Path:
    """Find the box that an arrow leaves: inside an expanded model, the one that makes its output."""
    operation, _, index = tensor._keras_history
    while look.expand_nested and (graph := _graph(operation)) is not None:
        path = (*path, operation.name)
        operation, _, index = graph.outputs[index]._keras_history
    return (*path, operation.name)


def _target(operation: Any, index: int, path: Path, look: Look) -> Path:
    """Find the box that an arrow enters: inside an expanded model, the input it feeds."""
    while look.expand_nested and (graph := _graph(operation)) is not None:
        path = (*path, operation.name)
        operation = graph.inputs[min(index, len(graph.inputs) - 1)]._keras_history.operation
    return (*path, operation.name)


# --- what is written on a box ------------------------------------------------------------------------------


def _box(path: Path, operation: Any, nodes: Sequence[Any], look: Look, inside: tuple[Box, ...] = ()) -> Box:
    name, kind = _names(operation)
    facts = tuple((key, _shown(value)) for key, value in _facts(operation, nodes, look))
    return Box(path, _shown(name), _shown(kind), _family(operation), facts, inside)


def _shown(text: str) -> str:
    """Show the characters that cannot be printed by their escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _family(operation: Any) -> str:
    """Name the part of keras.layers that the class or its nearest base comes from."""
    import keras

    if isinstance(operation, keras.layers.InputLayer):
        return "input"
    if isinstance(operation, keras.Model):
        return "model"
    homes = (base.__module__.split(".") for base in type(operation).__mro__)
    parts = (home[3] for home in homes if home[:3] == ["keras", "src", "layers"] and len(home) > 4)
    return next(parts, "other")


def _wrapped(operation: Any) -> Any:
    """Return the layer that a wrapper wraps, else None."""
    import keras

    if isinstance(operation, keras.layers.Bidirectional):
        return operation.forward_layer
    return operation.layer if isinstance(operation, keras.layers.Wrapper) else None


def _names(operation: Any) -> tuple[str, str]:
    """Name an operation and its class; a wrapper also names what it wraps."""
    import keras

    name, kind, inner = operation.name, type(operation).__name__, _wrapped(operation)
    if inner is None:
        return name, kind
    inner_name, inner_kind = _names(inner)
    if isinstance(operation, keras.layers.Bidirectional):
        inner_name = inner_name.removeprefix("forward_")  # Keras's copy of the layer that was wrapped
    return f"{name}({inner_name})", f"{kind}({inner_kind})"


def _facts(operation: Any, nodes: Sequence[Any], look: Look) -> list[tuple[str, str]]:
    """List the lines below a box's title."""
    facts = []
    if look.show_shapes:
        # An input layer is called with nothing: what goes in is what comes out.
        facts.append(("input", _agree([_shapes(node.input_tensors or node.output_tensors) for node in nodes])))
        facts.append(("output", _agree([_shapes(node.output_tensors) for node in nodes])))
    if look.show_dtype:
        facts.append(("dtype", _agree([_dtypes(node.output_tensors) for node in nodes])))
    if look.show_layer_activations and (activation := _activation(operation)):
        facts.append(("activation", activation))
    if look.show_params:
        facts.append(("params", f"{_count(operation):,}"))
    if look.show_trainable and (trainable := _trainable(operation)):
        facts.append(("trainable", trainable))
    return facts


def _agree(texts: Sequence[str]) -> str:
    """Say what all calls of a layer have in common, as Keras 2.1 did."""
    if not texts:
        return "?"
    return texts[0] if len(set(texts)) == 1 else "multiple"


def _shapes(tensors: Sequence[Any]) -> str:
    shapes = [str(tuple(tensor.shape)) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]"


def _dtypes(tensors: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(str(tensor.dtype) for tensor in tensors))


def _activation(operation: Any) -> str:
    """Name the activation of a layer or of the one that it wraps; a layer or an object is named by its class."""
    inner = _wrapped(operation)
    if inner is not None:
        return _activation(inner)
    activation = getattr(operation, "activation", None)
    if activation is None:
        return ""
    name = getattr(activation, "__name__", None)
    return name if isinstance(name, str) else type(activation).__name__


def _holders(operation: Any) -> list[tuple[Any, list[Any]]]:
    """List an operation and the layers in it that have weights of their own, with these."""
    layers: Iterable[Any] = operation._flatten_layers() if hasattr(operation, "_flatten_layers") else ()
    pairs = ((layer, [*layer._trainable_variables, *layer._non_trainable_variables]) for layer in layers)
    return [(layer, weights) for layer, weights in pairs if weights]


def _count(operation: Any) -> int:
    """Count the numbers in the distinct weights of a layer."""
    weights = {id(weight): weight for _, own in _holders(operation) for weight in own}
    return sum(math.prod(weight.shape) for weight in weights.values())


def _trainable(operation: Any) -> str:
    """Say whether training changes a layer, as the flags of all that have weights in it say; without any, nothing."""
    flags = {bool(layer.trainable) for layer, _ in _holders(operation)}
    return {(): "", (False,): "no", (True,): "yes"}.get(tuple(flags), "in part")
