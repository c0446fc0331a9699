"""Objects given to a call of Keras win over those of scopes and of the global dictionary, as in Keras 2.1."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from kflow.core.objects import CustomObjectScope, get_custom_objects


def scoped(x: Any) -> Any:
    """What the name means around the call."""
    return x


def given(x: Any) -> Any:
    """What the name means in the call."""
    return -x


scoped.__name__ = given.__name__ = "act"


@pytest.fixture(autouse=True)
def no_names_stay() -> Iterator[None]:
    """What a test registers ends with it."""
    yield
    get_custom_objects().clear()


def model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation=scoped)])


def loaded(suffix: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        path = folder / f"model{suffix}"
        model().save(path)
        return keras.models.load_model(path, custom_objects={"act": given}).layers[-1].activation

    return load


def dense() -> dict[str, Any]:
    description: dict[str, Any] = keras.saving.serialize_keras_object(keras.layers.Dense(1, activation=scoped))
    return description


CALLS: dict[str, Callable[[Path], Any]] = {
    "load_model of .keras": loaded(".keras"),
    "load_model of .h5": loaded(".h5"),
    "model_from_json": lambda _: (
        keras.models.model_from_json(model().to_json(), custom_objects={"act": given}).layers[-1].activation
    ),
    "from_config": lambda _: (
        keras.Sequential.from_config(model().get_config(), custom_objects={"act": given}).layers[-1].activation
    ),
    "activations.deserialize": lambda _: keras.activations.deserialize("act", custom_objects={"act": given}),
    "layers.deserialize": lambda _: keras.layers.deserialize(dense(), custom_objects={"act": given}).activation,
    "saving": lambda _: keras.saving.deserialize_keras_object(dense(), custom_objects={"act": given}).activation,
    "utils": lambda _: keras.utils.deserialize_keras_object(dense(), custom_objects={"act": given}).activation,
}


@pytest.mark.parametrize("call", CALLS)
def test_given_objects_win_over_a_scope(call: str, tmp_path: Path) -> None:
    """The scope is as before after the call."""
    with CustomObjectScope({"act": scoped}):
        found, afterwards = CALLS[call](tmp_path), keras.activations.get("act")

    assert (found, afterwards) == (given, scoped)


@pytest.mark.parametrize("call", CALLS)
def test_given_objects_win_over_the_global_dictionary(call: str, tmp_path: Path) -> None:
    """The dictionary is as before after the call."""
    get_custom_objects()["act"] = scoped

    found = CALLS[call](tmp_path)

    assert (found, dict(get_custom_objects())) == (given, {"act": scoped})


def test_given_objects_win_over_a_scope_of_keras(tmp_path: Path) -> None:
    """Also where kflow's is not the scope that is open."""
    get_custom_objects()

    with keras.saving.custom_object_scope({"act": scoped}):
        found, afterwards = CALLS["load_model of .keras"](tmp_path), keras.activations.get("act")

    assert (found, afterwards) == (given, scoped)


class Registering(keras.layers.Layer):
    """Registers something while it is read, as the import of a module may."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Registering":
        """Register and make."""

        def late(x: Any) -> Any:
            return x

        keras.saving.register_keras_serializable("house")(late)
        return cls(**config)


def test_what_is_registered_meanwhile_stays() -> None:
    """Only the given names end with the call."""
    get_custom_objects()
    description = keras.saving.serialize_keras_object(Registering())

    keras.layers.deserialize(json.loads(json.dumps(description)), custom_objects={"Registering": Registering})

    assert list(get_custom_objects()) == ["house>late"]
