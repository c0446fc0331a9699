"""Pictures of models: PNG, SVG, PDF and the like, DOT, Mermaid and plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from kflow.core.plotting.diagrams import write_dot, write_mermaid, write_text
from kflow.core.plotting.drawings import Look, describe
from kflow.core.plotting.rendering import checked_target, extension, find_renderers, publish, render

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Unpack

__all__ = ["model_to_dot", "model_to_mermaid", "model_to_text", "plot_model"]

_RANKDIRS = ("TB", "LR", "BT", "RL")


class Shown(TypedDict, total=False):
    """What a drawing shows beyond shapes and names; each is False or None by default, as in `plot_model`."""

    show_dtype: bool
    show_params: bool
    show_trainable: bool
    show_layer_activations: bool
    expand_nested: bool
    layer_range: Sequence[str] | None


def plot_model(
    model: Any,
    to_file: str | os.PathLike[str] = "model.png",
    show_shapes: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    *,
    show_dtype: bool = False,
    show_params: bool = False,
    show_trainable: bool = False,
    show_layer_activations: bool = False,
    expand_nested: bool = False,
    layer_range: Sequence[str] | None = None,
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
        The extension is the format. ``.dot`` and ``.gv`` (the language of graphviz), ``.mmd`` (Mermaid) and
        ``.txt`` (an outline) need no renderer; png, svg, jpeg and json any; pdf and others the system's
        graphviz. Without an extension the file is a PNG of that name.
    show_shapes : bool, default False
        Show the shapes of each layer's inputs and outputs, "multiple" where its calls differ.
    show_layer_names : bool, default True
        Write "name: Class" instead of "Class".
    rankdir : {'TB', 'LR', 'BT', 'RL'}, default 'TB'
        The direction in which the data flows: from top to bottom, from left to right, or the other way.
        It means nothing to plain text.
    show_dtype : bool, default False
        Show the dtype of each layer's outputs.
    show_params : bool, default False
        Show the number of each layer's weights.
    show_trainable : bool, default False
        Show for each layer with weights whether training changes them: "yes", "no" or "in part".
    show_layer_activations : bool, default False
        Show the name of each layer's activation.
    expand_nested : bool, default False
        Draw a nested model, also one in a wrapper, as a frame around its layers instead of as one box.
    layer_range : (str, str), optional
        Draw only the layers from the first to the last of these, both included, in the order of
        ``model.summary()``. What is no name is a regular expression that the beginning of a name has to
        match: the first match of the first one and the last match of the second one count.
    dpi : int, default 96
        Dots per inch of the image.

    Raises
    ------
    TypeError
        `model` is not a Keras model, or `to_file` not a path.
    ValueError
        The model is not built, `to_file` names no file, or a format, direction, range or resolution is not known.
    ImportError
        pydot is missing.
    OSError
        No renderer can write the format, the renderer failed, `to_file` is a folder or lies in one that does not
        exist, or it cannot be written.

    Notes
    -----
    Arguments, their order and the labels are those of ``keras.utils.plot_model`` in Keras 2.1; the
    keyword-only arguments are new there, and have the names of later Keras where it has them.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="scores")])
    >>> plot_model(model, "model.svg", show_shapes=True)
    """
    path = checked_target(to_file)
    form = extension(path)
    renderers = find_renderers(form)  # before anything is drawn
    shown: Shown = {
        "show_dtype": show_dtype,
        "show_params": show_params,
        "show_trainable": show_trainable,
        "show_layer_activations": show_layer_activations,
        "expand_nested": expand_nested,
        "layer_range": layer_range,
    }
    _require_direction(rankdir)
    if form == "txt":
        text = model_to_text(model, show_shapes, show_layer_names, **shown)
    elif form == "mmd":
        text = model_to_mermaid(model, show_shapes, show_layer_names, rankdir, **shown)
    else:
        text = model_to_dot(model, show_shapes, show_layer_names, rankdir, dpi=dpi, **shown).to_string()
    publish(path, render(renderers, form, text) if renderers else text.encode())


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    *,
    dpi: int = 96,
    **shown: Unpack[Shown],
) -> Any:
    """Describe a model as a pydot graph.

    Parameters
    ----------
    model : keras.Model
        A built model.
    show_shapes, show_layer_names, rankdir, dpi, **shown
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
    _require_direction(rankdir)
    if isinstance(dpi, bool) or not isinstance(dpi, int) or dpi < 1:
        msg = f"dpi is {dpi!r}; use a whole number of dots per inch, such as 96"
        raise ValueError(msg)
    return write_dot(describe(model, Look(show_shapes, show_layer_names, **shown)), rankdir, dpi)


def model_to_mermaid(
    model: Any,
    show_shapes: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    **shown: Unpack[Shown],
) -> str:
    r"""Describe a model as a Mermaid flowchart, which GitHub and many editors draw inside Markdown.

    Parameters
    ----------
    model : keras.Model
        A built model.
    show_shapes, show_layer_names, rankdir, **shown
        As in `plot_model`.

    Returns
    -------
    str
        Lines of ASCII but for letters of other scripts in names. Ids are made from names alone.

    Raises
    ------
    TypeError, ValueError
        As in `plot_model`.

    Notes
    -----
    The syntax is that of https://mermaid.js.org/syntax/flowchart.html, with its entity codes for
    characters that mean something.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="scores")])
    >>> print("\n".join(model_to_mermaid(model).splitlines()[:4]))
    flowchart TB
        _x["x: InputLayer"]:::input_box
        _scores["scores: Dense"]:::core_box
        _x --> _scores
    """
    _require_direction(rankdir)
    return write_mermaid(describe(model, Look(show_shapes, show_layer_names, **shown)), rankdir)


def model_to_text(model: Any, show_shapes: bool = False, show_layer_names: bool = True, **shown: Unpack[Shown]) -> str:
    """Describe a model as an outline in plain text, to be read in a terminal, searched and diffed.

    Parameters
    ----------
    model : keras.Model
        A built model.
    show_shapes, show_layer_names, **shown
        As in `plot_model`.

    Returns
    -------
    str
        A line for each layer, ``name: Class <- the layers that feed it``, indented in an expanded model, and
        below it a line for each fact. A name that could be misread is in quotes. Without names, the layers
        are numbered.

    Raises
    ------
    TypeError, ValueError
        As in `plot_model`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="scores")])
    >>> print(model_to_text(model, show_params=True), end="")
    x: InputLayer
      - params: 0
    scores: Dense <- x
      - params: 10
    """
    return write_text(describe(model, Look(show_shapes, show_layer_names, **shown)))


def _require_direction(rankdir: str) -> None:
    if rankdir not in _RANKDIRS:
        msg = f"rankdir is {rankdir!r}; use one of {', '.join(_RANKDIRS)}"
        raise ValueError(msg)
