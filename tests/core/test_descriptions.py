"""What a description may say: names that are found, Keras's own parts, and what the caller allows; else an error."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.objects import CustomObjectScope, get_custom_objects
from kflow.core.serialization import deserialize_keras_object, serialize_keras_object
from tests.core.sample_parts import Affine, old, twice


@pytest.mark.parametrize(
    ("identifier", "kwargs", "message"),
    [
        ("Afine", {"module_objects": {"Affine": Affine}}, r"object: Afine\. Did you mean 'Affine' \(module_objects\)"),
        ("twcie", {"custom_objects": {"twice": twice}}, r"twcie\. Did you mean 'twice' \(custom_objects\)"),
        ("relu", {"module_objects": {}}, r"Unknown object: relu\."),
        (
            old("dens", units=3),
            {"printable_module_name": "layer"},
            r"Unknown layer: dens.*Did you mean '(D|d)ense'",
        ),
        (old("Dense", units=3), {"module_objects": {}}, r"Unknown object: Dense\."),
        (
            {**old("Dens"), "module": "keras.layers"},
            {},
            r"Unknown object: Dens\. Did you mean 'Dense' \(keras\.layers\)",
        ),
        ({**old("Mine"), "module": None}, {}, r"Unknown object: Mine"),
        (
            old("TimeDistributed", layer=old("Dens", units=2)),
            {"printable_module_name": "layer"},
            r"Unknown layer: Dens \(at config\.layer\)",
        ),
        (
            {"class_name": "function", "config": "rleu", "module": "builtins"},
            {},
            r"Unknown object: rleu\. Did you mean 'relu' \(keras\.activations\)",
        ),
    ],
)
def test_unknown_names_are_errors_with_suggestions(identifier: Any, kwargs: dict[str, Any], message: str) -> None:
    """An unknown name is a ValueError that says where it is and which names are like it."""
    with pytest.raises(ValueError, match=message):
        deserialize_keras_object(identifier, **kwargs)


def small_model() -> dict[str, Any]:
    """The description of four layers and their compile arguments, as Keras 3 writes it."""
    layers = [keras.layers.Dense(2, name=name) for name in "abcd"]
    model = keras.Sequential([keras.Input((2,)), *layers])
    model.compile("adam", "mse", metrics=["mae"])
    return dict(serialize_keras_object(model))


def changed(description: Any, path: str, value: Any) -> Any:
    """The description with another value at a path such as config.layers[3].config.units."""
    keys = [int(key) if key.isdecimal() else key for key in re.findall(r"[\w]+", path)]
    place = description
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return description


@pytest.mark.parametrize(
    ("path", "value", "noun", "suggestion"),
    [
        ("config.layers[3].config.activation", "rleu", "activation", "'relu' (keras.activations)"),
        ("config.layers[1].config.kernel_initializer", "zeroes", "initializer", "'zeros' (keras.initializers)"),
        ("config.layers[2].config.bias_regularizer", "L22", "regularizer", "'L2' (keras.regularizers)"),
        ("config.layers[2].config.kernel_constraint", "NonNig", "constraint", "'NonNeg' (keras.constraints)"),
        ("config.layers[4].class_name", "Dens", "layer", "'Dense' (keras.layers)"),
        ("config.layers[4].config.kernel_initializer.class_name", "Zeross", "initializer", "'Zeros' (keras.init"),
        ("compile_config.optimizer", "adma", "optimizer", "'adam' (keras.optimizers)"),
        ("compile_config.optimizer.class_name", "Adaam", "optimizer", "'Adam' (keras.optimizers)"),
        ("compile_config.loss", "mes", "loss", "'mse' (keras.losses)"),
        ("compile_config.metrics[0]", "maee", "metric", "'mae' (keras.metrics)"),
    ],
)
def test_an_unknown_name_is_located_inside_the_description(path: str, value: str, noun: str, suggestion: str) -> None:
    """A name that is misspelt anywhere is an error with its path, its kind and similar names of that kind."""
    description = changed(small_model(), path, value)
    place = path.removesuffix(".class_name")

    with pytest.raises(ValueError, match="Unknown") as failure:
        deserialize_keras_object(description)

    assert str(failure.value).startswith(f"Unknown {noun}: {value} (at {place}). Did you mean ")
    assert suggestion in str(failure.value)


def test_the_description_that_was_changed_is_right_without_the_change() -> None:
    """The paths above lead somewhere, and names that compile itself resolves are no errors."""
    description = changed(small_model(), "compile_config.metrics[0]", "acc")

    model = deserialize_keras_object(description)

    assert [layer.name for layer in model.layers] == list("abcd")


def test_an_unknown_name_says_where_the_known_ones_came_from() -> None:
    """The error names the source of each custom name: the argument, the scope, the line, the module objects."""
    get_custom_objects()["global_one"] = twice
    try:
        with (
            CustomObjectScope({"scoped": twice}, source="the test"),
            pytest.raises(ValueError, match="Unknown layer: given_on") as failure,
        ):
            deserialize_keras_object("given_on", {"given_too": twice}, {"given_one": twice}, "layer")
    finally:
        get_custom_objects().clear()

    message = str(failure.value)
    assert "Did you mean 'given_one' (custom_objects) or 'given_too' (module_objects)" in message
    assert f"'global_one' (get_custom_objects() at {__file__}:" in message
    assert "; 'scoped' (the test); 'given_one' (custom_objects)." in message


def nested(class_name: Any, **node: Any) -> dict[str, Any]:
    """A description inside another one, which must not hide it."""
    inner = {"module": "keras.layers", "class_name": class_name, "config": {}, "registered_name": None, **node}
    return old("TimeDistributed", layer=inner)


def calling(module: str | None, function: str) -> dict[str, Any]:
    """A Lambda layer with a function of a module."""
    part = {"module": module, "class_name": "function", "config": function, "registered_name": function}
    return nested("Lambda", config={"function": part})


def cycle() -> dict[str, Any]:
    """A description that contains itself."""
    description = old("TimeDistributed")
    description["config"]["layer"] = description
    return description


def deep(levels: int) -> dict[str, Any]:
    """Wrappers in wrappers."""
    description = old("Dense", units=1)
    for _ in range(levels):
        description = old("TimeDistributed", layer=description)
    return description


def deep_list(levels: int) -> list[Any]:
    """A list in lists."""
    nest: list[Any] = []
    for _ in range(levels):
        nest = [nest]
    return nest


NO_PART = "which is no part that Keras builds a model from"
HOSTILE: dict[str, tuple[Any, str]] = {
    "a cycle": (cycle(), "nested more than 150 levels deep, or contains itself: 'config.layer.config"),
    "deep wrappers": (deep(100_000), "nested more than 150 levels deep"),
    "a deep list": (old("Dense", units=deep_list(100_000)), "nested more than 150 levels deep"),
    "a huge class name": (nested("D" * 10**6), r"Unknown layer: 'D{37}\.\.\.D{38}' \(at config\.layer\)\."),
    "a huge name": ("D" * 10**6, r"Unknown object: 'D{37}\.\.\.D{38}'\."),
    "a huge key": (old("Dense", **{"k" * 10**6: nested("zz")}), r"at config\.'k{37}\.\.\.k{38}'\.config\.layer\)"),
    "a class of os": (nested("system", module="os"), "config.layer names 'system' of the module 'os'"),
    "a function of os": (calling("os", "system"), r"config\.layer\.config\.function names 'system' of the module 'os'"),
    "a function of Python": (calling("builtins", "eval"), "Unknown object: eval"),
    "the switch": (calling("keras.config", "enable_unsafe_deserialization"), NO_PART),
    "the switch as a class": (nested("enable_unsafe_deserialization", module="keras.config"), NO_PART),
    "the switch's private place": (
        nested("enable_unsafe_deserialization", module="keras.src.saving.serialization_lib"),
        NO_PART,
    ),
    "a function that writes": (calling("keras.utils", "plot_model"), NO_PART),
    "a function that loads": (calling("keras.models", "load_model"), NO_PART),
    "a function that downloads": (calling("keras.datasets.mnist", "load_data"), NO_PART),
    "a function that reads": (calling("keras.activations", "deserialize"), NO_PART),
    "a function that reads, without its module": (calling("builtins", "deserialize"), "Unknown object: deserialize"),
    "a function without a module": (calling(None, "relu"), "Unknown object: relu"),
    "a function whose name is a list": (
        nested("Lambda", config={"function": {"class_name": "function", "config": ["relu"], "module": "builtins"}}),
        r"config must be its name, but is \['relu'\]",
    ),
    "an attribute as a module": (nested("globals", module="keras.layers.Dense.__init__"), "Unknown layer: globals"),
    "a module that is not loaded": (nested("X", module="keras.src.backend.jax.trainer"), "Unknown layer: X"),
    "a SavedModel": (nested("TFSMLayer", config={"filepath": "x"}), "config.layer is a TFSMLayer, which loads"),
    "a SavedModel in 2.1's format": (old("TFSMLayer", filepath="x"), "the description is a TFSMLayer"),
    "a SavedModel by its private place": (
        nested("TFSMLayer", module="keras.src.export.tfsm_layer", config={"filepath": "x"}),
        "config.layer is a TFSMLayer, which loads",
    ),
    "a PyTorch module": (nested("TorchModuleWrapper", config={"module": "AAAA"}), "which unpickles a PyTorch module"),
    "a vocabulary": (nested("StringLookup", config={"vocabulary": "/etc/hosts"}), "which reads the file '/etc/hosts'"),
    "a vocabulary of text": (old("TextVectorization", vocabulary="/etc/hosts"), "which reads the file '/etc/hosts'"),
    "a vocabulary of numbers": (old("IntegerLookup", vocabulary="/etc/hosts"), "which reads the file '/etc/hosts'"),
    "byte code": (
        nested("Lambda", config={"function": {"class_name": "__lambda__", "config": {"code": "4w=="}}}),
        r"config\.layer\.config\.function is the byte code of a lambda",
    ),
    "byte code for a shape": (
        nested("Lambda", config={"output_shape": {"class_name": "__lambda__", "config": {"code": "4w=="}}}),
        r"config\.layer\.config\.output_shape is the byte code of a lambda",
    ),
    "a special name": (old("__import__", name="os"), "has the class name '__import__', which is none of __bytes__"),
    "a number as module": (nested("Dense", module=3), "config.layer has a module that is no text: 3"),
    "a list as class name": (nested(["Dense"]), r"config.layer has a class_name that is no text: \['Dense'\]"),
    "a dictionary as registered name": (nested("Dense", registered_name={}), "has a registered_name that is no text"),
    "a text as build_config": (nested("Dense", build_config="x"), "has a build_config that is no dictionary: 'x'"),
    "a list as compile_config": (nested("Dense", compile_config=[1]), r"has a compile_config that is no dict"),
    "a number as Sequential": (old("Sequential"), "must be a list of layers, but is a dict"),
    "an array without a value": (old("__numpy__"), "cannot make the object '__numpy__' from its config: KeyError"),
}


@pytest.fixture
def careless() -> Iterator[None]:
    """Keras was told to run whatever it reads."""
    keras.config.enable_unsafe_deserialization()
    yield
    keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_descriptions_are_clear_errors(case: str) -> None:
    """Each is one short ValueError that says where and what, even where Keras was told to allow it."""
    description, message = HOSTILE[case]
    modules = set(sys.modules)

    with pytest.raises(ValueError, match=message) as failure:
        deserialize_keras_object(description)

    assert len(str(failure.value)) < 600
    assert set(sys.modules) - modules <= {"reprlib"}
    assert dict(get_custom_objects()) == {}


@pytest.mark.parametrize("units", [None, "x", [], {}])
def test_a_configuration_that_does_not_suit_the_class(units: Any) -> None:
    """What the class refuses is a TypeError or ValueError, as the class says it."""
    with pytest.raises((TypeError, ValueError), match=r"units|dict"):
        deserialize_keras_object(nested("Dense", config={"units": units} if units is not None else 3))


def test_the_deepest_description_that_is_read() -> None:
    """Wrappers to a depth far beyond real models are read, and one more is refused before Keras sees it."""
    read = deserialize_keras_object(deep(74))

    for _ in range(74):
        read = read.layer
    assert isinstance(read, keras.layers.Dense)
    with pytest.raises(ValueError, match="nested more than 150 levels deep"):
        deserialize_keras_object(deep(75))


def test_a_vocabulary_in_the_description_is_read() -> None:
    """Only a file is refused."""
    layer = deserialize_keras_object(old("StringLookup", vocabulary=["a", "b"]))

    assert layer.get_vocabulary() == ["[UNK]", "a", "b"]


def test_a_vocabulary_file_is_read_when_asked_for(tmp_path: Path) -> None:
    """safe_mode=False lets the layer read its file."""
    (tmp_path / "words.txt").write_text("a\nb\n")
    description = old("StringLookup", vocabulary=str(tmp_path / "words.txt"))

    layer = deserialize_keras_object(description, safe_mode=False)

    assert layer.get_vocabulary() == ["[UNK]", "a", "b"]


def test_the_file_is_refused_of_module_objects_too() -> None:
    """A table of the caller's does not open the door."""
    with pytest.raises(ValueError, match=r"the description is a StringLookup, which reads the file"):
        deserialize_keras_object(old("StringLookup", vocabulary="/etc/hosts"), vars(keras.layers))


# --- what the caller allows ----------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """A package with a layer and a function, and the descriptions that name them."""
    package = tmp_path / "my_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text(
        "import keras\nfrom subprocess import Popen, run\n"
        "def thrice(x):\n    return 3 * x\n"
        "class Shift(keras.layers.Layer):\n    def call(self, x):\n        return x + 1\n"
        "class Plain:\n    pass\n"
    )
    (package / "broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    layer = {"module": "my_parts.layers", "class_name": "Shift", "config": {"name": "s"}, "registered_name": "Shift"}
    function = {"module": "builtins", "class_name": "function", "config": "thrice", "registered_name": "function"}
    yield types.SimpleNamespace(layer=layer, function=function)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        del sys.modules[name]


@pytest.mark.parametrize("allowed", [["my_parts.layers"], ("other", "my_parts")])
def test_an_allowed_module_gives_its_classes(library: Any, allowed: Any) -> None:
    """A class of an allowed module, or of a package's module, is imported and built, at any depth."""
    top = deserialize_keras_object(library.layer, allowed_modules=allowed)
    inside = deserialize_keras_object(old("TimeDistributed", layer=library.layer), allowed_modules=allowed)

    assert float(top(np.float32(1))) == 2.0
    assert type(inside.layer) is type(top)
    assert dict(get_custom_objects()) == {}


def test_an_allowed_module_gives_its_functions(library: Any) -> None:
    """Keras writes a function without its module, so that it is looked for in all modules that are allowed."""
    by_module = {**library.function, "module": "my_parts.layers"}
    descriptions = [nested("Activation", config={"activation": each}) for each in (library.function, by_module)]

    wrappers = [deserialize_keras_object(each, allowed_modules=["my_parts.layers"]) for each in descriptions]

    assert [float(wrapper.layer.activation(np.float32(2))) for wrapper in wrappers] == [6.0, 6.0]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"class_name": "Popen"}, "names 'Popen' of the module 'my_parts.layers', which defines no function and no"),
        ({"class_name": "function", "config": "run"}, "names 'run' of the module 'my_parts.layers', which defines no"),
        ({"class_name": "Plain"}, "no class with from_config of that name"),
        ({"class_name": "Missing"}, "which defines no function and no class"),
        ({"module": "my_parts.broken"}, "'my_parts.broken', which is allowed but cannot be imported: No module named"),
        ({"module": "my_parts.missing"}, "'my_parts.missing', which is allowed but cannot be imported"),
        ({"module": "my_parts_too"}, "the module 'my_parts_too', but only Keras's own modules are looked into"),
        ({"module": "os", "class_name": "function", "config": "system"}, "or name the module in allowed_modules"),
    ],
)
def test_only_what_an_allowed_module_defines_is_allowed(library: Any, node: dict[str, Any], message: str) -> None:
    """Neither what it imports, nor other modules, nor classes that Keras cannot build."""
    with pytest.raises(ValueError, match=message):
        deserialize_keras_object({**library.layer, **node}, allowed_modules=["my_parts"])


def test_modules_are_not_imported_unless_they_are_allowed(library: Any) -> None:
    """Naming a module in a description does nothing by itself."""
    with pytest.raises(ValueError, match=r"'my_parts\.layers', but only Keras's own modules are looked into"):
        deserialize_keras_object(library.layer)

    assert "my_parts" not in sys.modules


def test_custom_objects_win_over_allowed_modules(library: Any) -> None:
    """What is given explicitly is not looked for elsewhere, nor imported."""
    layer = deserialize_keras_object(
        {**library.layer, "config": {"shift": 3.0}}, None, {"Shift": Affine}, allowed_modules=["my_parts"]
    )

    assert (type(layer), layer.shift) == (Affine, 3.0)
    assert "my_parts" not in sys.modules


def test_allowed_modules_is_no_single_text() -> None:
    """A text would be a list of letters."""
    with pytest.raises(TypeError, match="allowed_modules is the text 'my_parts'; give a list of module names"):
        deserialize_keras_object("relu", allowed_modules="my_parts")


def test_an_operation_is_not_taken_for_a_custom_object_of_its_name() -> None:
    """Keras writes operations as if they were registered; a layer of the name does not replace them."""
    x = keras.Input((2,))
    description = serialize_keras_object(keras.Model(x, keras.ops.square(x)))

    model = deserialize_keras_object(description, custom_objects={"Square": Affine})

    np.testing.assert_array_equal(model(np.array([[2.0, 3.0]])), [[4.0, 9.0]])


def written_lambda(path: Path) -> Any:
    """Keras 3's description of a layer whose lambda would leave a directory behind."""
    layer = keras.layers.Lambda(lambda x, to=str(path): (__import__("os").makedirs(to, exist_ok=True), x)[1])
    return keras.saving.serialize_keras_object(layer)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_lambdas_are_refused_with_their_path(tmp_path: Path, depth: int) -> None:
    """Byte code is refused wherever it is, even where Keras was told to allow it."""
    description = written_lambda(tmp_path / "ran")
    for _ in range(depth):
        description = old("TimeDistributed", layer=description)
    where = "^" + r"config\.layer\." * depth + r"config\.function"

    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match=where + " is the byte code of a lambda"):
            deserialize_keras_object(description)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)

    assert list(tmp_path.iterdir()) == []


def test_lambdas_run_only_when_asked_for(tmp_path: Path) -> None:
    """safe_mode=False reads the byte code, for this call only."""
    layer = deserialize_keras_object(written_lambda(tmp_path / "ran"), safe_mode=False)
    result = layer(np.float32(4))

    assert float(result) == 4.0
    assert (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="byte code of a lambda"):
        deserialize_keras_object(written_lambda(tmp_path / "ran"))


@pytest.mark.parametrize("module", ["trap", "os", "keras_hub.trap", "kerastrap", ".keras", ""])
@pytest.mark.parametrize("class_name", ["Trap", "function"])
def test_other_modules_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, class_name: str
) -> None:
    """A description cannot make a module run, nor name what a loaded one has."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    description = {"module": module, "class_name": class_name, "config": "system", "registered_name": "Trap"}

    with pytest.raises(ValueError, match=rf"config\.layer names .* of the module '{module}'.*custom_objects"):
        deserialize_keras_object(old("TimeDistributed", layer=description))

    assert "trap" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["utils.get_file", "config.enable_unsafe_deserialization", "models.load_model"])
def test_functions_of_keras_that_are_no_parts_of_models_are_refused(name: str) -> None:
    """Downloading and loading cannot be smuggled in as a layer's function."""
    module, function = f"keras.{name}".rsplit(".", 1)
    part = {"module": module, "class_name": "function", "config": function, "registered_name": function}

    with pytest.raises(ValueError, match=r"function names keras.* no part that Keras builds a model from"):
        deserialize_keras_object(old("Lambda", function=part))
