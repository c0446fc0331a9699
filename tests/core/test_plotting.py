"""Pictures are read back as DOT by pydot's parser, as JSON and SVG by the standard library, as PNG by matplotlib."""

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from kflow.core.plotting import plot_model

L = keras.layers
REPOSITORY = Path(__file__).parents[2]
RENDERER = Path(sys.executable).with_name("graphviz-pure")


def make_encoder():
    """A Sequential that is used as a layer."""
    layers = [keras.Input((8,), name="features"), L.Dense(4, name="squeeze"), L.ReLU(name="clip")]
    return keras.Sequential(layers, name="encoder")


def make_siamese():
    """Two inputs through one encoder, joined, with a tensor operation and two outputs."""
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    encoder = make_encoder()
    first, second = encoder(left), encoder(right)
    joined = L.Concatenate(name="join")([first, second, first * 2.0])
    outputs = [L.Dense(1, name="same")(joined), L.Dense(3, name="kind")(joined)]
    return keras.Model([left, right], outputs, name="siamese")


def draw_all(stem):
    """Draw the same model in three formats; Keras numbers unnamed operations from the start again."""
    keras.utils.clear_session()
    model = make_siamese()
    for form in ("dot", "svg", "png"):
        plot_model(model, f"{stem}.{form}", show_shapes=True, expand_nested=True)


def read_json(model, folder: Path, **arguments) -> dict:
    """Draw the model as JSON, which tells what the renderer understood."""
    plot_model(model, folder / "model.json", **arguments)
    return json.loads((folder / "model.json").read_text())


def read_arrows(model, folder: Path, **arguments) -> set[tuple[str, str]]:
    """List the arrows that a renderer sees, by the ids of the boxes."""
    drawing = read_json(model, folder, **arguments)
    names = {item["_gvid"]: item["name"] for item in drawing["objects"]}
    return {(names[edge["tail"]], names[edge["head"]]) for edge in drawing.get("edges", [])}


def read_boxes(model, folder: Path, **arguments) -> dict[str, list[str]]:
    """List the lines of text in each box, as drawn in an SVG."""
    plot_model(model, folder / "model.svg", **arguments)
    space = "{http://www.w3.org/2000/svg}"
    tree = ET.parse(folder / "model.svg")
    groups = [group for group in tree.iter(f"{space}g") if group.get("class") in {"node", "cluster"}]
    return {
        group.findtext(f"{space}title"): ["".join(text.itertext()) for text in group.iter(f"{space}text")]
        for group in groups
    }


def test_a_sequential_is_a_chain_that_begins_with_its_input(tmp_path):
    """Each layer is a box labelled "name: Class", and arrows follow the data."""
    model = make_encoder()
    boxes = read_boxes(model, tmp_path)

    assert boxes == {
        "features": ["features: InputLayer"],
        "squeeze": ["squeeze: Dense"],
        "clip": ["clip: ReLU"],
    }
    assert read_arrows(model, tmp_path) == {("features", "squeeze"), ("squeeze", "clip")}


def test_a_functional_model_shows_inputs_shared_layers_and_operations(tmp_path):
    """A shared model is one box with an arrow from each input, and each arrow is drawn once."""
    model = make_siamese()
    multiply = next(operation.name for operation in model.operations if "multiply" in operation.name)

    assert read_arrows(model, tmp_path) == {
        ("left", "encoder"),
        ("right", "encoder"),
        ("encoder", "join"),
        ("encoder", multiply),
        (multiply, "join"),
        ("join", "same"),
        ("join", "kind"),
    }


def test_an_expanded_model_is_a_frame_around_its_layers(tmp_path):
    """Arrows enter at the inner input and leave at the inner output; the frame is named."""
    model = make_siamese()
    arrows = read_arrows(model, tmp_path, expand_nested=True)
    boxes = read_boxes(model, tmp_path, expand_nested=True)

    assert {
        ("left", "encoder/features"),
        ("right", "encoder/features"),
        ("encoder/features", "encoder/squeeze"),
        ("encoder/squeeze", "encoder/clip"),
        ("encoder/clip", "join"),
    } <= arrows
    assert boxes["cluster_encoder"] == ["encoder: Sequential"]


def test_models_inside_models_are_expanded_to_any_depth(tmp_path):
    """The id of a box is the path of names that leads to it."""
    inner = make_encoder()
    x = keras.Input((8,), name="x")
    middle = keras.Model(x, inner(x), name="middle")
    y = keras.Input((8,), name="y")
    outer = keras.Model(y, middle(y))

    assert read_arrows(outer, tmp_path, expand_nested=True) == {
        ("y", "middle/x"),
        ("middle/x", "middle/encoder/features"),
        ("middle/encoder/features", "middle/encoder/squeeze"),
        ("middle/encoder/squeeze", "middle/encoder/clip"),
    }


def test_several_inputs_and_outputs_of_a_nested_model_are_told_apart(tmp_path):
    """With expand_nested each arrow meets the input or output that it belongs to."""
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    pair = keras.Model([a, b], [L.Dense(1, name="p")(a), L.Dense(1, name="q")(b)], name="pair")
    x, y = keras.Input((2,), name="x"), keras.Input((3,), name="y")
    p, q = pair([x, y])
    model = keras.Model([x, y], [L.ReLU(name="after_p")(p), L.ReLU(name="after_q")(q)])

    assert read_arrows(model, tmp_path, expand_nested=True) == {
        ("x", "pair/a"),
        ("y", "pair/b"),
        ("pair/a", "pair/p"),
        ("pair/b", "pair/q"),
        ("pair/p", "after_p"),
        ("pair/q", "after_q"),
    }


def test_only_the_calls_of_this_model_are_drawn(tmp_path):
    """A layer that is also part of another model brings nothing of it along."""
    shared = L.Dense(2, name="shared")
    x, y = keras.Input((2,), name="x"), keras.Input((2,), name="y")
    keras.Model(y, shared(y))
    model = keras.Model(x, shared(x))

    assert read_arrows(model, tmp_path) == {("x", "shared")}


def test_wrappers_name_what_they_wrap(tmp_path):
    """As in Keras 2.1: name(inner): Class(Inner), also for Bidirectional."""
    layers = [
        L.TimeDistributed(L.Dense(2, name="d"), name="each"),
        L.Bidirectional(L.LSTM(2, name="lstm"), name="both"),
    ]
    boxes = read_boxes(keras.Sequential([keras.Input((3, 2), name="x"), *layers]), tmp_path)

    assert boxes["each"] == ["each(d): TimeDistributed(Dense)"]
    assert boxes["both"] == ["both(lstm): Bidirectional(LSTM)"]


def test_layer_names_are_left_out_on_request(tmp_path):
    """show_layer_names=False keeps the class alone."""
    boxes = read_boxes(make_encoder(), tmp_path, show_layer_names=False)

    assert boxes["squeeze"] == ["Dense"]


def test_shapes_dtypes_and_weights_are_shown_on_request(tmp_path):
    """Shapes of inputs and outputs, the dtype of the output and the number of weights are lines of the box."""
    boxes = read_boxes(make_siamese(), tmp_path, show_shapes=True, show_dtype=True, show_params=True)

    assert boxes["left"] == [
        *("left: InputLayer", "input:", "(None, 8)", "output:", "(None, 8)"),
        *("dtype:", "float32", "params:", "0"),
    ]
    assert boxes["join"][2] == "[(None, 4), (None, 4), (None, 4)]"
    assert boxes["same"][-1] == str(3 * 4 * 1 + 1)


def test_calls_with_different_shapes_say_multiple(tmp_path):
    """A layer that is shared between shapes has no single shape."""
    shared = L.ReLU(name="shared")
    x, y = keras.Input((2,), name="x"), keras.Input((3,), name="y")
    boxes = read_boxes(keras.Model([x, y], [shared(x), shared(y)]), tmp_path, show_shapes=True)

    assert boxes["shared"] == ["shared: ReLU", "input:", "multiple", "output:", "multiple"]


def test_a_subclassed_model_is_one_box(tmp_path):
    """Its layers are known, their connections are not."""

    class Custom(keras.Model):
        """A model whose graph is in its code."""

        def __init__(self):
            super().__init__(name="custom")
            self.dense = L.Dense(2)

        def call(self, x):
            """Apply the layer."""
            return self.dense(x)

    model = Custom()
    model(keras.ops.ones((1, 3)))
    boxes = read_boxes(model, tmp_path, show_shapes=True, show_params=True)

    assert boxes == {"custom": ["custom: Custom", "input:", "?", "output:", "?", "params:", "8"]}


NASTY = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(NASTY, min_size=2, max_size=2, unique=True))
def test_any_name_survives_the_renderer(tmp_path_factory, names):
    """Quotes, braces, markup, newlines and other scripts neither break the picture nor join two boxes."""
    model = keras.Sequential([keras.Input((1,), name=names[0]), L.Identity(name=names[1])])
    folder = tmp_path_factory.mktemp("names")
    drawing = read_json(model, folder)

    assert len(drawing["objects"]) == 2
    assert len(drawing["edges"]) == 1


@pytest.mark.parametrize("name", ['a "b" \\', "<b>&amp;<br>", "{x|y}", "node", "a:b;c->d", "漢字 é", "--", "%20"])
def test_names_are_shown_as_they_are(tmp_path, name):
    """The text in the picture is the name, whatever means something in DOT or HTML."""
    boxes = read_boxes(keras.Sequential([keras.Input((1,)), L.Identity(name=name)]), tmp_path)

    assert list(boxes.values())[1] == [f"{name}: Identity"]


def test_characters_that_cannot_be_printed_are_shown_as_escapes(tmp_path):
    """A newline, a bell and half a surrogate pair become visible."""
    boxes = read_boxes(keras.Sequential([keras.Input((1,)), L.Identity(name="a\n\x07\ud800")]), tmp_path)

    assert list(boxes.values())[1] == [r"a\n\x07\ud800: Identity"]


@pytest.mark.parametrize("name", ["model.dot", "model.gv"])
def test_dot_is_written_without_a_renderer(tmp_path, monkeypatch, name):
    """The text is valid DOT, and no program is needed for it."""
    hide_renderers(monkeypatch, tmp_path)
    plot_model(make_siamese(), tmp_path / name, expand_nested=True)
    source = (tmp_path / name).read_text()
    done = subprocess.run([RENDERER, "-Tjson"], input=source, capture_output=True, text=True, check=True)

    assert {item["name"] for item in json.loads(done.stdout)["objects"]} >= {"left", "encoder/squeeze", "join"}
    assert "splines" not in source


def test_another_process_writes_the_same_bytes(tmp_path):
    """Neither memory addresses nor the seed of hashes are in the DOT text or the images."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from test_plotting import draw_all
draw_all(sys.argv[2])
"""
    environ = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "there")]
    subprocess.run(command, env=environ, capture_output=True, check=True)
    draw_all(tmp_path / "here")

    for form in ("dot", "svg", "png"):
        assert (tmp_path / f"here.{form}").read_bytes() == (tmp_path / f"there.{form}").read_bytes()


def test_without_an_extension_the_file_is_a_png_of_that_name(tmp_path):
    """As in Keras 2.1; the result of the call is None."""
    result = plot_model(make_encoder(), str(tmp_path / "picture"))

    assert result is None
    assert imread(tmp_path / "picture", format="png").ndim == 3


@pytest.mark.parametrize(
    ("name", "magic"), [("m.PNG", b"\x89PNG"), ("m.jpg", b"\xff\xd8\xff"), ("m.jpeg", b"\xff\xd8\xff")]
)
def test_the_extension_is_the_format(tmp_path, name, magic):
    """In any case of letters."""
    plot_model(make_encoder(), tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(magic)


def test_dpi_scales_the_image(tmp_path):
    """Twice the dots per inch are twice the pixels."""
    heights = []
    for dpi in (96, 192):
        plot_model(make_encoder(), tmp_path / "m.png", dpi=dpi)
        heights.append(imread(tmp_path / "m.png").shape[0])

    assert heights[1] == pytest.approx(2 * heights[0], rel=0.02)


@pytest.mark.parametrize(("rankdir", "is_wide"), [("TB", False), ("BT", False), ("LR", True), ("RL", True)])
def test_rankdir_turns_the_picture(tmp_path, rankdir, is_wide):
    """A chain is tall from top to bottom and wide from left to right."""
    plot_model(make_encoder(), tmp_path / "m.png", rankdir=rankdir)
    height, width, *_ = imread(tmp_path / "m.png").shape

    assert (width > height) == is_wide


# --- renderers ---------------------------------------------------------------------------------------------


def hide_renderers(monkeypatch, folder: Path) -> Path:
    """Make the search for programs see one empty folder, and give it."""
    programs = folder / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    return programs


def install(programs: Path, name: str, script: str) -> None:
    """Put a program into the folder."""
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


def test_a_missing_renderer_is_named(tmp_path, monkeypatch):
    """The error says what to install, and no file is left."""
    hide_renderers(monkeypatch, tmp_path)

    with pytest.raises(OSError, match=r"'png': pip install graphviz-pure, or install your system's graphviz"):
        plot_model(make_encoder(), tmp_path / "m.png")
    assert not (tmp_path / "m.png").exists()


def test_a_format_that_only_dot_knows_asks_for_dot(tmp_path, monkeypatch):
    """graphviz-pure cannot write PDF, so it is neither used nor advised."""
    install(hide_renderers(monkeypatch, tmp_path), "graphviz-pure", "echo drawn")

    with pytest.raises(OSError, match=r"'pdf': install your system's graphviz \(\.dot needs neither\)"):
        plot_model(make_encoder(), tmp_path / "m.pdf")


@pytest.mark.parametrize(("name", "drawn"), [("m.png", "pure -Tpng"), ("m.pdf", "dot -Tpdf")])
def test_the_pinned_renderer_comes_first_where_it_can(tmp_path, monkeypatch, name, drawn):
    """graphviz-pure draws what it knows, so that machines agree; dot draws the rest."""
    programs = hide_renderers(monkeypatch, tmp_path)
    install(programs, "graphviz-pure", 'echo "pure $@"')
    install(programs, "dot", 'echo "dot $@"')
    plot_model(make_encoder(), tmp_path / name)

    assert (tmp_path / name).read_text().strip() == drawn


def test_dot_on_the_path_is_used_alone(tmp_path, monkeypatch):
    """Without graphviz-pure the system's dot draws, and reads the DOT text of the model."""
    install(hide_renderers(monkeypatch, tmp_path), "dot", 'while read -r line; do echo "$line"; done')
    plot_model(make_encoder(), tmp_path / "m.png")

    assert (tmp_path / "m.png").read_text().startswith("digraph")


def test_a_failing_renderer_is_quoted_and_the_old_picture_stays(tmp_path, monkeypatch):
    """What the program said is in the error; the file from before is whole, and nothing lies beside it."""
    install(hide_renderers(monkeypatch, tmp_path), "dot", "echo out of ink >&2; exit 3")
    (tmp_path / "out").mkdir()
    picture = tmp_path / "out" / "m.png"
    picture.write_text("old")

    with pytest.raises(OSError, match=r"dot could not draw the model as png \(status 3\); it said: out of ink"):
        plot_model(make_encoder(), picture)
    assert [(path.name, path.read_text()) for path in picture.parent.iterdir()] == [("m.png", "old")]


def test_an_interrupted_write_leaves_no_file(tmp_path):
    """When the rename fails, the temporary file is removed."""
    (tmp_path / "out" / "m.dot").mkdir(parents=True)

    with pytest.raises(IsADirectoryError, match=r"m\.dot"):
        plot_model(make_encoder(), tmp_path / "out" / "m.dot")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.dot"]


def test_missing_pydot_is_named(tmp_path, monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pydot", None)

    with pytest.raises(ImportError, match="pip install pydot"):
        plot_model(make_encoder(), tmp_path / "m.dot")


@pytest.mark.parametrize(
    ("model", "name", "arguments", "expected"),
    [
        (keras.Sequential([L.Dense(1)], name="late"), "m.dot", {}, "ValueError: .* 'late' is not built.*keras.Input"),
        ("model.keras", "m.dot", {}, "TypeError: model is a str; plot_model draws a keras.Model"),
        (make_encoder(), "m.xyz", {}, "ValueError: unsupported format 'xyz': .*dot, .*png, .*svg"),
        (make_encoder(), "m.dot", {"rankdir": "UP"}, "ValueError: rankdir is 'UP'; use one of TB, LR, BT, RL"),
        (make_encoder(), "m.dot", {"dpi": 0}, "ValueError: dpi is 0; use a whole number"),
        (make_encoder(), "away/m.dot", {}, "FileNotFoundError: .*away' of to_file does not exist; create it"),
    ],
    ids=["unbuilt", "no model", "format", "rankdir", "dpi", "folder"],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, model, name, arguments, expected):
    """Each error says what is wrong and what to do."""
    kind, _, match = expected.partition(": ")

    with pytest.raises(getattr(builtins, kind), match=match):
        plot_model(model, tmp_path / name, **arguments)
