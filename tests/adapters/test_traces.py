"""What cannot be kept is watched: a change inside it is seen, and what merely is no data is not told."""

import collections
import dataclasses
import itertools
import logging
import random
import types
from typing import Any

import keras
import numpy as np
import pytest

from kflow.adapters.traces import Tracer, Watch

pytestmark = pytest.mark.xdist_group("train")


@dataclasses.dataclass(slots=True)
class Slotted:
    """State without a dictionary."""

    counts: list[Any]


class Odd:
    """It cannot be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise OSError(name)


def make(kind: str) -> tuple[Any, Any]:  # noqa: PLR0911  one for each kind
    """Make something that is no plain value, and a function that changes it."""
    if kind == "object":
        thing = types.SimpleNamespace(deep=[{"a": Slotted([1, object()])}])
        return thing, lambda: thing.deep[0]["a"].counts.append(2)
    if kind == "array":
        held = Slotted([np.zeros(3), object()])
        return held, lambda: held.counts[0].fill(1)
    if kind == "iterator":
        numbers = itertools.count()
        return [numbers], lambda: next(numbers)
    if kind == "variable":
        variable = keras.Variable([1.0])
        return {"v": variable}, lambda: variable.assign([2.0])
    if kind == "metric":
        metric = keras.metrics.Mean()
        return metric, lambda: metric.update_state(3.0)
    if kind == "method":
        schedule = Schedule()
        return schedule.step, schedule.step
    stopping = keras.callbacks.EarlyStopping()
    return stopping, lambda: setattr(stopping, "wait", 1)


def make_of_tensorflow(kind: str) -> tuple[Any, Any]:
    """Make something whose state TensorFlow has, and a function that changes it."""
    import tensorflow as tf

    seeds, generator = keras.random.SeedGenerator(7), tf.random.Generator.from_seed(7)
    number, text = tf.Variable(1.0), tf.Variable("one")
    made = {
        "seed generator": ([seeds], seeds.next),
        "TensorFlow's variable": (number, lambda: number.assign(2.0)),
        "text": (text, lambda: text.assign("two")),
        "TensorFlow's generator": (generator, lambda: generator.normal((2,))),
    }
    return made[kind]


class Schedule:
    """A function with a memory."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        """Count."""
        self.steps += 1

    def __call__(self, epoch: int, rate: float) -> float:
        """Lower a learning rate."""
        self.step()
        return rate / self.steps + epoch


OF_TENSORFLOW = ["seed generator", "TensorFlow's variable", "TensorFlow's generator", "text"]


@pytest.mark.parametrize(
    "kind", ["object", "array", "iterator", "variable", "metric", "method", "callback", *OF_TENSORFLOW]
)
def test_a_change_is_seen_however_deep_it_is(kind: str) -> None:
    """In objects, their methods, arrays, variables and generators of any library, and in what can only be read on."""
    thing, change = make_of_tensorflow(kind) if kind in OF_TENSORFLOW else make(kind)
    tracer = Tracer(())
    before = tracer.trace(thing)

    change()

    assert tracer.trace(thing) != before


def test_what_has_no_state_is_not_told() -> None:
    """Functions, modules, loggers that take notes for themselves, and the model's own variables."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    knot: list[Any] = [object()]
    knot.append(knot)
    things = [len, np, Slotted, model, model.layers, logging.getLogger("x"), knot, Odd(), collections.ChainMap({})]
    tracer = Tracer({id(variable) for variable in model.variables})
    before = [tracer.trace(thing) for thing in things]

    model.set_weights([weight + 1 for weight in model.get_weights()])
    logging.getLogger("x").isEnabledFor(10)

    assert [tracer.trace(thing) for thing in things] == before


class Mine(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A callback that holds what a checkpoint has anyhow."""

    def __init__(self) -> None:
        super().__init__()
        self.hook, self.draw, self.seen = self.on_epoch_end, random.uniform, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Change what is plain."""
        del logs
        self.seen += epoch


def test_what_callbacks_of_keras_were_given_is_told() -> None:
    """A schedule with a memory is; a function is not, nor what holds the callback itself or Python's generator."""
    mine, schedule = Mine(), Schedule()
    callbacks = [keras.callbacks.LearningRateScheduler(each) for each in (schedule, lambda _epoch, rate: rate)]
    told: list[str] = []
    watch = Watch([*callbacks, mine], lambda: {id(mine), id(random._inst)}, told.append)
    schedule(0, 0.1)
    mine.hook(1)
    mine.draw(0, 1)
    watch.tell([(0, "schedule"), (1, "schedule"), (2, "hook"), (2, "draw")])

    assert [text.partition(" has changed")[0] for text in told] == ["LearningRateScheduler.schedule"]
