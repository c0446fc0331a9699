"""Pictures are read back as DOT by pydot's parser, as JSON and SVG by the standard library, as PNG by matplotlib."""

import builtins
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import keras
import pytest
from matplotlib.image import imread

from kflow.core.plotting import model_to_dot, model_to_mermaid, plot_model

L = keras.layers
REPOSITORY = Path(__file__).parents[2]
RENDERER = Path(sys.executable).with_name("graphviz-pure")
FORMS = ("dot", "mmd", "txt", "svg", "png")
EVERYTHING = {"show_dtype": True, "show_params": True, "show_trainable": True, "show_layer_activations": True}


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
    """Draw the same model in every format; Keras numbers unnamed operations from the start again."""
    keras.utils.clear_session()
    model = make_siamese()
    for form in FORMS:
        plot_model(model, f"{stem}.{form}", show_shapes=True, expand_nested=True, **EVERYTHING)


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


def test_a_wrapped_model_is_expanded_too(tmp_path):
    """The frame has the name of the wrapper, and the boxes in it are the model's."""
    x = keras.Input((5, 8), name="x")
    model = keras.Model(x, L.Flatten(name="flat")(L.TimeDistributed(make_encoder(), name="each")(x)))
    boxes = read_boxes(model, tmp_path, expand_nested=True)

    assert boxes["cluster_each"] == ["each(encoder): TimeDistributed(Sequential)"]
    assert read_arrows(model, tmp_path, expand_nested=True) == {
        ("x", "each/features"),
        ("each/features", "each/squeeze"),
        ("each/squeeze", "each/clip"),
        ("each/clip", "flat"),
    }


def test_one_model_in_several_places_is_drawn_in_each(tmp_path):
    """Shared at two depths, and applied to its own output: the boxes are told apart by their paths."""
    keras.utils.clear_session()
    square = keras.Sequential([keras.Input((2,), name="in"), L.Dense(2, name="turn")], name="square")
    x = keras.Input((2,), name="x")
    inner = keras.Model(x, square(x), name="inner")
    y = keras.Input((2,), name="y")
    model = keras.Model(y, inner(square(square(y))))

    assert read_arrows(model, tmp_path, expand_nested=True) == {
        ("y", "square/in"),
        ("square/in", "square/turn"),
        ("square/turn", "square/in"),
        ("square/turn", "inner/x"),
        ("inner/x", "inner/square/in"),
        ("inner/square/in", "inner/square/turn"),
    }


def test_a_model_built_on_its_own_output(tmp_path):
    """A model inside a model that was made from its tensors brings in no circle."""
    encoder = keras.Sequential([keras.Input((4,), name="in"), L.Dense(4, name="turn")], name="again")
    model = keras.Model(encoder.inputs, encoder(encoder.outputs[0]), name="outer")

    assert read_arrows(model, tmp_path) == {("in", "turn"), ("turn", "again")}


def test_a_large_model_is_drawn_whole(tmp_path):
    """Hundreds of boxes and as many arrows."""
    x = keras.Input((1,), name="x")
    branches = [L.Identity(name=f"branch_{number}")(x) for number in range(300)]
    model = keras.Model(x, branches)

    assert len(read_arrows(model, tmp_path)) == 300


def test_a_range_of_layers(tmp_path):
    """The first and the last layer are drawn, too; what lies outside has neither box nor arrow."""
    layers = [L.Identity(name=f"block{number}_{part}") for number in (1, 2, 3) for part in ("a", "b")]
    model = keras.Sequential([keras.Input((1,), name="x"), *layers])

    assert read_arrows(model, tmp_path, layer_range=("block1_b", "block2_b")) == {
        ("block1_b", "block2_a"),
        ("block2_a", "block2_b"),
    }
    assert set(read_boxes(model, tmp_path, layer_range=["block2", "block2"])) == {"block2_a", "block2_b"}


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


def test_activations_are_named_and_never_by_their_address(tmp_path):
    """A function by its name, a layer or an object by its class, and that of a wrapped layer, too."""

    class Bend:
        """An activation that is no function."""

        def __call__(self, x):
            """Bend."""
            return x * x

    layers = [
        L.Dense(1, activation="relu", name="function"),
        L.Dense(1, activation=lambda x: x, name="lambda"),
        L.Dense(1, activation=L.LeakyReLU(), name="layer"),
        L.Dense(1, activation=Bend(), name="object"),
        L.TimeDistributed(L.Dense(1, activation="tanh"), name="wrapped"),
        L.Flatten(name="none"),
    ]
    boxes = read_boxes(keras.Sequential([keras.Input((2, 2)), *layers]), tmp_path, show_layer_activations=True)

    assert [boxes[layer.name][1:] for layer in layers] == [
        ["activation:", "relu"],
        ["activation:", "<lambda>"],
        ["activation:", "LeakyReLU"],
        ["activation:", "Bend"],
        ["activation:", "tanh"],
        [],
    ]


def test_what_training_changes_is_shown(tmp_path):
    """Yes, no, or in part for a model with a frozen layer; nothing for a layer without weights."""
    encoder = make_encoder()
    top = [L.BatchNormalization(name="norm"), L.Dense(2, name="frozen"), L.ReLU(name="clip")]
    model = keras.Sequential([keras.Input((8,), name="x"), encoder, *top])
    encoder.add(L.Dense(2, name="more"))
    encoder.layers[0].trainable = model.layers[2].trainable = False
    boxes = read_boxes(model, tmp_path, show_trainable=True)

    assert {name: lines[1:] for name, lines in boxes.items()} == {
        "x": [],
        "encoder": ["trainable:", "in part"],
        "norm": ["trainable:", "yes"],
        "frozen": ["trainable:", "no"],
        "clip": [],
    }


def test_shared_weights_are_counted_once(tmp_path):
    """The number for a model is that of Keras, with a layer that it uses twice counted once."""
    shared = L.Dense(4, name="shared")
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, L.BatchNormalization()(shared(shared(x))), name="inner")
    y = keras.Input((4,), name="y")
    boxes = read_boxes(keras.Model(y, inner(y)), tmp_path, show_params=True)

    assert boxes["inner"][-1] == str(inner.count_params())


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


@pytest.mark.parametrize("name", ['a "b" \\', "<b>&amp;<br>", "{x|y}", "node", r"\N\G", "漢字 é", "--", "%20"])
def test_names_are_shown_as_they_are(tmp_path, name):
    """The text in the picture is the name, whatever means something in DOT or HTML."""
    boxes = read_boxes(keras.Sequential([keras.Input((1,)), L.Identity(name=name)]), tmp_path)

    assert list(boxes.values())[1] == [f"{name}: Identity"]


def test_characters_that_cannot_be_printed_are_shown_as_escapes(tmp_path):
    """A newline, a bell and half a surrogate pair become visible."""
    boxes = read_boxes(keras.Sequential([keras.Input((1,)), L.Identity(name="a\n\x07\ud800")]), tmp_path)

    assert list(boxes.values())[1] == [r"a\n\x07\ud800: Identity"]


def test_another_process_writes_the_same_bytes(tmp_path):
    """Neither memory addresses nor the seed of hashes are in the texts or the images."""
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

    for form in FORMS:
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


def test_the_arguments_have_the_order_of_keras_2_1(tmp_path):
    """A call written for its documentation means the same: file, shapes, names, direction."""
    plot_model(make_encoder(), str(tmp_path / "positional.mmd"), True, False, "LR")
    plot_model(make_encoder(), tmp_path / "named.mmd", show_shapes=True, show_layer_names=False, rankdir="LR")
    positional = (tmp_path / "positional.mmd").read_text()

    assert positional == (tmp_path / "named.mmd").read_text()
    assert positional.startswith("flowchart LR\n")
    assert '["Dense<br/>input: (None, 8)<br/>output: (None, 4)"]' in positional
    assert model_to_mermaid(make_encoder(), True, False, "LR") == positional
    assert "rankdir=LR" in model_to_dot(make_encoder(), True, False, "LR").to_string()


def test_the_graph_draws_itself_as_in_keras_2_1(tmp_path):
    """Notebooks show `model_to_dot(model).create(...)`."""
    picture = model_to_dot(make_encoder()).create(prog=str(RENDERER), format="svg")

    assert b"squeeze: Dense" in picture


@pytest.mark.parametrize(("rankdir", "is_wide"), [("TB", False), ("BT", False), ("LR", True), ("RL", True)])
def test_rankdir_turns_the_picture(tmp_path, rankdir, is_wide):
    """A chain is tall from top to bottom and wide from left to right."""
    plot_model(make_encoder(), tmp_path / "m.png", rankdir=rankdir)
    height, width, *_ = imread(tmp_path / "m.png").shape

    assert (width > height) == is_wide


def test_missing_pydot_is_named(tmp_path, monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pydot", None)

    with pytest.raises(ImportError, match="pip install pydot"):
        plot_model(make_encoder(), tmp_path / "m.dot")


@pytest.mark.parametrize(
    ("model", "name", "arguments", "expected"),
    [
        (keras.Sequential([L.Dense(1)], name="late"), "m.dot", {}, "ValueError: .* 'late' is not built.*keras.Input"),
        (
            keras.Sequential([keras.Input((2,))], name="bare"),
            "m.dot",
            {},
            "ValueError: .* 'bare' has no layers to draw",
        ),
        ("model.keras", "m.dot", {}, "TypeError: model is a str; plot_model draws a keras.Model"),
        (make_encoder(), "m.xyz", {}, "ValueError: unsupported format 'xyz': .*dot, .*png, .*svg"),
        (make_encoder(), "m.dot", {"rankdir": "UP"}, "ValueError: rankdir is 'UP'; use one of TB, LR, BT, RL"),
        (make_encoder(), "m.dot", {"dpi": 0}, "ValueError: dpi is 0; use a whole number"),
        (make_encoder(), "m.txt", {"layer_range": "clip"}, "ValueError: layer_range is 'clip'; give two names"),
        (
            make_encoder(),
            "m.txt",
            {"layer_range": (None, "clip")},
            "ValueError: layer_range is .None, 'clip'.; give two",
        ),
        (make_encoder(), "m.txt", {"layer_range": ("clip", "squeeze")}, "ValueError: .* ends before it begins"),
        (make_encoder(), "m.txt", {"layer_range": ("sqeeze", "clip")}, "ValueError: .*did you mean 'squeeze'"),
        (make_encoder(), "m.txt", {"layer_range": ("squeeze", "(")}, "ValueError: .*'\\(', but no layer .*'features'"),
        (make_encoder(), "m.txt", {"splines": "ortho"}, "TypeError: .*unexpected keyword argument 'splines'"),
    ],
    ids=[
        "unbuilt",
        "bare",
        "no model",
        "format",
        "rankdir",
        "dpi",
        "range",
        "none",
        "order",
        "name",
        "pattern",
        "splines",
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, model, name, arguments, expected):
    """Each error says what is wrong and what to do."""
    kind, _, match = expected.partition(": ")

    with pytest.raises(getattr(builtins, kind), match=match):
        plot_model(model, tmp_path / name, **arguments)


@pytest.mark.parametrize(
    ("to_file", "expected"),
    [
        (None, "TypeError: to_file must be the path of the file to write, such as 'model.png', not None"),
        (b"m.dot", "TypeError: to_file must be the path of the file to write, .* not b'm.dot'"),
        (io.BytesIO(), "TypeError: to_file must be the path of the file to write, .* not <_io.BytesIO"),
        ("", "ValueError: to_file must name a file, such as 'model.png', not ''"),
        ("new/", "ValueError: to_file must name a file, such as 'model.png', not 'new/'"),
        ("a\0.dot", "ValueError: to_file must name a file, such as 'model.png', not 'a.x00.dot'"),
        (".", r"IsADirectoryError: to_file is a folder; name a file in it, such as 'model.png': '\.'"),
        ("plots", "IsADirectoryError: to_file is a folder; name a file in it, such as 'model.png': 'plots'"),
        ("away/m.dot", "FileNotFoundError: the folder 'away' of to_file does not exist; create it first"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_anything_is_drawn(tmp_path, monkeypatch, to_file, expected):
    """Even what is no model is not looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plots").mkdir()
    kind, _, match = expected.partition(": ")

    with pytest.raises(getattr(builtins, kind), match=match):
        plot_model(None, to_file)
