"""What cannot be kept is watched: a change inside it is seen, and what merely is no data is not told."""

import collections
import dataclasses
import itertools
import logging
import types
from typing import Any

import keras
import numpy as np
import pytest

from kflow.adapters.traces import Tracer

pytestmark = pytest.mark.xdist_group("train")


@dataclasses.dataclass(slots=True)
class Slotted:
    """State without a dictionary."""

    counts: list[Any]


class Odd:
    """It cannot be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise OSError(name)


def make(kind: str) -> tuple[Any, Any]:
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
    stopping = keras.callbacks.EarlyStopping()
    return stopping, lambda: setattr(stopping, "wait", 1)


@pytest.mark.parametrize("kind", ["object", "array", "iterator", "variable", "metric", "callback"])
def test_a_change_is_seen_however_deep_it_is(kind: str) -> None:
    """In objects, with slots or without, in arrays, in Keras's variables, and in what can only be read on."""
    thing, change = make(kind)
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
