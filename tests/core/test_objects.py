"""Custom names resolve in every slot of Keras inside a scope, and nowhere after it."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.objects import CustomObjectScope, custom_object_scope, get_custom_objects


def double(x: Any) -> Any:
    return 2 * x


def triple(x: Any) -> Any:
    return 3 * x


def absolute_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def filled_with_seven(shape: Any, dtype: Any = None) -> Any:
    return 7 * keras.ops.ones(shape, dtype)


class Scale(keras.layers.Layer):
    """Multiplies by a constant."""

    def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Any) -> Any:
        """Multiply."""
        return self.factor * x

    def get_config(self) -> dict[str, Any]:
        """Return the constant too."""
        return {**super().get_config(), "factor": self.factor}


class HalfSum(keras.regularizers.Regularizer):
    """Half the sum of the absolute weights."""

    def __call__(self, x: Any) -> Any:
        """Return the penalty."""
        return 0.5 * keras.ops.sum(keras.ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        """Return nothing to configure."""
        return {}


class AtMostOne(keras.constraints.Constraint):
    """Clips the weights at one."""

    def __call__(self, w: Any) -> Any:
        """Return the clipped weights."""
        return keras.ops.minimum(w, 1.0)


class Twos(keras.initializers.Initializer):
    """Fills with twos."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return the twos."""
        return 2 * keras.ops.ones(shape, dtype)


class Off(keras.losses.Loss):
    """The mean absolute error."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return one value per row."""
        return absolute_loss(y_true, y_pred)


class Largest(keras.metrics.Metric):
    """The largest prediction seen."""

    def __init__(self, name: str = "largest", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.value = self.add_variable(shape=(), initializer="zeros", name="value")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Look at more predictions."""
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

    def result(self) -> Any:
        """Return the largest one."""
        return self.value


class Descent(keras.optimizers.SGD):
    """Plain gradient descent."""


class Rounder(keras.quantizers.Quantizer):
    """Rounds."""

    def __call__(self, x: Any) -> Any:
        """Return the rounded values."""
        return keras.ops.round(x)


class Half(keras.DTypePolicy):
    """Computes in half precision."""

    def __init__(self) -> None:
        super().__init__("mixed_float16")

    def get_config(self) -> dict[str, Any]:
        """Return nothing to configure."""
        return {}


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    """Halves the learning rate."""

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        return 0.5**step

    def get_config(self) -> dict[str, Any]:
        """Return nothing to configure."""
        return {}


EVERYTHING = {
    "double": double,
    "absolute_loss": absolute_loss,
    "filled_with_seven": filled_with_seven,
    "Scale": Scale,
    "HalfSum": HalfSum,
    "AtMostOne": AtMostOne,
    "Twos": Twos,
    "Off": Off,
    "Largest": Largest,
    "Descent": Descent,
    "Rounder": Rounder,
    "Half": Half,
    "Falling": Falling,
}


def described(name: str) -> dict[str, Any]:
    """A description by name only."""
    return {"class_name": name, "config": {}}


# Every call takes one name; the second element is what the name must become.
SLOTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "activations.get": (lambda: keras.activations.get("double"), double),
    "activations.get of a class": (lambda: keras.activations.get("Scale"), Scale),
    "activations.deserialize": (lambda: keras.activations.deserialize("double"), double),
    "regularizers.get": (lambda: keras.regularizers.get("HalfSum"), HalfSum),
    "regularizers.get of a dict": (
        lambda: keras.regularizers.get({"class_name": "HalfSum", "config": {}}),
        HalfSum,
    ),
    "constraints.get": (lambda: keras.constraints.get("AtMostOne"), AtMostOne),
    "initializers.get": (lambda: keras.initializers.get("Twos"), Twos),
    "initializers.get of a function": (
        lambda: keras.initializers.get("filled_with_seven"),
        filled_with_seven,
    ),
    "losses.get": (lambda: keras.losses.get("Off"), Off),
    "losses.get of a function": (lambda: keras.losses.get("absolute_loss"), absolute_loss),
    "losses.deserialize": (lambda: keras.losses.deserialize("absolute_loss"), absolute_loss),
    "metrics.get": (lambda: keras.metrics.get("Largest"), Largest),
    "metrics.get of a function": (lambda: keras.metrics.get("absolute_loss"), absolute_loss),
    "optimizers.get": (lambda: keras.optimizers.get("Descent"), Descent),
    "layers.deserialize": (
        lambda: keras.layers.deserialize({"class_name": "Scale", "config": {"factor": 3.0}}),
        Scale,
    ),
    "Dense(activation)": (lambda: keras.layers.Dense(1, activation="double").activation, double),
    "Activation": (lambda: keras.layers.Activation("double").activation, double),
    "Dense(kernel_regularizer)": (
        lambda: keras.layers.Dense(1, kernel_regularizer="HalfSum").kernel_regularizer,
        HalfSum,
    ),
    "Dense(activity_regularizer)": (
        lambda: keras.layers.Dense(1, activity_regularizer="HalfSum").activity_regularizer,
        HalfSum,
    ),
    "Dense(kernel_constraint)": (
        lambda: keras.layers.Dense(1, kernel_constraint="AtMostOne").kernel_constraint,
        AtMostOne,
    ),
    "Dense(kernel_initializer)": (
        lambda: keras.layers.Dense(1, kernel_initializer="Twos").kernel_initializer,
        Twos,
    ),
    "Dense.from_config": (
        lambda: keras.layers.Dense.from_config({"units": 1, "activation": "double"}).activation,
        double,
    ),
    "quantizers.get": (lambda: keras.quantizers.get("Rounder"), Rounder),
    "quantizers.deserialize": (lambda: keras.quantizers.deserialize(described("Rounder")), Rounder),
    "dtype_policies.get of a dict": (lambda: keras.dtype_policies.get(described("Half")), Half),
    "Dense(dtype)": (lambda: keras.layers.Dense(1, dtype=described("Half")).dtype_policy, Half),
    "optimizers.get of a dict": (lambda: keras.optimizers.get(described("Descent")), Descent),
    "optimizers.schedules.deserialize": (
        lambda: keras.optimizers.schedules.deserialize(described("Falling")),
        Falling,
    ),
    "SGD.from_config(learning_rate)": (
        lambda: keras.optimizers.SGD.from_config({"learning_rate": described("Falling")})._learning_rate,
        Falling,
    ),
    "regularizers.deserialize": (lambda: keras.regularizers.deserialize(described("HalfSum")), HalfSum),
    "constraints.deserialize": (lambda: keras.constraints.deserialize(described("AtMostOne")), AtMostOne),
    "initializers.deserialize": (lambda: keras.initializers.deserialize(described("Twos")), Twos),
    "metrics.deserialize": (lambda: keras.metrics.deserialize(described("Largest")), Largest),
    "LSTM(recurrent_activation)": (
        lambda: keras.layers.LSTM(1, recurrent_activation="double").cell.recurrent_activation,
        double,
    ),
    "add_weight(constraint)": (
        lambda: keras.layers.Layer().add_weight(shape=(1,), constraint="AtMostOne").constraint,
        AtMostOne,
    ),
    "Sequential.from_config": (
        lambda: keras.Sequential.from_config({"name": "s", "layers": [{"module": None, **described("Scale")}]}).layers[
            0
        ],
        Scale,
    ),
    "TimeDistributed.from_config": (
        lambda: keras.layers.TimeDistributed.from_config({"layer": {"module": None, **described("Scale")}}).layer,
        Scale,
    ),
}


def is_or_makes(found: object, wanted: object) -> bool:
    return isinstance(found, wanted) if isinstance(wanted, type) else found is wanted


@pytest.fixture(autouse=True)
def untouched_registry() -> Iterator[None]:
    """Every test must leave the global dictionary as it found it."""
    before = dict(get_custom_objects())
    yield
    assert dict(get_custom_objects()) == before


def meaning(name: str) -> object:
    """What an activation's name means here, or None."""
    try:
        return keras.activations.get(name)
    except ValueError:
        return None


@pytest.mark.parametrize("slot", SLOTS)
def test_a_name_resolves_in_each_slot_inside_the_scope_only(slot: str) -> None:
    """Each place where Keras takes a string accepts a custom name, until the scope ends."""
    resolve, wanted = SLOTS[slot]

    with CustomObjectScope(EVERYTHING):
        found = resolve()

    assert is_or_makes(found, wanted)
    if slot.endswith(".deserialize") and slot != "layers.deserialize":
        assert isinstance(resolve(), str)  # as in Keras: an unknown name is handed back
    else:
        with pytest.raises((TypeError, ValueError), match=r"Your own objects must be given in custom_objects"):
            resolve()


@pytest.mark.parametrize("slot", SLOTS)
def test_a_global_name_resolves_in_each_slot(slot: str) -> None:
    """What is put into the global dictionary resolves as in a scope, and clear() forgets it."""
    resolve, wanted = SLOTS[slot]

    get_custom_objects().update(EVERYTHING)
    try:
        found = resolve()
    finally:
        get_custom_objects().clear()

    assert is_or_makes(found, wanted)
    assert len(get_custom_objects()) == 0


def small_model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])


X = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
Y = np.array([[1.0], [1.0]], dtype=np.float32)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("loss", "metric"), [("absolute_loss", "absolute_loss"), ("Off", "Largest")])
def test_compiled_names_keep_their_meaning(inside: bool, loss: str, metric: str) -> None:
    """Names given to compile in a scope work inside the scope and after it, as in Keras 2.1."""
    model = small_model()
    scope = CustomObjectScope(EVERYTHING)

    with scope:
        model.compile("Descent", loss, metrics=[metric])
        if inside:
            results = model.evaluate(X, Y, verbose=0, return_dict=True)
    if not inside:
        results = model.evaluate(X, Y, verbose=0, return_dict=True)

    # The predictions are 3 and 7, the targets 1.
    assert results["loss"] == pytest.approx(4.0)
    assert float(results[metric]) == pytest.approx(7.0 if metric == "Largest" else 4.0)
    assert isinstance(model.optimizer, Descent)


def test_names_in_nested_compile_arguments() -> None:
    """Losses and metrics by output name resolve too."""
    inputs = keras.Input((2,))
    first = keras.layers.Dense(1, kernel_initializer="ones", name="first")(inputs)
    second = keras.layers.Dense(1, kernel_initializer="ones", name="second")(inputs)
    model = keras.Model(inputs, [first, second])

    with CustomObjectScope(EVERYTHING):
        model.compile("sgd", {"first": "absolute_loss", "second": "mse"}, metrics={"second": ["Largest"]})
    results = model.evaluate(X, [Y, Y], verbose=0, return_dict=True)

    assert results["loss"] == pytest.approx(4.0 + (2**2 + 6**2) / 2)
    assert float(results["second_Largest"]) == pytest.approx(7.0)


# Keras 3.15 copies variables by np.array, for which TensorFlow 2.21 has no copy keyword yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["keras", "h5", "json"])
def test_a_model_with_custom_parts_loads_inside_a_scope(tmp_path: Path, suffix: str) -> None:
    """load_model and model_from_json find custom parts by name, but only inside the scope."""
    with CustomObjectScope(EVERYTHING):
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(3, activation="double"), Scale(factor=4.0)],
        )
        model.compile("sgd", "absolute_loss", metrics=["Largest"])
    model.fit(X, np.zeros((2, 3)), verbose=0)
    path = tmp_path / ("model.keras" if suffix == "json" else f"model.{suffix}")
    model.save(path)

    def load() -> keras.Model:
        if suffix == "json":
            restored = keras.models.model_from_json(model.to_json())
            restored.set_weights(model.get_weights())
            return restored
        return keras.models.load_model(path)

    with pytest.raises((TypeError, ValueError), match=r"Scale|double"):
        load()
    with CustomObjectScope(EVERYTHING):
        loaded = load()

    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert loaded.layers[1].factor == 4.0
    assert loaded.evaluate(X, np.zeros((2, 3)), verbose=0) == model.evaluate(X, np.zeros((2, 3)), verbose=0)


def test_later_dictionaries_win() -> None:
    """Any number of dictionaries is merged, the later ones over the earlier ones."""
    with custom_object_scope({"f": double, "g": double}, {}, {"f": triple}):
        found = meaning("f"), meaning("g")

    assert found == (triple, double)


def test_no_dictionaries_is_an_empty_scope() -> None:
    """A scope without arguments adds nothing and is returned by its with statement."""
    scope = CustomObjectScope()
    before = dict(get_custom_objects())

    with scope as entered:
        inside = dict(get_custom_objects())

    assert entered is scope
    assert inside == before


def test_nested_scopes_merge_and_unwind() -> None:
    """An inner scope adds to the outer one and its end brings the outer one back."""
    with CustomObjectScope({"f": double, "g": double}):
        with CustomObjectScope({"f": triple}):
            inner = meaning("f"), meaning("g")
        outer = meaning("f"), meaning("g")

    assert inner == (triple, double)
    assert outer == (double, double)
    assert meaning("f") is None


def test_nested_scopes_merge_for_layers() -> None:
    """An outer scope's layer can be deserialized in an inner scope, where Keras 3 itself forgets it."""
    with CustomObjectScope({"Scale": Scale}), CustomObjectScope({"f": double}):
        layer = keras.layers.deserialize({"class_name": "Scale", "config": {"factor": 5.0}})

    assert layer.factor == 5.0


def test_one_scope_object_entered_inside_itself() -> None:
    """A scope object may be entered while open: each exit undoes one entry."""
    scope = CustomObjectScope({"f": double})

    with scope:
        with scope:
            twice = meaning("f")
        once = meaning("f")
    never = meaning("f")
    with scope:
        again = meaning("f")

    assert (twice, once, never, again) == (double, double, None, double)


def test_scopes_left_in_another_order() -> None:
    """Generators may leave their scopes out of order; each scope then takes away only its own names."""

    def opened(name: str) -> Iterator[None]:
        with CustomObjectScope({name: double}):
            yield

    first, second = opened("f"), opened("g")
    next(first)
    next(second)

    assert next(first, None) is None
    assert (meaning("f"), meaning("g")) == (None, double)
    assert next(second, None) is None
    assert meaning("g") is None


def test_an_exception_leaves_the_scope_and_is_not_swallowed() -> None:
    """The names are gone after an exception, which goes on to the caller."""

    @CustomObjectScope({"f": double})
    def fail() -> None:
        get_custom_objects()["g"] = triple
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError, match="division"):
        fail()

    assert (meaning("f"), meaning("g")) == (None, None)


def test_dictionaries_are_read_on_entering() -> None:
    """A dictionary that changes between construction and entry counts as it is on entry."""
    names: dict[str, Any] = {}
    scope = CustomObjectScope(names)
    names["f"] = double

    with scope:
        names["f"] = triple
        found = meaning("f")

    assert found is double


@pytest.mark.parametrize("argument", [None, 3, "f", [("f", double)]])
def test_a_non_dictionary_is_refused_on_entering(argument: Any) -> None:
    """The error says which argument is no dictionary; constructing the scope does not raise, as in 2.1."""
    scope = CustomObjectScope({"f": double}, argument)

    with pytest.raises(TypeError, match=r"argument 2 of CustomObjectScope is .*pass dictionaries"):
        scope.__enter__()
    assert meaning("f") is None


@pytest.mark.parametrize(
    "name",
    ["relu", "Dense", "mse", "Adam", "adam", "he_normal", "L2", "NonNeg", "Sequential", "accuracy", "ce"],
)
def test_names_of_keras_are_refused(name: str) -> None:
    """A custom name may not silently shadow one of Keras."""
    with pytest.raises(ValueError, match=rf"the custom name '{name}' is taken by Keras"):
        CustomObjectScope({name: double}).__enter__()


def test_the_built_in_itself_may_be_named() -> None:
    """Listing Keras's own object under its own name changes nothing and is allowed."""
    with CustomObjectScope({"relu": keras.activations.relu, "Dense": keras.layers.Dense}):
        found = keras.activations.get("relu")

    assert found is keras.activations.relu


def test_override_shadows_a_built_in_until_the_end() -> None:
    """With override=True the custom object wins inside, and Keras's own is back afterwards."""
    with custom_object_scope({"relu": double}, override=True):
        inside = keras.layers.Dense(1, activation="relu").activation

    assert inside is double
    assert keras.layers.Dense(1, activation="relu").activation is keras.activations.relu


def test_override_of_an_optimizer() -> None:
    """Keras asks for its optimizers in lower case, however they are written."""
    with custom_object_scope({"sgd": Descent}, override=True):
        found = type(keras.optimizers.get("SGD")), type(keras.optimizers.get("sgd"))

    assert found == (Descent, Descent)


def in_lockstep(barrier: threading.Barrier, function: Any, layer: type[Scale]) -> list[object]:
    """Enter, wait for the other thread to enter, look, wait for it to look, leave, look again."""
    seen = []
    with CustomObjectScope({"f": function, "Mine": layer}):
        barrier.wait(10)
        for _ in range(3):
            seen += [meaning("f"), type(keras.layers.deserialize({"class_name": "Mine", "config": {}}))]
        barrier.wait(10)
    barrier.wait(10)
    return [*seen, meaning("f")]


def test_threads_with_different_objects_under_one_name() -> None:
    """Two threads in scopes at the same time each see their own object, and neither leaves anything."""

    class One(Scale):
        pass

    class Two(Scale):
        pass

    barrier = threading.Barrier(2)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(in_lockstep, barrier, double, One)
        second = pool.submit(in_lockstep, barrier, triple, Two)

    assert first.result() == [double, One] * 3 + [None]
    assert second.result() == [triple, Two] * 3 + [None]
    assert meaning("f") is None


def test_a_thread_sees_the_scope_only_with_its_context() -> None:
    """A plain thread started inside a scope does not see it; one run in a copy of the context does."""
    with CustomObjectScope(EVERYTHING), ThreadPoolExecutor(1) as pool:
        plain = pool.submit(meaning, "double").result()
        context = contextvars.copy_context()
        layer = pool.submit(context.run, keras.layers.deserialize, {"class_name": "Scale", "config": {}}).result()

    assert plain is None
    assert isinstance(layer, Scale)


def held(names: dict[str, Any]) -> Iterator[None]:
    """A generator that waits inside a scope."""
    with custom_object_scope(names):
        yield


@pytest.mark.parametrize("context", [contextvars.copy_context, contextvars.Context])
def test_a_generator_that_is_closed_in_another_thread_takes_its_names_along(context: Any) -> None:
    """Its scope ends in the thread that entered it as well, and no other scope does."""
    with custom_object_scope({"kept": double}):
        generator = held({"gone": double})
        next(generator)
        thread = threading.Thread(target=context().run, args=(generator.close,))
        thread.start()
        thread.join()

        assert dict(get_custom_objects()) == {"kept": double}


def test_an_asynchronous_generator_that_another_task_closes() -> None:
    """Its scope ends in the task that entered it as well."""

    async def waiting() -> Any:
        with custom_object_scope({"gone": double}):
            yield

    async def main() -> dict[str, Any]:
        async def close() -> None:
            await generator.aclose()

        generator = waiting()
        await anext(generator)
        await asyncio.create_task(close())
        return dict(get_custom_objects())

    assert asyncio.run(main()) == {}


def test_a_task_that_outlives_a_scope_keeps_its_names() -> None:
    """It was started inside, with a context of its own."""

    async def late() -> dict[str, Any]:
        await asyncio.sleep(0)
        return dict(get_custom_objects())

    async def main() -> dict[str, Any]:
        with custom_object_scope({"kept": double}):
            task = asyncio.create_task(late())
        return await task

    assert asyncio.run(main()) == {"kept": double}


def test_asyncio_tasks_interleave_without_mixing() -> None:
    """Tasks that enter and leave in an interleaved order in one thread keep to their own names."""

    async def task(mine: type[Scale], entered: asyncio.Event, other: asyncio.Event) -> list[object]:
        with CustomObjectScope({"Mine": mine}):
            entered.set()
            await other.wait()
            inside = [type(keras.layers.deserialize({"class_name": "Mine", "config": {}})) for _ in range(2)]
            await asyncio.sleep(0)
            inside.append(await asyncio.to_thread(lambda: type(get_custom_objects()["Mine"]())))
        return inside

    async def both() -> list[list[object]]:
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(task(One, *events), task(Two, *reversed(events)))

    class One(Scale):
        pass

    class Two(Scale):
        pass

    assert asyncio.run(both()) == [[One] * 3, [Two] * 3]
    with pytest.raises(TypeError, match="Could not locate class 'Mine'"):
        keras.layers.deserialize({"class_name": "Mine", "config": {}})


def test_registration_inside_a_scope_is_undone() -> None:
    """register_keras_serializable inside a scope is forgotten at its end, names and objects alike."""
    with CustomObjectScope():

        @keras.saving.register_keras_serializable("house", "brick")
        def brick(x: Any) -> Any:
            return x

        inside = keras.saving.get_registered_name(brick), keras.saving.get_registered_object("house>brick")

    assert inside == ("house>brick", brick)
    assert keras.saving.get_registered_name(brick) == "brick"
    assert keras.saving.get_registered_object("house>brick") is None


def test_registration_by_another_thread_survives_the_scope() -> None:
    """What another thread registers for good while a scope is open stays when the scope ends."""
    with CustomObjectScope({"f": double}):
        thread = threading.Thread(target=get_custom_objects().__setitem__, args=("g", triple))
        thread.start()
        thread.join()

    try:
        assert meaning("g") is triple
    finally:
        del get_custom_objects()["g"]


def test_changes_to_the_global_dictionary_are_undone() -> None:
    """Setting, deleting and clearing inside a scope end with it; the outer entries come back."""
    get_custom_objects()["outer"] = double

    with CustomObjectScope({"f": double}):
        get_custom_objects()["f"] = triple
        changed = meaning("f")
        del get_custom_objects()["outer"]
        deleted = meaning("outer")
        get_custom_objects().clear()
        cleared = dict(get_custom_objects())
    restored = meaning("outer")
    get_custom_objects().pop("outer")

    assert (changed, deleted, cleared, restored) == (triple, None, {}, double)
    with pytest.raises(KeyError, match="outer"):
        del get_custom_objects()["outer"]


def test_the_global_dictionary_is_that_of_keras_and_shows_the_scope() -> None:
    """Keras returns the same live object, which shows the names of the open scopes."""
    registry = get_custom_objects()

    with CustomObjectScope({"f": double}):
        shown = dict(registry), {**registry}, registry.copy(), "f" in registry, repr(registry)

    assert keras.saving.get_custom_objects() is registry
    assert shown == ({"f": double}, {"f": double}, {"f": double}, True, repr({"f": double}))


def test_clear_session_does_not_end_the_scope() -> None:
    """Keras's own scope is lost to clear_session; ours is not."""
    with CustomObjectScope(EVERYTHING):
        keras.utils.clear_session()
        layer = keras.layers.deserialize({"class_name": "Scale", "config": {}})

    assert isinstance(layer, Scale)


@pytest.mark.parametrize("ours_inside", [True, False])
def test_the_inner_one_of_mixed_scopes_wins(ours_inside: bool) -> None:
    """A scope of Keras and one of ours nest by the same rule, and the outer names stay visible in ours."""

    class Other(Scale):
        pass

    outer, inner = {"Name": Scale, "double": double}, {"Name": Other}
    scopes = (
        (keras.saving.custom_object_scope(outer), CustomObjectScope(inner))
        if ours_inside
        else (CustomObjectScope(outer), keras.saving.custom_object_scope(inner))
    )

    with scopes[0]:
        with scopes[1]:
            found = keras.layers.deserialize({"class_name": "Name", "config": {}}), meaning("double")
        back = keras.layers.deserialize({"class_name": "Name", "config": {}})

    assert (type(found[0]), found[1], type(back)) == (Other, double, Scale)
    assert keras.saving.get_registered_object("Name") is None


# --- the examples of Keras 2.1's page ------------------------------------------------------------------------


class MyObject(keras.regularizers.Regularizer):
    """The sum of the absolute weights."""

    def __call__(self, x: Any) -> Any:
        """Return the penalty."""
        return keras.ops.sum(keras.ops.abs(x))

    def get_config(self) -> dict[str, Any]:
        """Return nothing to configure."""
        return {}


def test_the_page_s_example_of_a_scope(tmp_path: Path) -> None:
    """The name works in the layer, in saving and in loading; the argument has Keras 2's name."""
    with CustomObjectScope({"MyObject": MyObject}):
        layer = keras.layers.Dense(3, kernel_regularizer="MyObject")
        model = keras.Sequential([keras.Input((2,)), layer])
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")

    assert isinstance(layer.kernel_regularizer, MyObject)
    assert isinstance(loaded.layers[0].kernel_regularizer, MyObject)


def test_the_page_s_example_of_the_global_dictionary() -> None:
    """Clearing the dictionary and setting a name work as on the page."""
    get_custom_objects().clear()
    get_custom_objects()["MyObject"] = MyObject

    try:
        layer = keras.layers.Dense(3, kernel_regularizer="MyObject")
    finally:
        get_custom_objects().clear()

    assert isinstance(layer.kernel_regularizer, MyObject)


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")
@pytest.mark.filterwarnings("ignore:Argument `decay` is no longer supported:UserWarning")
@pytest.mark.filterwarnings("ignore:Argument `input_length` is deprecated:UserWarning")
def test_argument_names_of_keras_2_that_still_work() -> None:
    """What the page says about the names of Keras 2 is so: most are today's, and some are only for old code."""
    layer = keras.layers.Dense(3, input_shape=(2,), bias_constraint="non_neg", activity_regularizer="l1")
    model = keras.Sequential([layer])

    keras.layers.Dense(3, input_dim=2)
    keras.layers.Embedding(3, 2, input_length=3)
    keras.optimizers.SGD(decay=0.1)
    assert model.input_shape == (None, 2)
    for refused in (lambda: keras.optimizers.SGD(lr=0.1), lambda: keras.layers.Dense(3, batch_input_shape=(4, 2))):
        with pytest.raises(ValueError, match=r"lr|batch_input_shape"):
            refused()


@pytest.mark.parametrize("old_name", ["W_regularizer", "init", "output_dim"])
def test_argument_names_of_keras_1_are_gone(old_name: str) -> None:
    """Keras 3 refuses what Keras 2.1 still translated with a warning, so the page gives today's names."""
    value = {"W_regularizer": "MyObject", "init": "glorot_uniform", "output_dim": 3}[old_name]

    with CustomObjectScope({"MyObject": MyObject}), pytest.raises((TypeError, ValueError), match=old_name):
        keras.layers.Dense(units=3, **{old_name: value})


def in_fresh_python(code: str) -> str:
    """The last line that Python prints when it runs the code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()[-1]


def test_importing_the_module_does_not_load_keras() -> None:
    """Scopes can be made, though not entered, without Keras."""
    code = (
        "import sys; from kflow.core.objects import custom_object_scope; custom_object_scope({}); "
        "print('keras' in sys.modules, 'tensorflow' in sys.modules, 'numpy' in sys.modules)"
    )

    assert in_fresh_python(code) == "False False False"


def test_first_use_by_many_threads_and_a_keras_that_moved_its_tables() -> None:
    """A missing private table is named before anything is changed; then many threads may install at once."""
    code = """
import threading, keras
from concurrent.futures import ThreadPoolExecutor
from keras.src import losses
from kflow.core.objects import CustomObjectScope, get_custom_objects
bare = keras.saving.get_custom_objects()
bare["early"] = abs
table = losses.ALL_OBJECTS_DICT
del losses.ALL_OBJECTS_DICT
try:
    CustomObjectScope().__enter__()
except RuntimeError as error:
    message = str(error)
same = keras.saving.get_custom_objects() is bare
losses.ALL_OBJECTS_DICT = table
barrier = threading.Barrier(8)
def first(_):
    barrier.wait()
    return get_custom_objects()
with ThreadPoolExecutor(8) as pool:
    registries = list(pool.map(first, range(8)))
one = len({id(registry) for registry in registries}) == 1
print(message[:12], "no dict keras.src.losses.ALL_OBJECTS_DICT" in message, same, one,
      keras.activations.get("early") is abs, keras.losses.get("mse") is keras.losses.mean_squared_error)
"""

    assert in_fresh_python(code) == "keras 3.15.1 True True True True True"
