"""The languages are read back: DOT by pydot and by the renderer, Mermaid by its rules, text by JSON's."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import keras
import pydot
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kflow.core.plotting import model_to_dot, model_to_mermaid, model_to_text

L = keras.layers
RENDERER = Path(sys.executable).with_name("graphviz-pure")

NAMES = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=20)
"""What Keras lets a layer be called: anything without a slash, half surrogate pairs included."""

MARKS = st.text(st.sampled_from('_#;:&<>"[](){}|`*\\%-~.@!ax15 \n°¶ﬂß漢'), min_size=1, max_size=12)
"""Names of characters that mean something in one of the languages."""

PAIRS = st.lists(NAMES | MARKS, min_size=2, max_size=2, unique=True)


def make_pair(names: list[str]):
    """Make a model of two layers with these names."""
    return keras.Sequential([keras.Input((1,), name=names[0]), L.Identity(name=names[1])])


def printable(text: str) -> str:
    """Show what cannot be printed by escapes, as Python does."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def read_mermaid(source: str) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Read nodes and arrows as the Mermaid grammar and its entity codes say, and ids as ours are made."""
    nodes, arrows = {}, []
    for line in source.splitlines()[1:]:
        if node := re.fullmatch(r' *(?:subgraph )?([A-Za-z0-9_]+)\["([^"]*)"\](?::::\w+)?', line):
            rows = node[2].split("<br/>")
            nodes[read_id(node[1])] = [re.sub("#([0-9]+);", lambda code: chr(int(code[1])), row) for row in rows]
        elif arrow := re.fullmatch(r" *([A-Za-z0-9_]+) --> ([A-Za-z0-9_]+)", line):
            arrows.append((read_id(arrow[1]), read_id(arrow[2])))
        else:
            assert re.fullmatch(r" *(end|class [A-Za-z0-9_]+ \w+|classDef \w+ [\w:#,]+)", line), line
    return nodes, arrows


def read_id(text: str) -> str:
    """Turn an id back into the path of names."""
    assert text.startswith("_")
    return re.sub("_x([0-9a-f]+)_", lambda code: chr(int(code[1], 16)), text[1:])


def make_siamese():
    """A shared model, a wrapped one and a recurrent layer; an input of dictionaries."""
    layers = [keras.Input((8,), name="features"), L.Dense(4, activation="relu", name="squeeze")]
    encoder = keras.Sequential(layers, name="encoder")
    encoder.layers[0].trainable = False
    inputs = {name: keras.Input(shape, name=name) for name, shape in (("left", (8,)), ("right", (5, 8)))}
    each = L.TimeDistributed(encoder, name="each")(inputs["right"])
    joined = L.Concatenate(name="join")([encoder(inputs["left"]), L.GRU(3, name="gru")(each)])
    return keras.Model(inputs, L.Dense(1, name="score")(joined), name="siamese")


# --- any name ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@example(["\\N \\G", "\\\x1f"])
@given(PAIRS)
def test_any_name_survives_the_renderer(names):
    """Quotes, braces, markup, newlines and other scripts neither break the picture nor change the text in it."""
    source = model_to_dot(make_pair(names)).to_string()
    done = subprocess.run([RENDERER, "-Tsvg"], input=source.encode(), capture_output=True, check=True)
    space = "{http://www.w3.org/2000/svg}"
    groups = [group for group in ET.fromstring(done.stdout).iter(f"{space}g") if group.get("class") == "node"]
    texts = ["".join(text.text or "" for text in group.iter(f"{space}text")).replace("\xa0", " ") for group in groups]

    assert texts == [f"{printable(names[0])}: InputLayer", f"{printable(names[1])}: Identity"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot's parser uses names of pyparsing that will go
@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_any_name_round_trips_through_dot(names):
    """The parser of pydot finds the two ids, the labels and the arrow again."""
    (graph,) = pydot.graph_from_dot_data(model_to_dot(make_pair(names)).to_string())
    nodes = [node for node in graph.get_nodes() if node.get_name() not in {"node", "edge"}]
    bold = [re.search("<b>(.*)</b>", node.get_label())[1] for node in nodes]
    labels = [html.unescape(text).replace("\\\\", "\\") for text in bold]

    assert [unquote(node.get_name().strip('"'), errors="surrogatepass") for node in nodes] == names
    assert labels == [f"{printable(names[0])}: InputLayer", f"{printable(names[1])}: Identity"]
    assert [(edge.get_source(), edge.get_destination()) for edge in graph.get_edges()] == [
        (nodes[0].get_name(), nodes[1].get_name())
    ]


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_any_name_round_trips_through_mermaid(names):
    """Ids give the names back, and labels the text, with nothing in them that Markdown or HTML would take up."""
    source = model_to_mermaid(make_pair(names))
    nodes, arrows = read_mermaid(source)

    assert nodes == {names[0]: [f"{printable(names[0])}: InputLayer"], names[1]: [f"{printable(names[1])}: Identity"]}
    assert arrows == [tuple(names)]
    assert not re.search(r"[`*<>&\\~]|\]\(|://|www\.|\b_|_\b", "".join(re.findall(r'\["(.*)"\]', source)))


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_any_name_round_trips_through_text(names):
    """A name stands as it is or as a JSON text, so that its end cannot be mistaken."""
    first, second = model_to_text(make_pair(names)).splitlines()
    shown = [
        name if re.fullmatch(r"[\w.()-]+", name) else json.dumps(name, ensure_ascii=False)
        for name in map(printable, names)
    ]

    assert first == f"{shown[0]}: InputLayer"
    assert second == f"{shown[1]}: Identity <- {shown[0]}"


@pytest.mark.parametrize("name", ["end", "graph", "subgraph", "style", "class", "click", "default", "o", "x", "1. a"])
def test_words_of_mermaid_are_names_like_others(name):
    """No id is one of the words or marks that Mermaid takes for its own."""
    nodes, _ = read_mermaid(source := model_to_mermaid(make_pair(["first", name])))

    assert nodes[name] == [f"{name}: Identity"]
    assert f"    _{name}[" in source or name == "1. a"


@st.composite
def graphs(draw):
    """Draw for each layer of a graph those before it that feed it; layer 0 is the input."""
    count = draw(st.integers(1, 6))
    return [draw(st.lists(st.integers(0, number), min_size=1, max_size=3, unique=True)) for number in range(count)]


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_the_arrows_of_any_graph_are_those_it_was_built_with(feeds):
    """DOT, Mermaid and text agree with what each layer was called on, and each arrow is there once."""
    tensors = [keras.Input((1,), name="n0")]
    for number, sources in enumerate(feeds, start=1):
        values = [tensors[source] for source in sources]
        layer = L.Add if len(values) > 1 else L.Identity
        tensors.append(layer(name=f"n{number}")(values if len(values) > 1 else values[0]))
    model = keras.Model(tensors[0], tensors[1:])
    built = sorted((f"n{source}", f"n{number}") for number, all_ in enumerate(feeds, start=1) for source in all_)
    _, arrows = read_mermaid(model_to_mermaid(model))
    edges = model_to_dot(model).get_edges()
    lines = [re.match(r"(\w+): \w+(?: <- (.*))?", line) for line in model_to_text(model).splitlines()]
    outline = [(source, line[1]) for line in lines if line[2] for source in line[2].split(", ")]

    assert sorted(arrows) == built
    assert sorted((edge.get_source().strip('"'), edge.get_destination().strip('"')) for edge in edges) == built
    assert sorted(outline) == built


# --- what is written ---------------------------------------------------------------------------------------


def test_the_outline_of_a_nested_model():
    """A line for each layer in the order of the summary, indented in a model, with what feeds it."""
    assert model_to_text(make_siamese(), expand_nested=True).splitlines() == [
        "right: InputLayer",
        "left: InputLayer",
        "each(encoder): TimeDistributed(Sequential)",
        "  features: InputLayer <- right",
        "  squeeze: Dense <- each(encoder)/features",
        "encoder: Sequential",
        "  features: InputLayer <- left",
        "  squeeze: Dense <- encoder/features",
        "gru: GRU <- each(encoder)/squeeze",
        "join: Concatenate <- encoder/squeeze, gru",
        "score: Dense <- join",
    ]


def test_the_outline_without_names_is_numbered():
    """Arrows can be told although no layer is named."""
    assert model_to_text(make_siamese(), show_layer_names=False).splitlines()[2:5] == [
        "3: TimeDistributed(Sequential) <- 1",
        "4: Sequential <- 2",
        "5: GRU <- 3",
    ]


def test_the_facts_of_the_outline():
    """Shapes, dtype, activation, parameters and what is trained stand below a layer."""
    shown = {"show_dtype": True, "show_layer_activations": True, "show_params": True, "show_trainable": True}
    lines = model_to_text(make_siamese(), show_shapes=True, **shown).splitlines()
    at = lines.index("encoder: Sequential <- left")

    assert lines[at + 1 : at + 6] == [
        "  - input: (None, 8)",
        "  - output: (None, 4)",
        "  - dtype: float32",
        "  - params: 36",
        "  - trainable: no",
    ]
    assert lines[-5:] == [
        "  - output: (None, 1)",
        "  - dtype: float32",
        "  - activation: linear",
        "  - params: 8",
        "  - trainable: yes",
    ]


def test_the_flowchart_of_a_nested_model():
    """Models are subgraphs around their layers; arrows and facts are those of the picture."""
    source = model_to_mermaid(make_siamese(), show_shapes=True, rankdir="LR", expand_nested=True)
    nodes, arrows = read_mermaid(source)

    assert source.startswith("flowchart LR\n")
    assert nodes["each/squeeze"] == ["squeeze: Dense", "input: (None, 8)", "output: (None, 4)"]
    assert nodes["each"] == ["each(encoder): TimeDistributed(Sequential)"]
    assert nodes["join"][1] == "input: [(None, 4), (None, 3)]"
    assert set(arrows) == {
        ("right", "each/features"),
        ("each/features", "each/squeeze"),
        ("left", "encoder/features"),
        ("encoder/features", "encoder/squeeze"),
        ("each/squeeze", "gru"),
        ("encoder/squeeze", "join"),
        ("gru", "join"),
        ("join", "score"),
    }
    assert source.count("subgraph ") == source.count("    end\n") == 2


def test_a_new_layer_changes_the_lines_that_it_touches_and_no_others():
    """Ids come from names, so that a diff of two versions of a model shows what was changed."""

    def lines(*names):
        model = keras.Sequential([keras.Input((4,), name="x"), *(L.Identity(name=name) for name in names)])
        return {form: set(write(model).splitlines()) for form, write in writers.items()}

    writers = {"text": model_to_text, "mermaid": model_to_mermaid, "dot": lambda model: model_to_dot(model).to_string()}
    before, after = lines("a", "b", "c"), lines("a", "new", "b", "c")

    assert {form: (len(before[form] - after[form]), len(after[form] - before[form])) for form in writers} == {
        "text": (1, 2),
        "mermaid": (1, 3),
        "dot": (1, 3),
    }
