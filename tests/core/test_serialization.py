"""Objects of Keras survive a round trip through plain data, and data cannot run code."""

import inspect
import json
import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.core.objects import CustomObjectScope, get_custom_objects
from kflow.core.objects.lookup import built_in_objects
from kflow.core.serialization import deserialize_keras_object, serialize_keras_object
from tests.core.sample_parts import Affine, old, twice

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


def thrice(x: Any) -> Any:
    return 3 * x


class OtherAffine(Affine):
    """The same under another name."""


def through_json(description: Any) -> Any:
    """What a description is after it was stored as JSON text."""
    return json.loads(json.dumps(description))


def round_trip(instance: Any, **kwargs: Any) -> Any:
    return deserialize_keras_object(through_json(serialize_keras_object(instance)), **kwargs)


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


@pytest.mark.parametrize("operation", [keras.ops.sin, keras.ops.gelu, keras.ops.swish], ids=lambda each: each.__name__)
def test_functions_of_keras_ops_keep_their_module(operation: Any) -> None:
    """By themselves, in lists and in layers: their names alone are found nowhere, or are those of activations."""
    layer = keras.layers.Dense(1, activation=operation)

    by_itself, inside, as_part = round_trip(operation), round_trip([operation]), round_trip(layer)

    assert by_itself is inside[0] is as_part.activation is operation
    assert round_trip(keras.layers.Lambda(operation, mask=operation)).function is operation
    assert keras.saving.deserialize_keras_object(serialize_keras_object(layer)).activation is operation
    with pytest.raises(ValueError, match=r"the function keras\.ops\.\w+ has no form in the format of Keras 2\.1"):
        serialize_keras_object(layer, keras_version=2)


def test_the_default_format_is_that_of_keras_3() -> None:
    """What is written can be read by Keras itself, and has what Keras 2.1 wrote in the same places."""
    layer = keras.layers.Dense(3, activation="relu")

    description = serialize_keras_object(layer)

    assert description == keras.saving.serialize_keras_object(layer)
    assert description.keys() > {"class_name", "config"}
    assert (description["class_name"], description["config"]["units"]) == ("Dense", 3)


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


# --- plain values and random objects ---------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.just("relu")
)
KEYS = st.one_of(st.text(max_size=5), st.sampled_from(["class_name", "module", "name", "activation"]))
PLAIN = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4))
)


@given(st.lists(PLAIN, max_size=4))
def test_plain_values_survive_a_round_trip(values: list[Any]) -> None:
    """Numbers, texts, lists and dicts come back equal, also when a text is the name of something."""
    written = serialize_keras_object(values)

    assert written == values
    assert deserialize_keras_object(through_json(written)) == values
    assert deserialize_keras_object(through_json(serialize_keras_object(values, keras_version=2))) == values


@pytest.mark.parametrize("value", [3, -1.5, True, float("inf"), (1, ("a", 2)), {}, [], {"a": [1]}])
def test_a_plain_value_by_itself(value: Any) -> None:
    """A value comes back as it is, tuples included where no JSON is in between."""
    restored = deserialize_keras_object(serialize_keras_object(value))

    assert restored == value
    assert type(restored) is type(value)


@pytest.mark.parametrize(
    "value", [b"bytes", slice(1, None, 2), ..., np.arange(6).reshape(2, 3), np.array([0.5], np.float32)], ids=repr
)
def test_values_that_json_has_not_survive_a_round_trip(value: Any) -> None:
    """Bytes, slices, the ellipsis and arrays are described, alone and in a list."""
    alone, inside = round_trip(value), round_trip([value])[0]

    for restored in (alone, inside):
        assert type(restored) is type(value)
        np.testing.assert_equal(restored, value)
        assert getattr(restored, "dtype", None) == getattr(value, "dtype", None)


def test_tensors_and_scalars() -> None:
    """A tensor comes back as a tensor, a scalar of NumPy as Python's number."""
    tensor = round_trip(keras.ops.convert_to_tensor([1.0, 2.0]))
    scalar = round_trip(np.float32(0.5))

    np.testing.assert_array_equal(tensor, [1.0, 2.0])
    assert keras.ops.is_tensor(tensor)
    assert type(scalar) is float
    assert scalar == 0.5


def test_objects_and_functions_in_containers_survive_a_round_trip() -> None:
    """Where texts are texts, functions are described, so that both come back as what they were."""
    given_values = {"layers": [keras.layers.Dense(3), twice, "twice", keras.activations.relu], "none": None}

    restored = round_trip(given_values, custom_objects={"twice": twice})

    assert restored["layers"][0].get_config() == given_values["layers"][0].get_config()
    assert restored["layers"][1:] == [twice, "twice", keras.activations.relu]
    assert restored["none"] is None


def test_what_contains_itself_is_not_written() -> None:
    """A cycle is an error and not the end of the stack."""
    cycle: list[Any] = []
    cycle.append(cycle)

    with pytest.raises(ValueError, match=r"cannot serialize \[.*: it is nested too deeply, or contains itself"):
        serialize_keras_object(cycle)


NUMBERS = st.sampled_from([0.0, 0.25, 0.5])
INITIALIZERS = st.one_of(
    st.sampled_from(["zeros", "he_normal", "Orthogonal"]),
    st.builds(keras.initializers.VarianceScaling, scale=st.sampled_from([0.5, 2.0]), seed=st.integers(0, 9)),
)
REGULARIZERS = st.one_of(st.none(), st.just("l2"), st.builds(keras.regularizers.L1L2, l1=NUMBERS, l2=NUMBERS))
CONSTRAINTS = st.one_of(st.none(), st.just("non_neg"), st.builds(keras.constraints.MaxNorm, max_value=NUMBERS))
ACTIVATIONS = st.sampled_from([None, "relu", keras.activations.gelu, twice])
WEIGHTS = {
    "activation": ACTIVATIONS,
    "kernel_initializer": INITIALIZERS,
    "kernel_regularizer": REGULARIZERS,
    "bias_constraint": CONSTRAINTS,
    "use_bias": st.booleans(),
    "dtype": st.sampled_from(["float32", "mixed_float16"]),
}
SIZES = st.integers(1, 9)
# Classes with their arguments: layers draw random numbers when they are made, which a strategy must not.
RECIPES = st.one_of(
    st.tuples(st.just(keras.layers.Dense), st.tuples(SIZES), st.fixed_dictionaries(WEIGHTS)),
    st.tuples(st.just(keras.layers.Conv1D), st.tuples(SIZES, SIZES), st.fixed_dictionaries(WEIGHTS)),
    st.tuples(st.just(keras.layers.GRU), st.tuples(SIZES), st.fixed_dictionaries(WEIGHTS)),
    st.tuples(st.just(Affine), st.tuples(NUMBERS, ACTIVATIONS), st.just({})),
)


@settings(max_examples=40, deadline=None)
@given(RECIPES, st.booleans(), st.sampled_from([2, 3]))
def test_random_layers_survive_a_round_trip(recipe: tuple[Any, ...], is_wrapped: bool, keras_version: Any) -> None:
    """In both formats a layer comes back as Keras's own round trip gives it."""
    make, positional, keywords = recipe
    layer = make(*positional, **keywords)
    layer = keras.layers.TimeDistributed(layer) if is_wrapped else layer
    custom = {"Affine": Affine, "twice": twice}
    with keras.saving.custom_object_scope(custom):
        expected = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))

    description = through_json(serialize_keras_object(layer, keras_version=keras_version))
    restored = deserialize_keras_object(description, custom_objects=custom)

    assert type(restored) is type(layer)
    assert restored.get_config() == expected.get_config() == layer.get_config()


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
        (object(), r"cannot serialize <object .*, a object: .* must implement the `get_config\(\)` method"),
        (1j, r"cannot serialize 1j, a complex"),
        (b"\xff", r"cannot serialize b'\\xff', a bytes: 'utf-8' codec"),
        (np.array(["a"]), r"cannot serialize array\(\['a'\].*, a ndarray: Invalid dtype"),
        (tf.TensorSpec((2,)), r"description is a TypeSpec, which Keras cannot read"),
        ("relu", r"cannot serialize the text 'relu': by itself it would be read as a name"),
        (
            np.array("relu"),
            r"array\('relu'.*, a ndarray: by itself it would become the text 'relu' and be read as a name",
        ),
        (tf.float32, r"tf\.float32, a DType: by itself it would become the text 'float32'"),
        (len, r"it is not written in Python, and not found by name; call it in a function of yours"),
        (np.sin, r"<ufunc 'sin'>: it is not written in Python"),
        ([len], r"it is not written in Python"),
        (keras.saving.load_model, r"it is a function of Keras that is no part of models"),
        ({"config": 1}, r"with the key class_name or config: it would be read as a description"),
        ([{"class_name": 1, "config": 1}], r"its keys must be texts, and not those of a description"),
        ([{1: 2}], r"its keys must be texts"),
        ([[keras.layers.Dense]], r"cannot serialize the class Dense: pass an instance"),
        ([lambda x: x], r"a lambda cannot be found by name"),
        (Fails(), r"no configuration"),
        (
            keras.layers.Dense(1, activation=HasLambda().call),
            r"config\.activation is 'call', a method, which has no",
        ),
        (keras.layers.Activation(np.tanh), r"cannot serialize <Activation.*ufunc"),
        (keras, r"description is 'keras', a module, which has no get_config\(\)"),
        ((each for each in [1]), r"description is .*, a generator, which has no get_config\(\)"),
        ([tf.constant([["a"]])], r"description\.config\.value\[0\]\[0\] is b'a', a bytes, which JSON cannot hold"),
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


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0,), (0, 0)])
def test_the_shape_of_an_array_without_entries_comes_back(shape: tuple[int, ...]) -> None:
    """Empty lists alone do not tell it."""
    values = [np.zeros(shape, "float16"), keras.ops.zeros(shape, "int32")]

    array, tensor = deserialize_keras_object(json.loads(json.dumps(serialize_keras_object(values))))

    assert (array.shape, array.dtype) == (shape, np.float16)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, tf.int32)


@pytest.mark.parametrize("argument", ["module_objects", "custom_objects"])
@pytest.mark.parametrize("given", [["a"], [], "a"])
def test_objects_that_are_no_dictionary_are_refused(argument: str, given: Any) -> None:
    """The argument is named."""
    with pytest.raises(TypeError, match=rf"{argument} is .*; give a dictionary that maps names to classes or func"):
        deserialize_keras_object("relu", **{argument: given})
