"""The languages that a drawing can be written in: DOT for graphviz, Mermaid for web pages, plain text for people."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kflow.core.plotting.drawings import Box, Drawing

__all__ = ["write_dot", "write_mermaid", "write_text"]

# Fill and border of a box, by the part of keras.layers that its class comes from.
_PALETTE = {
    "input": ("#e3f4e8", "#3f8f5b"),
    "model": ("#efe8fb", "#7a5cb8"),
    "convolutional": ("#e3eefc", "#3f74b5"),
    "rnn": ("#e3eefc", "#3f74b5"),
    "attention": ("#e3eefc", "#3f74b5"),
    "core": ("#e6f0fa", "#4a7fb0"),
    "activations": ("#f3f3f0", "#8a8a80"),
    "pooling": ("#fdf1dd", "#b98a35"),
    "reshaping": ("#f3f3f0", "#8a8a80"),
    "normalization": ("#fbe9ef", "#b5617f"),
    "regularization": ("#fbe9ef", "#b5617f"),
    "merging": ("#fff6d6", "#a8932c"),
    "other": ("#f4f5f7", "#7b8494"),
    "frame": ("#faf8ff", "#7a5cb8"),
}


def _style(box: Box) -> str:
    if box.inside:
        return "frame"
    return box.family if box.family in _PALETTE else "other"


def _title(box: Box, drawing: Drawing) -> str:
    """Write a box's first line, as Keras 2.1 did."""
    return f"{box.name}: {box.kind}" if drawing.has_names else box.kind


# --- DOT ---------------------------------------------------------------------------------------------------


def write_dot(drawing: Drawing, rankdir: str, dpi: int) -> Any:
    """Write a drawing as a pydot graph."""
    pydot = _pydot()
    # Edges keep graphviz's own splines: 'ortho' makes some releases of dot abort on nested models.
    graph = pydot.Dot("model", graph_type="digraph", rankdir=rankdir, dpi=str(dpi), nodesep="0.35", ranksep="0.4")
    graph.set_bgcolor('"white"')
    graph.set_node_defaults(
        shape="box", style='"rounded,filled"', fontname='"Helvetica"', fontsize="11", margin='"0.12,0.06"'
    )
    graph.set_edge_defaults(color='"#5c6470"', arrowsize="0.7")
    _add_boxes(pydot, graph, drawing.boxes, drawing)
    for source, target in drawing.arrows:
        graph.add_edge(pydot.Edge(_dot_id(source), _dot_id(target)))
    return graph


def _pydot() -> Any:
    """Import pydot, or say how to get it."""
    try:
        import pydot
    except ImportError as error:
        msg = (
            "drawing a model with graphviz needs the package pydot, which is not installed: pip install pydot, "
            "or write a .mmd or .txt file"
        )
        raise ImportError(msg) from error
    return pydot


def _add_boxes(pydot: Any, graph: Any, boxes: Sequence[Box], drawing: Drawing) -> None:
    """Add nodes to a graph or to the frame of a nested model."""
    for box in boxes:
        fill, border = _PALETTE[_style(box)]
        # Arrows would cross facts on a frame; they are those of its first and last boxes, or their sum.
        label = _dot_label(_title(box, drawing), () if box.inside else box.facts)
        look = {"label": label, "fillcolor": f'"{fill}"', "color": f'"{border}"'}
        if not box.inside:
            graph.add_node(pydot.Node(_dot_id(box.path), **look))
            continue
        frame = pydot.Subgraph(
            '"cluster_' + _dot_id(box.path).lstrip('"'),
            style='"rounded,filled"',
            margin="12",
            labeljust="l",  # to the left of the arrows that enter
            fontname='"Helvetica"',
            fontsize="11",
            **look,
        )
        _add_boxes(pydot, frame, box.inside, drawing)
        graph.add_subgraph(frame)


def _dot_id(path: Sequence[str]) -> str:
    """Turn a path of names into a DOT id that holds no character with a meaning in DOT."""
    return '"' + "/".join(quote(name, safe="", errors="surrogatepass") for name in path) + '"'


def _dot_label(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Write a label in graphviz's HTML-like language, in which only markup has a meaning."""
    rows = [f'<tr><td colspan="2"><b>{_dot_text(title)}</b></td></tr>']
    for key, value in facts:
        cells = (f'<font color="#5c6470">{key}:</font>', _dot_text(value))
        rows.append("<tr>" + "".join(f'<td align="left">{cell}</td>' for cell in cells) + "</tr>")
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{"".join(rows)}</table>>'


def _dot_text(text: str) -> str:
    r"""Escape markup, and backslashes: out of ``\N`` graphviz would make the name of the node, even here."""
    return html.escape(text, quote=False).replace("\\", r"\\")


# --- Mermaid -----------------------------------------------------------------------------------------------


def write_mermaid(drawing: Drawing, rankdir: str) -> str:
    """Write a drawing as a Mermaid flowchart."""
    lines = [f"flowchart {rankdir}", *_mermaid_boxes(drawing.boxes, drawing, "    ")]
    lines += [f"    {_mermaid_id(source)} --> {_mermaid_id(target)}" for source, target in drawing.arrows]
    used = {_style(box) for box in _flat(drawing.boxes)}
    lines += [
        f"    classDef {style}_box fill:{fill},stroke:{border},color:#1f2328"
        for style, (fill, border) in _PALETTE.items()
        if style in used
    ]
    return "\n".join(lines) + "\n"


def _mermaid_boxes(boxes: Sequence[Box], drawing: Drawing, indent: str) -> Iterator[str]:
    for box in boxes:
        title = _mermaid_text(_title(box, drawing))
        name, rows = _mermaid_id(box.path), [title, *(_mermaid_text(f"{key}: {value}") for key, value in box.facts)]
        if box.inside:
            yield f'{indent}subgraph {name}["{title}"]'
            yield from _mermaid_boxes(box.inside, drawing, indent + "    ")
            yield f"{indent}end"
            yield f"{indent}class {name} {_style(box)}_box"
        else:
            yield f'{indent}{name}["{"<br/>".join(rows)}"]:::{_style(box)}_box'


def _mermaid_id(path: Sequence[str]) -> str:
    """Turn a path of names into letters, digits and underscores, another path into others.

    The underscore in front keeps the id apart from Mermaid's words, such as "end". Other characters, the slash
    between names, and an underscore that would look like it begins one of them, become ``_x<hex>_``.
    """
    text = "/".join(path)
    return "_" + re.sub(r"[^A-Za-z0-9_]|_(?=x)", lambda found: f"_x{ord(found[0]):x}_", text)


def _mermaid_text(text: str) -> str:
    """Write characters that could mean something in Mermaid, Markdown or HTML as Mermaid's ``#<number>;``.

    Letters, digits and spaces after the first mean nothing, nor do parentheses, commas, colons before a space,
    and underscores inside a word, which keep names and shapes readable.
    """
    special = r"^ |[^\w (),:]|:(?! )|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    return re.sub(special, lambda found: f"#{ord(found[0])};", text)


# --- plain text --------------------------------------------------------------------------------------------


def write_text(drawing: Drawing) -> str:
    """Write a drawing as an outline: a line for each layer, with the layers that feed it, and its facts below."""
    names: dict[tuple[str, ...], str] = {}
    for number, box in enumerate(_flat(drawing.boxes), start=1):
        outer = f"{names[box.path[:-1]]}/" if len(box.path) > 1 else ""
        # Where names are not wanted, numbers tell the layers apart.
        names[box.path] = f"{outer}{_quoted(box.name)}" if drawing.has_names else str(number)
    feeds: dict[tuple[str, ...], list[str]] = {}
    for source, target in drawing.arrows:
        feeds.setdefault(target, []).append(names[source])
    return "".join(f"{line}\n" for line in _text_boxes(drawing, drawing.boxes, names, feeds))


def _text_boxes(
    drawing: Drawing,
    boxes: Sequence[Box],
    names: Mapping[tuple[str, ...], str],
    feeds: Mapping[tuple[str, ...], list[str]],
) -> Iterator[str]:
    for box in boxes:
        indent = "  " * (len(box.path) - 1)
        key = _quoted(box.name) if drawing.has_names else names[box.path]
        arrow = f" <- {', '.join(feeds[box.path])}" if box.path in feeds else ""
        yield f"{indent}{key}: {box.kind}{arrow}"
        yield from (f"{indent}  - {fact}: {value}" for fact, value in box.facts)
        yield from _text_boxes(drawing, box.inside, names, feeds)


def _quoted(name: str) -> str:
    """Put a name in quotes when it could be taken for a part of the line."""
    return name if re.fullmatch(r"[\w.()-]+", name) else json.dumps(name, ensure_ascii=False)


def _flat(boxes: Sequence[Box]) -> Iterator[Box]:
    """Walk through the boxes at all depths, the outer before the inner."""
    for box in boxes:
        yield box
        yield from _flat(box.inside)
