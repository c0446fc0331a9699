"""Models inside models: Keras 2 numbers the calls of a model from 1, because its own inputs are its call 0."""

from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.serialization import deserialize_keras_object, serialize_keras_object
from tests.core.sample_parts import old

X = np.arange(8, dtype="float32").reshape(2, 4)
Y = np.flip(X, axis=1) ** 2


def call(layer: str, number: int) -> list[Any]:
    """The first result of a call of a layer, as a part of what another is called with."""
    return [layer, number, 0, {}]


def node(description: dict[str, Any], name: str, *inbound: list[Any]) -> dict[str, Any]:
    """A layer of a functional model of Keras 2.1 with its calls."""
    return {"name": name, **description, "inbound_nodes": list(inbound)}


def dense(name: str, **config: Any) -> dict[str, Any]:
    return old("Dense", name=name, trainable=True, units=4, activation="linear", use_bias=False, **config)


def entry(name: str) -> dict[str, Any]:
    return node(old("InputLayer", batch_input_shape=[None, 4], dtype="float32", sparse=False, name=name), name)


def model(name: str, layers: list[Any], inputs: list[str], *outputs: list[Any]) -> dict[str, Any]:
    ends = {"input_layers": [[each, 0, 0] for each in inputs], "output_layers": [list(each[:3]) for each in outputs]}
    return old("Model", name=name, layers=layers, **ends)


def functional(name: str = "inner") -> dict[str, Any]:
    """A model of one layer, by which its input is multiplied."""
    return model(name, [entry("i"), node(dense("d"), "d", [call("i", 0)])], ["i"], call("d", 0))


def sequential(_: str = "inner") -> dict[str, Any]:
    """The same, as the list of layers that Keras 2.1 wrote."""
    return {"class_name": "Sequential", "config": [dense("d", batch_input_shape=[None, 4], dtype="float32")]}


def named_sequential(name: str = "inner") -> dict[str, Any]:
    """The same, as Keras 2.2 wrote it."""
    return old("Sequential", name=name, layers=sequential()["config"], build_input_shape=[None, 4])


def read(description: dict[str, Any]) -> keras.Model:
    """The model, with the weights 0, 1, 2 and so on in each kernel."""
    built: keras.Model = deserialize_keras_object(description)
    built.set_weights([np.arange(each.size, dtype="float32").reshape(each.shape) for each in built.get_weights()])
    return built


KERNEL = np.arange(16, dtype="float32").reshape(4, 4)
NESTED = [functional, sequential, named_sequential]


@pytest.mark.parametrize("first", [1, 0])
@pytest.mark.parametrize("inner", NESTED)
def test_a_model_that_is_called_by_another(inner: Any, first: int) -> None:
    """It is read with Keras 2's numbers, and with those of tf.keras, where some models start at 0."""
    layers = [entry("a"), node(inner(), "inner", [call("a", 0)]), node(dense("o"), "o", [call("inner", first)])]

    outer = read(model("outer", layers, ["a"], call("o", 0)))

    assert [layer.name for layer in outer.layers] == ["a", "inner", "o"]
    np.testing.assert_allclose(outer(X), X @ KERNEL @ KERNEL)


@pytest.mark.parametrize("first", [1, 0])
@pytest.mark.parametrize("inner", NESTED)
def test_a_model_that_is_called_twice(inner: Any, first: int) -> None:
    """The results of a siamese model are not taken for each other."""
    twice = node(inner(), "inner", [call("a", 0)], [call("b", 0)])
    difference = node(old("Subtract", name="s"), "s", [call("inner", first), call("inner", first + 1)])

    outer = read(model("outer", [entry("a"), entry("b"), twice, difference], ["a", "b"], call("s", 0)))

    np.testing.assert_allclose(outer([X, Y]), X @ KERNEL - Y @ KERNEL)


@pytest.mark.parametrize("first", [1, 0])
@pytest.mark.parametrize("inner", NESTED)
def test_the_outputs_are_results_of_a_model_inside(inner: Any, first: int) -> None:
    """Keras 3 numbers these in a way of their own."""
    twice = node(inner(), "inner", [call("a", 0)], [call("b", 0)])
    outputs = call("inner", first + 1), call("inner", first)

    outer = read(model("outer", [entry("a"), entry("b"), twice], ["a", "b"], *outputs))

    for result, expected in zip(outer([X, Y]), (Y @ KERNEL, X @ KERNEL), strict=True):
        np.testing.assert_allclose(result, expected)


def test_a_model_that_is_called_with_its_own_result() -> None:
    """One call waits for the other."""
    twice = node(functional(), "inner", [call("a", 0)], [call("inner", 1)])

    outer = read(model("outer", [entry("a"), twice], ["a"], call("inner", 2)))

    np.testing.assert_allclose(outer(X), X @ KERNEL @ KERNEL)


def test_a_model_in_a_model_in_a_model() -> None:
    """Each model counts for itself."""
    middle = model("middle", [entry("m"), node(functional(), "inner", [call("m", 0)])], ["m"], call("inner", 1))
    layers = [entry("a"), node(middle, "middle", [call("a", 0)]), node(dense("o"), "o", [call("middle", 1)])]

    outer = read(model("outer", layers, ["a"], call("o", 0)))

    np.testing.assert_allclose(outer(X), X @ KERNEL @ KERNEL)


def test_a_wrapper_of_a_model_and_a_shared_layer_start_at_zero() -> None:
    """Only models have a call before the first."""
    each = old("TimeDistributed", name="each", trainable=True, layer=functional())
    wide = old("InputLayer", batch_input_shape=[None, 3, 4], dtype="float32", sparse=False, name="a")
    shared = node(dense("s"), "s", [call("each", 0)], [call("each", 1)])
    layers = [
        node(wide, "a"),
        node(each, "each", [call("a", 0)], [call("each", 0)]),
        shared,
        node(old("Add", name="o"), "o", [call("s", 0), call("s", 1)]),
    ]
    x = np.arange(24, dtype="float32").reshape(2, 3, 4)

    outer = read(model("outer", layers, ["a"], call("o", 0)))

    np.testing.assert_allclose(outer(x), (x @ KERNEL + x @ KERNEL @ KERNEL) @ KERNEL)


def written(outputs: Any) -> dict[str, Any]:
    """The configuration that is written of a model of the inputs a and b."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    description = serialize_keras_object(keras.Model([a, b], outputs(a, b), name="outer"), keras_version=2)
    config: dict[str, Any] = description["config"]
    return config


def inner_functional() -> keras.Model:
    x = keras.Input((4,), name="i")
    return keras.Model(x, keras.layers.Dense(4, name="d")(x), name="inner")


def inner_sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="d")], name="inner")


@pytest.mark.parametrize("make", [inner_functional, inner_sequential])
def test_the_calls_of_a_model_are_written_from_one(make: Any) -> None:
    """As Keras 2.1 counts them; other layers are counted from zero."""
    inner, shared = make(), keras.layers.Dense(4, name="shared")

    config = written(lambda a, b: keras.layers.Subtract(name="s")([shared(inner(a)), shared(inner(b))]))

    nodes = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
    assert nodes["inner"] == [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]
    assert nodes["shared"] == [[["inner", 1, 0, {}]], [["inner", 2, 0, {}]]]
    assert nodes["s"] == [[["shared", 0, 0, {}], ["shared", 1, 0, {}]]]
    assert config["output_layers"] == [["s", 0, 0]]


@pytest.mark.parametrize("make", [inner_functional, inner_sequential])
def test_outputs_that_are_results_of_a_model_are_written_from_one(make: Any) -> None:
    """Keras 3 itself counts from one here only if the model is functional."""
    inner = make()

    config = written(lambda a, b: [inner(b), inner(a)])

    assert config["output_layers"] == [["inner", 1, 0], ["inner", 2, 0]]


def test_a_wrapped_model_is_written_from_zero() -> None:
    """A wrapper is no model."""
    wrapper = keras.layers.TimeDistributed(inner_functional(), name="each")
    x = keras.Input((3, 4), name="x")
    outer = keras.Model(x, keras.layers.Dense(1, name="o")(wrapper(x)))

    config = serialize_keras_object(outer, keras_version=2)["config"]

    assert config["layers"][2]["inbound_nodes"] == [[["each", 0, 0, {}]]]


@pytest.mark.parametrize("make", [inner_functional, inner_sequential])
def test_nested_models_come_back_from_the_old_format(make: Any) -> None:
    """What is written is what is read."""
    a, b, inner = keras.Input((4,), name="a"), keras.Input((4,), name="b"), make()
    outer = keras.Model([a, b], [keras.layers.Subtract()([inner(a), inner(b)]), inner(b)])

    restored = deserialize_keras_object(serialize_keras_object(outer, keras_version=2))
    restored.set_weights(outer.get_weights())

    for result, expected in zip(restored([X, Y]), outer([X, Y]), strict=True):
        np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 3},
        {"layers": [3]},
        {"layers": [{"name": ["a"], "inbound_nodes": []}]},
        {"layers": [{**entry("a"), "inbound_nodes": 5}]},
        {"output_layers": 7},
        {"output_layers": [["inner", 5, 0]]},
    ],
)
def test_a_graph_that_makes_no_sense_is_an_error(change: dict[str, Any]) -> None:
    """No matter where the numbers are missing."""
    layers = [entry("a"), node(functional(), "inner", [call("a", 0)])]
    description = model("outer", layers, ["a"], call("inner", 1))
    description["config"].update(change)

    with pytest.raises((TypeError, ValueError)):
        deserialize_keras_object(description)
