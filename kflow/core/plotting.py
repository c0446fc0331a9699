"""Pictures of models: a Keras model becomes a DOT graph, which `kflow.core.rendering` turns into an image.

The text of the graph depends on the model alone (names and positions, never memory addresses), so two
runs write the same bytes and a diff of two pictures' ``.dot`` files shows what changed in the model.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kflow.core.rendering import find_renderer, publish, render

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["model_to_dot", "plot_model"]

_RANKDIRS = ("TB", "LR", "BT", "RL")

# Fill and border of a box, by the part of keras.layers that the class or its nearest base comes from.
_PALETTE = {
    "input": ("#e3f4e8", "#3f8f5b"),
    "model": ("#efe8fb", "#7a5cb8"),
    "convolutional": ("#e3eefc", "#3f74b5"),
    "rnn": ("#e3eefc", "#3f74b5"),
    "attention": ("#e3eefc", "#3f74b5"),
    "core": ("#e6f0fa", "#4a7fb0"),
    "pooling": ("#fdf1dd", "#b98a35"),
    "reshaping": ("#f3f3f0", "#8a8a80"),
    "normalization": ("#fbe9ef", "#b5617f"),
    "regularization": ("#fbe9ef", "#b5617f"),
    "merging": ("#fff6d6", "#a8932c"),
}
_FRAME = ("#faf8ff", "#7a5cb8")
_PLAIN = ("#f4f5f7", "#7b8494")


@dataclass(frozen=True)
class _Look:
    """What the boxes of a drawing show."""

    shapes: bool
    names: bool
    dtype: bool
    params: bool
    expand: bool


def plot_model(
    model: Any,
    to_file: str | os.PathLike[str] = "model.png",
    show_shapes: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    *,
    show_dtype: bool = False,
    show_params: bool = False,
    expand_nested: bool = False,
    dpi: int = 96,
) -> None:
    """Draw a model into a file.

    The picture is written beside its final place and renamed, so a reader never sees half of it.
    ``graphviz-pure`` draws it if it is installed and knows the format, otherwise the system's ``dot``.

    Parameters
    ----------
    model : keras.Model
        A built Sequential, functional or subclassed model. A model without a graph of layers
        (a subclassed one) is one box.
    to_file : str or path, default 'model.png'
        The extension is the format: ``.dot`` and ``.gv`` need no renderer, png, svg, jpeg and json any,
        pdf and others the system's graphviz. Without an extension the file is a PNG of that name.
    show_shapes : bool, default False
        Show the shapes of each layer's inputs and outputs, "multiple" where its calls differ.
    show_layer_names : bool, default True
        Write "name: Class" instead of "Class".
    rankdir : {'TB', 'LR', 'BT', 'RL'}, default 'TB'
        The direction in which the data flows.
    show_dtype : bool, default False
        Show the dtype of each layer's outputs.
    show_params : bool, default False
        Show the number of each layer's weights.
    expand_nested : bool, default False
        Draw a nested model as a frame around its layers instead of as one box.
    dpi : int, default 96
        Dots per inch of the image.

    Raises
    ------
    TypeError
        `model` is not a Keras model.
    ValueError
        The model is not built, or a format, direction or resolution is not known.
    ImportError
        pydot is missing.
    OSError
        No renderer can write the format, the renderer failed, or the folder does not exist.

    Notes
    -----
    Arguments, their order and the labels are those of ``keras.utils.plot_model`` in Keras 2.1; the
    keyword-only arguments are new.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="scores")])
    >>> plot_model(model, "model.svg", show_shapes=True)  # doctest: +SKIP
    """
    path = Path(to_file)
    form = path.suffix.lstrip(".").lower() or "png"
    renderer = find_renderer(form)
    graph = model_to_dot(
        model,
        show_shapes,
        show_layer_names,
        rankdir,
        show_dtype=show_dtype,
        show_params=show_params,
        expand_nested=expand_nested,
        dpi=dpi,
    )
    source = graph.to_string().encode()
    publish(path, source if renderer is None else render(renderer, form, source))


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    *,
    show_dtype: bool = False,
    show_params: bool = False,
    expand_nested: bool = False,
    dpi: int = 96,
) -> Any:
    """Describe a model as a pydot graph.

    Parameters
    ----------
    model : keras.Model
        A built model.
    show_shapes, show_layer_names, rankdir, show_dtype, show_params, expand_nested, dpi
        As in `plot_model`.

    Returns
    -------
    pydot.Dot
        A directed graph with one node per layer, whose id is the path of names that leads to the layer.

    Raises
    ------
    TypeError, ValueError, ImportError
        As in `plot_model`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="scores")])
    >>> [edge.get_source() + " -> " + edge.get_destination() for edge in model_to_dot(model).get_edges()]
    ['"x" -> "scores"']
    """
    pydot = _pydot()
    _check(model, rankdir, dpi)
    look = _Look(show_shapes, show_layer_names, show_dtype, show_params, expand_nested)
    # Edges keep graphviz's own splines: 'ortho' makes some releases of dot abort on nested models.
    graph = pydot.Dot("model", graph_type="digraph", rankdir=rankdir, dpi=str(dpi), nodesep="0.35", ranksep="0.4")
    graph.set_bgcolor('"white"')
    graph.set_node_defaults(
        shape="box", style='"rounded,filled"', fontname='"Helvetica"', fontsize="11", margin='"0.12,0.06"'
    )
    graph.set_edge_defaults(color='"#5c6470"', arrowsize="0.7")
    if _is_graph(model):
        _draw(pydot, graph, model, (), look)
    else:
        graph.add_node(_box(pydot, (model.name,), model, [], look))
    return graph


def _pydot() -> Any:
    """Import pydot, or say how to get it."""
    try:
        import pydot
    except ImportError as error:
        msg = "drawing a model needs the package pydot, which is not installed: pip install pydot"
        raise ImportError(msg) from error
    return pydot


def _check(model: object, rankdir: str, dpi: int) -> None:
    """Refuse what cannot be drawn, before anything is drawn."""
    import keras

    if not isinstance(model, keras.Model):
        msg = f"model is a {type(model).__name__}; plot_model draws a keras.Model"
        raise TypeError(msg)
    if not model.built:
        msg = (
            f"the model {model.name!r} is not built, so its layers have no shapes to draw: "
            "call model.build(input_shape) first, or give the model a keras.Input"
        )
        raise ValueError(msg)
    if rankdir not in _RANKDIRS:
        msg = f"rankdir is {rankdir!r}; use one of {', '.join(_RANKDIRS)}"
        raise ValueError(msg)
    if isinstance(dpi, bool) or not isinstance(dpi, int) or dpi < 1:
        msg = f"dpi is {dpi!r}; use a whole number of dots per inch, such as 96"
        raise ValueError(msg)


def _is_graph(operation: Any) -> bool:
    """Tell whether an operation is a model whose inner layers are known (functional or Sequential)."""
    import keras

    if not isinstance(operation, keras.Model):
        return False
    outputs = getattr(operation, "outputs", None) or []
    return bool(outputs) and all(hasattr(tensor, "_keras_history") for tensor in outputs)


def _calls(model: Any) -> dict[str, list[Any]]:
    """List the calls (Keras nodes) between a model's inputs and outputs, by the name of what is called.

    A layer is often part of more graphs than one, so its own list of calls says too much; walking back
    from the outputs finds exactly this model's. The order is topological.
    """
    order: dict[tuple[str, int], Any] = {}
    stack = [(tensor._keras_history, False) for tensor in reversed([*model.inputs, *model.outputs])]
    while stack:
        history, is_ready = stack.pop()
        key = (history.operation.name, history.node_index)
        if key in order:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if is_ready:
            order[key] = node
            continue
        stack.append((history, True))
        stack.extend((tensor._keras_history, False) for tensor in reversed(node.input_tensors))
    calls: dict[str, list[Any]] = {}
    for (name, _), node in order.items():
        calls.setdefault(name, []).append(node)
    return calls


def _draw(pydot: Any, graph: Any, model: Any, path: tuple[str, ...], look: _Look) -> None:
    """Add the boxes and arrows of one model to a graph or to the frame of a nested model."""
    calls = _calls(model)
    for name, nodes in calls.items():
        operation, here = nodes[0].operation, (*path, name)
        if look.expand and _is_graph(operation):
            frame = _frame(pydot, here, operation, look)
            _draw(pydot, frame, operation, here, look)
            graph.add_subgraph(frame)
        else:
            graph.add_node(_box(pydot, here, operation, nodes, look))
    arrows = {
        (_source(tensor, path, look), _target(node.operation, index, path, look)): None
        for nodes in calls.values()
        for node in nodes
        for index, tensor in enumerate(node.input_tensors)
    }
    for source, target in arrows:  # a dict, so that each arrow is drawn once and in the model's order
        graph.add_edge(pydot.Edge(source, target))


def _source(tensor: Any, path: tuple[str, ...], look: _Look) -> str:
    """Find the box that an arrow leaves: inside an expanded model, the one that makes its output."""
    operation, _, index = tensor._keras_history
    while look.expand and _is_graph(operation):
        path = (*path, operation.name)
        operation, _, index = operation.outputs[index]._keras_history
    return _identify((*path, operation.name))


def _target(operation: Any, index: int, path: tuple[str, ...], look: _Look) -> str:
    """Find the box that an arrow enters: inside an expanded model, the input it feeds."""
    while look.expand and _is_graph(operation):
        path = (*path, operation.name)
        operation = operation.inputs[min(index, len(operation.inputs) - 1)]._keras_history.operation
    return _identify((*path, operation.name))


def _identify(path: Sequence[str]) -> str:
    """Turn a path of names into a DOT id that holds no character with a meaning in DOT."""
    return '"' + "/".join(quote(name, safe="", errors="surrogatepass") for name in path) + '"'


def _box(pydot: Any, path: tuple[str, ...], operation: Any, nodes: Sequence[Any], look: _Look) -> Any:
    """Make the node of one layer."""
    fill, border = _colors(operation)
    return pydot.Node(
        _identify(path),
        label=_label(_title(operation, look), _facts(operation, nodes, look)),
        fillcolor=f'"{fill}"',
        color=f'"{border}"',
    )


def _frame(pydot: Any, path: tuple[str, ...], model: Any, look: _Look) -> Any:
    """Make the cluster around the layers of a nested model."""
    fill, border = _FRAME
    return pydot.Subgraph(
        '"cluster_' + _identify(path).lstrip('"'),
        style='"rounded,filled"',
        fillcolor=f'"{fill}"',
        color=f'"{border}"',
        margin="12",
        label=_label(_title(model, look), []),
        labeljust="l",  # to the left of the arrows that enter
        fontname='"Helvetica"',
        fontsize="11",
    )


def _colors(operation: Any) -> tuple[str, str]:
    """Choose fill and border by what kind of layer it is."""
    import keras

    if isinstance(operation, keras.layers.InputLayer):
        return _PALETTE["input"]
    if isinstance(operation, keras.Model):
        return _PALETTE["model"]
    homes = (base.__module__.split(".") for base in type(operation).__mro__)
    parts = (home[3] for home in homes if home[:3] == ["keras", "src", "layers"] and len(home) > 3)
    return next((_PALETTE[part] for part in parts if part in _PALETTE), _PLAIN)


def _names(operation: Any) -> tuple[str, str]:
    """Name an operation and its class; a wrapper also names what it wraps."""
    import keras

    name, kind = operation.name, type(operation).__name__
    if isinstance(operation, keras.layers.Wrapper):
        inner_name, inner_kind = _names(operation.layer)
    elif isinstance(operation, keras.layers.Bidirectional):
        inner_name, inner_kind = _names(operation.forward_layer)
        inner_name = inner_name.removeprefix("forward_")  # Keras's copy of the layer that was wrapped
    else:
        return name, kind
    return f"{name}({inner_name})", f"{kind}({inner_kind})"


def _title(operation: Any, look: _Look) -> str:
    """Write a box's first line."""
    name, kind = _names(operation)
    return f"{name}: {kind}" if look.names else kind


def _facts(operation: Any, nodes: Sequence[Any], look: _Look) -> list[tuple[str, str]]:
    """List the lines below a box's title."""
    facts = []
    if look.shapes:
        outputs = _agree([_shapes(node.output_tensors) for node in nodes])
        # An input layer is called with nothing: what goes in is what comes out.
        inputs = _agree([_shapes(node.input_tensors or node.output_tensors) for node in nodes])
        facts += [("input:", inputs), ("output:", outputs)]
    if look.dtype:
        facts.append(("dtype:", _agree([_dtypes(node.output_tensors) for node in nodes])))
    if look.params:
        count = getattr(operation, "count_params", lambda: 0)()
        facts.append(("params:", f"{count:,}"))
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


def _label(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Write a label in graphviz's HTML-like language, in which only markup has a meaning."""
    rows = [f'<tr><td colspan="2"><b>{_text(title)}</b></td></tr>']
    for key, value in facts:
        cells = (f'<font color="#5c6470">{_text(key)}</font>', _text(value))
        rows.append("<tr>" + "".join(f'<td align="left">{cell}</td>' for cell in cells) + "</tr>")
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{"".join(rows)}</table>>'


def _text(text: str) -> str:
    """Escape markup, and show characters that cannot be printed by their escapes."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return html.escape(shown, quote=False)
