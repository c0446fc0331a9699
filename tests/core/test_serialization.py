"""Objects of Keras survive a round trip through plain data, and data cannot run code."""

import copy
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.objects import CustomObjectScope, built_in_objects, get_custom_objects
from kflow.core.serialization import deserialize_keras_object, serialize_keras_object

# The stateless classes of Keras that need no argument, by public module.
PLAIN_CLASSES = [
    (module, name)
    for module in ("optimizers", "losses", "metrics", "initializers", "regularizers", "constraints")
    for name, value in sorted(vars(getattr(keras, module)).items())
    if inspect.isclass(value)
    and name == value.__name__
    and all(
        parameter.default is not inspect.Parameter.empty or parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(value).parameters.values()
    )
    # The abstract ones, and one that needs SciPy.
    and name not in ("Optimizer", "Loss", "Metric", "Initializer", "Regularizer", "Constraint", "STFT")
]


def twice(x: Any) -> Any:
    return 2 * x


def thrice(x: Any) -> Any:
    return 3 * x


class Affine(keras.layers.Layer):
    """Applies a function, then adds a constant."""

    def __init__(self, shift: float = 0.0, function: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = shift
        self.function = keras.activations.get(function)

    def call(self, x: Any) -> Any:
        """Apply and add."""
        return self.function(x) + self.shift

    def get_config(self) -> dict[str, Any]:
        """Return the constant and the function's name too."""
        function = keras.activations.serialize(self.function)
        return {**super().get_config(), "shift": self.shift, "function": function}


class OtherAffine(Affine):
    """The same under another name."""


def through_json(description: Any) -> Any:
    """What a description is after it was stored as JSON text."""
    return json.loads(json.dumps(description))


def round_trip(instance: Any, **kwargs: Any) -> Any:
    return deserialize_keras_object(through_json(serialize_keras_object(instance)), **kwargs)


def old(class_name: str, **config: Any) -> dict[str, Any]:
    """A description as Keras 2.1 wrote it."""
    return {"class_name": class_name, "config": config}


@pytest.mark.parametrize(("module", "name"), PLAIN_CLASSES)
def test_every_simple_class_survives_a_round_trip(module: str, name: str) -> None:
    """Everything but layers comes back with an equal configuration."""
    instance = getattr(getattr(keras, module), name)()

    restored = round_trip(instance)

    assert type(restored) is type(instance)
    assert restored.get_config() == instance.get_config()


@pytest.mark.parametrize(("module", "name"), PLAIN_CLASSES)
def test_every_simple_class_is_found_without_a_module(module: str, name: str) -> None:
    """The 2.1 format, in which no module is named, finds the class; the noun tells losses from metrics."""
    instance = getattr(getattr(keras, module), name)()
    description = through_json(old(name, **keras.saving.serialize_keras_object(instance)["config"]))
    # "losses" -> "loss", "metrics" -> "metric"
    noun = module.removesuffix("es") if module == "losses" else module.removesuffix("s")

    restored = deserialize_keras_object(description, printable_module_name=noun)

    assert type(restored) is type(instance)
    assert restored.get_config() == instance.get_config()


def test_the_list_of_simple_classes_is_not_empty_by_mistake() -> None:
    """The two tests above cover most of each module."""
    counts = {module: sum(1 for each, _ in PLAIN_CLASSES if each == module) for module, _ in PLAIN_CLASSES}

    assert counts["optimizers"] >= 10
    assert counts["losses"] >= 20
    assert counts["metrics"] >= 20
    assert counts["initializers"] >= 10
    assert {"regularizers", "constraints"} <= counts.keys()


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.Conv2D(4, (3, 2), strides=2, padding="same", kernel_initializer="he_normal"),
        keras.layers.TimeDistributed(keras.layers.Dense(2)),
        keras.layers.Bidirectional(keras.layers.LSTM(3)),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.Activation(keras.activations.gelu),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_survive_a_round_trip(layer: keras.layers.Layer) -> None:
    """Layers with parts come back with equal configurations."""
    restored = round_trip(layer)

    assert type(restored) is type(layer)
    assert restored.get_config() == layer.get_config()


def test_a_built_layer_comes_back_built() -> None:
    """Keras 3's build_config is used, so that weights can be set."""
    layer = keras.layers.Dense(3)
    layer.build((None, 2))

    restored = round_trip(layer)
    restored.set_weights(layer.get_weights())

    np.testing.assert_array_equal(restored(np.ones((1, 2))), layer(np.ones((1, 2))))


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_compiled_models_survive_a_round_trip(kind: str) -> None:
    """A model comes back with its architecture and its compile arguments, custom parts included."""
    inputs = keras.Input((2,), name="x")
    outputs = Affine(shift=1.0, function=twice)(keras.layers.Dense(2)(inputs))
    model: keras.Model = (
        keras.Model(inputs, outputs)
        if kind == "functional"
        else keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), Affine(shift=1.0, function=twice)])
    )
    model.compile(keras.optimizers.Adam(0.125), "mse", metrics=["mae"])
    x = np.array([[1.0, 2.0]])

    restored = round_trip(model, custom_objects={"Affine": Affine, "twice": twice})
    restored.set_weights(model.get_weights())

    np.testing.assert_array_equal(restored(x), model(x))
    assert float(restored.optimizer.learning_rate) == 0.125
    assert restored.evaluate(x, x, verbose=0) == model.evaluate(x, x, verbose=0)


@pytest.mark.parametrize(
    "function",
    [keras.activations.relu, keras.losses.mean_squared_error, keras.metrics.categorical_accuracy],
)
def test_functions_of_keras_are_their_names(function: Any) -> None:
    """A function of Keras becomes its name and is found again."""
    name = serialize_keras_object(function)

    assert name == function.__name__
    assert deserialize_keras_object(name) is function


def test_custom_functions_are_their_names() -> None:
    """A function of one's own becomes its name, which a scope or custom_objects resolves."""
    name = serialize_keras_object(twice)

    with CustomObjectScope({"twice": twice}):
        in_scope = deserialize_keras_object(name)

    assert name == "twice"
    assert in_scope is twice
    assert deserialize_keras_object(name, custom_objects={"twice": twice}) is twice


def test_registered_functions_and_classes_survive_a_round_trip() -> None:
    """What is registered with Keras by package and name is found under it."""
    with CustomObjectScope():
        keras.saving.register_keras_serializable("house", "second")(twice)
        keras.saving.register_keras_serializable("house", "shifted")(Affine)
        name, description = serialize_keras_object(twice), serialize_keras_object(Affine(2.5, twice))
        restored = deserialize_keras_object(name), deserialize_keras_object(through_json(description))

    assert name == "house>second"
    assert description["registered_name"] == "house>shifted"
    assert restored[0] is twice
    assert (type(restored[1]), restored[1].shift, restored[1].function) == (Affine, 2.5, twice)


def test_a_registered_function_that_was_written_without_its_package() -> None:
    """Keras up to 3.6 wrote the bare name of a registered function, which is found by the name's end."""
    part = {"module": "builtins", "class_name": "function", "config": "second", "registered_name": "function"}
    description = {**serialize_keras_object(keras.layers.Lambda(twice))}
    description["config"] = {**description["config"], "function": part}

    layer = deserialize_keras_object(description, custom_objects={"house>second": twice})

    assert layer.function is twice


def test_none_is_none() -> None:
    """None describes and is described by None."""
    assert serialize_keras_object(None) is None
    assert deserialize_keras_object(None) is None


class HasLambda(keras.layers.Layer):
    """Has a lambda among its parts."""

    def get_config(self) -> dict[str, Any]:
        """Return it."""
        return {"inner": [{"function": lambda x: x}]}


class Fails(keras.layers.Layer):
    """Has no configuration."""

    def get_config(self) -> dict[str, Any]:
        """Fail."""
        raise NotImplementedError("no configuration")


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (lambda x: x, r"lambda cannot be found by name; use a function with a name"),
        (keras.layers.Lambda(lambda x: x), r"description\.config\.function is a lambda"),
        (keras.layers.Dense, r"cannot serialize the class Dense: pass an instance"),
        (object(), r"no get_config\(\) and no name"),
        (3, r"cannot serialize 3, a int"),
        (Fails(), r"no configuration"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(instance: Any, message: str) -> None:
    """Classes, lambdas and things without a configuration are errors that say what to do."""
    with pytest.raises(ValueError, match=message):
        serialize_keras_object(instance)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`:UserWarning")
def test_a_lambda_deep_inside_is_located() -> None:
    """The message gives the path of a lambda in a list of a configuration."""
    with pytest.raises(ValueError, match=r"description\.config\.inner\[0\]\.function is a lambda"):
        serialize_keras_object(HasLambda())


def test_a_function_that_has_a_name_of_keras_is_not_written() -> None:
    """One's own function named relu would be read back as Keras's."""

    def relu(x: Any) -> Any:
        return x

    with pytest.raises(ValueError, match=r"its name 'relu' means <function relu"):
        serialize_keras_object(relu)


def test_the_look_up_order() -> None:
    """custom_objects win over scopes, these over the global dictionary, and that over module_objects."""
    one, two, three, four = (type(name, (Affine,), {}) for name in "ABCD")

    def found(module: dict[str, Any] | None, custom: dict[str, Any] | None) -> list[object]:
        description = old("Name")
        new_format = {**description, "module": "x", "registered_name": "Name"}
        return [
            deserialize_keras_object("Name", module, custom),
            type(deserialize_keras_object(description, module, custom)),
            type(deserialize_keras_object(new_format, module, custom)),
        ]

    order = [found({"Name": four}, None)]
    get_custom_objects()["Name"] = three
    try:
        order.append(found({"Name": four}, None))
        with CustomObjectScope({"Name": two}):
            order += [found({"Name": four}, None), found({"Name": four}, {"Name": one})]
    finally:
        get_custom_objects().clear()

    assert order == [[four] * 3, [three] * 3, [two] * 3, [one] * 3]


def test_module_objects_come_before_keras() -> None:
    """A caller's table decides for a name of Keras too, even if the description names Keras's module."""
    description = serialize_keras_object(keras.layers.Dense(3))

    layer = deserialize_keras_object(description, {"Dense": type("Mine", (keras.layers.Dense,), {})})

    assert type(layer).__name__ == "Mine"
    assert layer.units == 3


def test_custom_objects_win_inside_a_description_over_a_global_of_the_name() -> None:
    """An explicit object beats a stale global one at every depth, where Keras 3 prefers the global one."""
    model = keras.Sequential([keras.Input((2,)), Affine(1.0)])
    description = serialize_keras_object(model)
    get_custom_objects()["Affine"] = OtherAffine

    try:
        explicit = deserialize_keras_object(description, custom_objects={"Affine": Affine})
        stale = deserialize_keras_object(description)
    finally:
        get_custom_objects().clear()

    assert type(explicit.layers[0]) is Affine
    assert type(stale.layers[0]) is OtherAffine


def test_strings_are_returned_as_found() -> None:
    """A class found by its name is not instantiated, as in 2.1."""
    assert deserialize_keras_object("Affine", {"Affine": Affine}) is Affine
    assert deserialize_keras_object("L1L2") is keras.regularizers.L1L2


@pytest.mark.parametrize(
    ("identifier", "kwargs", "message"),
    [
        ("Afine", {"module_objects": {"Affine": Affine}}, r"Unknown object: Afine\. Did you mean 'Affine'\?"),
        ("twcie", {"custom_objects": {"twice": twice}}, r"Unknown object: twcie\. Did you mean 'twice'\?"),
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
            r"Unknown object: Dens \(at identifier\)\. Did you mean",
        ),
        ({**old("Mine"), "module": None}, {}, r"Unknown object: Mine"),
        (
            old("TimeDistributed", layer=old("Dens", units=2)),
            {"printable_module_name": "layer"},
            r"Unknown layer: Dens \(at identifier\.config\.layer\)",
        ),
        (
            {"class_name": "function", "config": "rleu", "module": "builtins"},
            {},
            r"Unknown object: rleu \(at identifier\)\. Did you mean 'relu'",
        ),
    ],
)
def test_unknown_names_are_errors_with_suggestions(identifier: Any, kwargs: dict[str, Any], message: str) -> None:
    """An unknown name is a ValueError that says where it is and which names are like it."""
    with pytest.raises(ValueError, match=message):
        deserialize_keras_object(identifier, **kwargs)


@pytest.mark.parametrize("identifier", [{}, {"class_name": "Dense"}, {"config": {}}, {"class_name": 3, "config": {}}])
def test_improper_dictionaries(identifier: dict[str, Any]) -> None:
    """A dictionary must have class_name and config."""
    with pytest.raises(ValueError, match=r"Improper config format: .*serialized layer is a dictionary with"):
        deserialize_keras_object(identifier, printable_module_name="layer")


@pytest.mark.parametrize("identifier", [3, 1.5, ["Dense"], twice, b"Dense", object()])
def test_other_identifiers(identifier: Any) -> None:
    """Neither a name nor a dictionary is a ValueError, which in 2.1 was meant but failed itself."""
    with pytest.raises(ValueError, match=r"Could not interpret serialized loss: .*expected a name"):
        deserialize_keras_object(identifier, printable_module_name="loss")


def test_a_factory_without_from_config_is_called_with_the_config() -> None:
    """As in 2.1, a function stands for its result."""

    def make(shift: float) -> Affine:
        return Affine(shift)

    made = deserialize_keras_object(old("make", shift=4.0), {"make": make})

    assert made.shift == 4.0


def test_from_config_gets_the_custom_objects_if_it_wants_them() -> None:
    """As in 2.1, a from_config with that argument gets the global names merged with the explicit ones."""

    class Wants:
        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any]) -> tuple[Any, ...]:
            return config, custom_objects["g"], custom_objects["f"]

    get_custom_objects().update({"g": twice, "f": twice})
    try:
        made = deserialize_keras_object(old("Wants", a=1), {"Wants": Wants}, {"f": thrice})
    finally:
        get_custom_objects().clear()

    assert made == ({"a": 1}, twice, thrice)


def test_from_config_without_that_argument_runs_in_a_scope() -> None:
    """Otherwise the names are open while from_config runs, and gone after it."""
    layer = deserialize_keras_object(old("Affine", function="twice"), {"Affine": Affine}, {"twice": twice})

    assert layer.function is twice
    assert dict(get_custom_objects()) == {}


def old_dense(name: str, units: int, **config: Any) -> dict[str, Any]:
    """A Dense layer as Keras 2.1.3 wrote it."""
    initializer = old("VarianceScaling", scale=1.0, mode="fan_avg", distribution="uniform", seed=None)
    return old(
        "Dense",
        name=name,
        trainable=True,
        units=units,
        activation="relu",
        use_bias=True,
        kernel_initializer=initializer,
        bias_initializer=old("Zeros"),
        kernel_regularizer=old("L1L2", l1=0.0, l2=0.25),
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=old("MaxNorm", max_value=2, axis=0),
        bias_constraint=None,
        **config,
    )


def test_a_sequential_model_of_keras_2() -> None:
    """A bare list of layers, the first of which has the input's shape, becomes a built model."""
    description = {
        "class_name": "Sequential",
        "config": [
            old_dense("first", 4, batch_input_shape=[None, 3], dtype="float32"),
            old("Dropout", name="drop", trainable=True, rate=0.5, noise_shape=None, seed=None),
            old_dense("second", 2),
        ],
    }

    model = deserialize_keras_object(description, printable_module_name="layer")

    assert [layer.name for layer in model.layers] == ["first", "drop", "second"]
    assert model.input_shape == (None, 3)
    assert model.count_params() == (3 * 4 + 4) + (4 * 2 + 2)
    assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L1L2)
    assert float(model.layers[0].kernel_regularizer.l2) == 0.25
    assert isinstance(model.layers[2].kernel_constraint, keras.constraints.MaxNorm)


def test_a_functional_model_of_keras_2() -> None:
    """The class Model with layers, nodes and outputs becomes a working model; wrapped layers are read too."""
    shape = {"batch_input_shape": [None, 5, 3], "dtype": "float32", "sparse": False, "name": "x"}
    description = old(
        "Model",
        name="net",
        layers=[
            {"name": "x", **old("InputLayer", **shape), "inbound_nodes": []},
            {
                "name": "each",
                **old("TimeDistributed", name="each", trainable=True, layer=old_dense("inner", 4)),
                "inbound_nodes": [[["x", 0, 0, {}]]],
            },
            {
                "name": "own",
                **old("Affine", name="own", shift=1.0, function="twice"),
                "inbound_nodes": [[["each", 0, 0, {}]]],
            },
        ],
        input_layers=[["x", 0, 0]],
        output_layers=[["own", 0, 0]],
    )

    model = deserialize_keras_object(description, custom_objects={"Affine": Affine, "twice": twice})
    x = np.ones((2, 5, 3), np.float32)
    kernel, bias = model.get_weights()

    expected = 2 * np.maximum(x @ kernel + bias, 0) + 1
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)


def test_an_optimizer_of_keras_2() -> None:
    """The learning rate was called lr."""
    description = old("SGD", lr=0.25, momentum=0.5, decay=0.0, nesterov=True)

    optimizer = deserialize_keras_object(description)

    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.momentum, optimizer.nesterov) == (0.5, True)


def test_a_lambda_layer_of_keras_2_with_a_named_function() -> None:
    """A named function is found among the custom objects."""
    description = old(
        "Lambda",
        name="l",
        function="twice",
        function_type="function",
        output_shape=None,
        output_shape_type="raw",
        arguments={},
    )

    layer = deserialize_keras_object(description, custom_objects={"twice": twice})

    assert float(layer(np.float32(4))) == 8.0


def test_the_description_is_not_changed() -> None:
    """Reading leaves the caller's dictionary as it was, in both formats."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    descriptions = [
        serialize_keras_object(model),
        {"class_name": "Sequential", "config": [old_dense("first", 4, batch_input_shape=[None, 3])]},
        old("SGD", lr=0.25, decay=0.0),
    ]
    before = copy.deepcopy(descriptions)

    for description in descriptions:
        deserialize_keras_object(description)

    assert descriptions == before


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
    where = r"identifier" + r"\.config\.layer" * depth + r"\.config\.function"

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


@pytest.mark.parametrize("module_objects", [None, vars(keras.layers)])
def test_lambdas_of_keras_2_are_refused(module_objects: Any) -> None:
    """The byte code of another Python cannot be read at all."""
    description = old("Lambda", function=["4wEAAAABAAAA\n", None, None], function_type="lambda")

    with pytest.raises(ValueError, match="byte code of Keras 2 cannot be read"):
        deserialize_keras_object(description, module_objects, safe_mode=False)


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

    with pytest.raises(ValueError, match="not a modeling function"):
        deserialize_keras_object(old("Lambda", function=part))


def test_dictionaries_inside_a_custom_class_are_its_own_business() -> None:
    """A configuration of one's own may hold what looks like a description of something unknown."""

    class Holder:
        def __init__(self, data: Any) -> None:
            self.data = data

    data = {"class_name": "Anything", "config": {"a": (1, 2)}}

    assert deserialize_keras_object(old("Holder", data=data), {"Holder": Holder}).data == data


@given(st.sampled_from(sorted(built_in_objects()["keras.layers"])), st.integers(0, 20), st.characters())
def test_a_mistyped_layer_is_never_found_silently(name: str, position: int, character: str) -> None:
    """A name with one character changed is an error, or the name of another object of Keras."""
    changed = name[:position] + character + name[position + 1 :]
    meanings = [table[changed] for table in built_in_objects().values() if changed in table]

    if meanings:
        assert any(deserialize_keras_object(changed) is meaning for meaning in meanings)
    else:
        with pytest.raises(ValueError, match=re.escape(f"Unknown object: {changed}.")):
            deserialize_keras_object(changed)
