"""What Keras does not find is an error with similar names, and with where each custom name came from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.objects import CustomObjectScope, get_custom_objects
from kflow.core.objects.lookup import built_in_objects
from kflow.core.serialization import deserialize_keras_object


def double(x: Any) -> Any:
    return 2 * x


class Scale(keras.layers.Layer):
    """Multiplies by two."""

    def call(self, x: Any) -> Any:
        """Multiply."""
        return 2.0 * x


EVERYTHING = {
    "double": double,
    "absolute_loss": double,
    "Scale": Scale,
    **dict.fromkeys(("HalfSum", "AtMostOne", "Largest", "Descent", "Rounder"), Scale),
}


def described(name: str) -> dict[str, Any]:
    """A description by name only."""
    return {"class_name": name, "config": {}}


MISSPELT: dict[str, tuple[Callable[[], Any], str, str]] = {
    "activation": (lambda: keras.layers.Dense(1, activation="duoble"), "'double' (mine)", "keras.activations"),
    "built-in": (lambda: keras.layers.Dense(1, activation="rleu"), "'relu' (keras.activations)", "keras.losses"),
    "regularizer": (lambda: keras.regularizers.get("HalfSun"), "'HalfSum' (mine)", "keras.losses"),
    "constraint": (lambda: keras.constraints.get("AtMostTwo"), "'AtMostOne' (mine)", "keras.losses"),
    "initializer": (lambda: keras.initializers.get("zeroes"), "'zeros' (keras.initializers)", "keras.losses"),
    "loss": (lambda: keras.losses.get("absolute_los"), "'absolute_loss' (mine)", "keras.metrics"),
    "metric": (lambda: keras.metrics.get("Largets"), "'Largest' (mine)", "keras.losses"),
    "optimizer": (lambda: keras.optimizers.get("Desecnt"), "'Descent' (mine)", "keras.losses"),
    "optimizer of Keras": (lambda: keras.optimizers.get("Adem"), "'Adam' (keras.optimizers)", "keras.losses"),
    "quantizer": (lambda: keras.quantizers.get("Rouder"), "'Rounder' (mine)", "keras.losses"),
    "layer": (lambda: keras.layers.deserialize(described("Scael")), "'Scale' (mine)", "no module"),
    "layer of Keras": (lambda: keras.layers.deserialize(described("Dnese")), "'Dense' (keras.layers)", "no module"),
    "model": (
        lambda: keras.models.model_from_json('{"class_name": "Sequentail", "config": {}, "module": "keras"}'),
        "'Sequential' (keras.models)",
        "no module",
    ),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_failed_look_up_suggests_names_and_says_where_each_came_from(case: str) -> None:
    """Keras's own look-ups fail with similar names of the right kind, and with the source of every custom name."""
    look_up, suggestion, foreign = MISSPELT[case]

    with (
        CustomObjectScope(EVERYTHING, source="mine"),
        CustomObjectScope({"other": double}, source="the inner scope"),
        pytest.raises((TypeError, ValueError), match="Did you mean") as failure,
    ):
        look_up()

    message = str(failure.value)
    assert suggestion in message
    assert foreign not in message
    names = ", ".join(map(repr, EVERYTHING))
    assert f"Custom names here: {names} (mine); 'other' (the inner scope)." in message


def test_a_failed_look_up_in_an_hdf5_file_suggests_names(tmp_path: Path) -> None:
    """The older file format has a look-up of its own, whose failure is explained too."""
    model = keras.Sequential([keras.Input((2,)), Scale()])
    path = tmp_path / "model.h5"
    model.save(path)

    with (
        CustomObjectScope({"Scales": Scale}, source="mine"),
        pytest.raises(ValueError, match=r"Unknown layer: 'Scale'.* Did you mean 'Scales' \(mine\)"),
    ):
        keras.models.load_model(path)


def test_names_of_a_scope_of_keras_are_named_as_such() -> None:
    """A failure lists what Keras's own scope knows too."""
    with (
        keras.saving.custom_object_scope({"f": double}),
        pytest.raises(ValueError, match=r"Custom names here: 'f' \(a scope of Keras\)\."),
    ):
        keras.activations.get("unknown")


def test_many_names_are_not_all_listed() -> None:
    """After twenty names a failure says how many more there are."""
    names = {f"name{number:03}": double for number in range(100)}

    with CustomObjectScope(names, source="mine"), pytest.raises(ValueError, match="interpret") as failure:
        keras.activations.get("unknown")

    assert str(failure.value).count("'name") == 20
    assert "'name019' (mine); and 80 more." in str(failure.value)


def test_a_custom_name_does_not_stand_in_for_an_operation(tmp_path: Path) -> None:
    """Keras writes an operation as if it were registered under its name, and loads it as itself all the same."""
    x = keras.Input((2, 2))
    model = keras.Model(x, keras.ops.square(x))
    model.save(tmp_path / "model.keras")

    with CustomObjectScope({"Square": Scale}):
        loaded = keras.models.load_model(tmp_path / "model.keras")

    np.testing.assert_array_equal(loaded(3 * np.ones((1, 2, 2))), 9 * np.ones((1, 2, 2)))


def test_a_description_without_its_module_is_not_answered_with_its_own_name() -> None:
    """The class is known; the failure says what is missing and who can do without."""
    with CustomObjectScope(), pytest.raises((TypeError, ValueError), match="Could not locate") as failure:
        keras.layers.deserialize({"class_name": "Dense", "config": {"units": 1}})

    assert "Keras has a 'Dense' in keras.layers: name this as the module of the description" in str(failure.value)
    assert "kflow.core.deserialize_keras_object" in str(failure.value)
    assert "Did you mean" not in str(failure.value)


@pytest.mark.parametrize(
    "family",
    ["activations", "constraints", "initializers", "losses", "metrics", "optimizers", "quantizers", "regularizers"],
)
def test_every_name_that_is_suggested_is_found(family: str) -> None:
    """Keras's tables lack some of its public names, such as l1_l2; what fails lacks only arguments."""
    not_found = []

    with CustomObjectScope():
        for name in built_in_objects()[f"keras.{family}"]:
            try:
                getattr(keras, family).get(name)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                not_found += [name] if "Could not interpret" in str(error) else []

    assert not_found == []


def test_names_that_the_tables_of_keras_lack_are_trained_with() -> None:
    """As arguments of compile and of layers, and in a description of one."""
    layer = {"class_name": "Dense", "config": {"units": 2, "kernel_regularizer": "l1_l2"}}
    with CustomObjectScope():
        model = keras.Sequential([keras.Input((2,)), deserialize_keras_object(layer)])
        model.compile("Lamb", "CategoricalGeneralizedCrossEntropy", metrics=["huber"])

    logs = model.train_on_batch(np.eye(2), np.eye(2), return_dict=True)

    assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L1L2)
    assert isinstance(model.optimizer, keras.optimizers.Lamb)
    assert logs.keys() == {"loss", "huber"}


def test_a_name_that_stands_for_none_is_refused() -> None:
    """Keras takes None for a name that is not there, and would be advised to use the same name."""
    with pytest.raises(ValueError, match="the custom name 'nn' stands for None; give it a class or function"):
        CustomObjectScope({"nn": None}, override=True).__enter__()
    with pytest.raises(ValueError, match="the custom name 'nn' stands for None"):
        get_custom_objects()["nn"] = None
    with (
        keras.saving.custom_object_scope({"nn": None}),
        pytest.raises(ValueError, match=r"identifier: nn\. .*No custom names are known here"),
    ):
        keras.activations.get("nn")
