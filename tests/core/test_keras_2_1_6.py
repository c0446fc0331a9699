"""What Keras 2.1.6 itself wrote means the same when it is read.

``keras_2_1_6.json`` was written by that version, on the interface of TensorFlow 1 that TensorFlow 2.21 still has. It
holds a description of each layer, optimizer, initializer, regularizer and constraint that there is in Keras 3 too, and
models inside models with weights, inputs and predictions, and what six steps of each optimizer make of a layer.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.serialization import deserialize_keras_object, serialize_keras_object

WRITTEN = json.loads((Path(__file__).parent / "keras_2_1_6.json").read_text())

# Whose value is under another key, or has no effect in Keras 3.
GONE = {
    *("alpha", "batch_input_shape", "decay", "implementation", "input_length", "lr", "noise_shape", "schedule_decay"),
    *("theta", "trainable"),
}


def plain(value: Any) -> Any:
    """As JSON has it, with descriptions reduced to the class, and the old names of what is the same."""
    if isinstance(value, dict) and "class_name" in value:
        return value["config"] if value["class_name"] == "function" else value["class_name"]
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    renamed = {"hard_sigmoid": "keras2_hard_sigmoid", "normal": "truncated_normal"}
    return renamed.get(value, value) if isinstance(value, str) else value


@pytest.mark.filterwarnings("ignore:Argument `:UserWarning", "ignore:the Nadam:UserWarning")
@pytest.mark.parametrize("part", WRITTEN["parts"])
def test_each_part_keeps_its_arguments(part: str) -> None:
    """Every argument that Keras 3 still has comes back, and what it calls by another name is that."""
    kind, _, _ = part.partition("/")
    description = WRITTEN["parts"][part]
    config = description["config"]

    built = deserialize_keras_object(description, printable_module_name=kind)

    found = {key: plain(value) for key, value in built.get_config().items()}
    if part == "initializer/Identity":
        found["gain"] = built.gain  # which Keras 3 forgets to tell
    limits = {"clipnorm": "global_clipnorm"}
    expected = {limits.get(key, key): plain(value) for key, value in config.items() if key not in GONE}
    # Keras 3 says nothing of an activity regularizer that is not there.
    assert {key: found.get(key) for key in expected if key != "dtype"} == {
        key: value for key, value in expected.items() if key != "dtype"
    }
    for old_key, key in (("alpha", "alpha"), ("alpha", "negative_slope"), ("theta", "threshold")):
        if old_key in config and key in found:
            assert found[key] == config[old_key]
    if "lr" in config and not config.get("decay"):
        assert float(built.learning_rate) == pytest.approx(config["lr"])


@pytest.mark.parametrize("graph", WRITTEN["graphs"])
def test_a_model_inside_a_model_predicts_the_same(graph: str) -> None:
    """Functional and Sequential ones, called once, twice, in a row, and as outputs."""
    written = WRITTEN["graphs"][graph]

    model = deserialize_keras_object(written["description"])
    model.set_weights([np.array(each, "float32") for each in written["weights"]])

    results = keras.tree.flatten(model([np.array(each, "float32") for each in written["x"]]))
    assert len(results) == len(written["y"])
    for result, expected in zip(results, written["y"], strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("graph", WRITTEN["graphs"])
def test_a_model_inside_a_model_is_written_as_keras_2_1_6_wrote_it(graph: str) -> None:
    """The calls have the same numbers."""
    description = WRITTEN["graphs"][graph]["description"]

    again = serialize_keras_object(deserialize_keras_object(description), keras_version=2)

    assert calls(again) == calls(description)


@pytest.mark.filterwarnings("ignore:the Nadam:UserWarning")
@pytest.mark.parametrize("optimizer", WRITTEN["training"]["after"])
def test_an_optimizer_takes_the_same_steps(optimizer: str) -> None:
    """With decay, limits and starting values too; but for Nadam, whose momentum has another schedule."""
    training = WRITTEN["training"]
    after = training["after"][optimizer]
    x, y = (np.array(training[key], "float32") for key in ("x", "y"))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.array(each, "float32") for each in training["weights"]])

    model.compile(deserialize_keras_object(after["description"]), "mse", run_eagerly=True)
    for _ in range(6):
        model.train_on_batch(x, y)

    for weights, expected in zip(model.get_weights(), after["weights"], strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-3 if optimizer == "nadam" else 1e-6)


def calls(description: dict[str, Any]) -> list[Any]:
    """The nodes and ends of a model, and those of the models in it."""
    config = description["config"]
    if "output_layers" not in config:
        return []
    inner = [(layer["name"], layer["inbound_nodes"], calls(layer)) for layer in config["layers"]]
    return [inner, config["input_layers"], config["output_layers"]]
