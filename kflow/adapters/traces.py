"""Whether a value that a checkpoint cannot keep has changed, as far as that can be seen from outside."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from kflow.adapters.plain import NotPlainError, Packing

Attribute = tuple[int, str]
"""The number of a callback, and the name of one of its attributes."""

_WITHOUT_STATE = type | FunctionType | BuiltinFunctionType | ModuleType
_OPAQUE = {"tensorflow", "keras", "logging"}
"""Libraries whose objects take notes for themselves while they are used."""


@dataclass
class Tracer:
    """Takes traces: two of one value are equal if nothing in it has changed that can be seen."""

    kept: Collection[int]
    """The ids of what a checkpoint has anyhow: variables, other callbacks, Python's generator."""
    _met: dict[int, Any] = field(default_factory=dict)
    """What was gone through, by its id; held, so that nothing else gets the same one."""

    def trace(self, value: Any) -> Any:
        """Return the trace of a value; None where it cannot be looked at."""
        self._met.clear()
        try:
            return self._trace(value)
        except Exception:  # noqa: BLE001  an object of the user's may raise whatever it likes
            return None

    def _trace(self, value: Any) -> Any:
        if isinstance(value, _WITHOUT_STATE) or id(value) in self.kept:
            return id(value)
        if isinstance(value, MethodType):
            return id(value.__func__), self._trace(value.__self__)
        if hasattr(type(value), "__next__"):
            return object()  # whoever reads a file or an iterator changes it: no trace is equal to this one
        try:
            return _describe(value)
        except NotPlainError:
            if id(value) in self._met:
                return None
            self._met[id(value)] = value
            return self._trace_parts(value)

    def _trace_parts(self, value: Any) -> Any:
        if isinstance(value, dict):
            return [(self._trace(name), self._trace(each)) for name, each in value.items()]
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [self._trace(each) for each in value]
        return self._trace_object(value)

    def _trace_object(self, value: Any) -> Any:
        import keras

        variables = _variables(value)
        if variables is not None:
            return [_digest(each) for each in variables if id(each) not in self.kept]
        library = type(value).__module__.partition(".")[0]
        if library in _OPAQUE and not isinstance(value, keras.callbacks.Callback):
            return id(value)
        return id(value), self._trace(object.__getstate__(value))


@dataclass
class Watch:
    """Warns of attributes that have changed and that no checkpoint keeps, once of each."""

    callbacks: list[Any]
    kept: Callable[[], Collection[int]]
    """Gives the ids of what a checkpoint has anyhow; asked each time, as a training makes more of it."""
    warn: Callable[[str], None]
    _before: dict[Attribute, Any] = field(default_factory=dict)
    _told: set[Attribute] = field(default_factory=set)

    def __post_init__(self) -> None:
        tracer = Tracer(self.kept())
        for number, callback in enumerate(self.callbacks):
            for name, value in vars(callback).items():
                if not _is_plain(value):
                    self._before[number, name] = tracer.trace(value)

    def tell(self, left_out: Iterable[Attribute]) -> None:
        """Warn of those attributes that are not as they were when the training began."""
        tracer = Tracer(self.kept())
        for number, name in left_out:
            callback, place = self.callbacks[number], (number, name)
            if place in self._told or _is_made_anew(callback, name):
                continue
            value = vars(callback)[name]
            if self._before.get(place, ...) != tracer.trace(value):
                self._told.add(place)
                self.warn(
                    f"{type(callback).__name__}.{name} has changed, and a checkpoint cannot keep it (a "
                    f"{type(value).__name__}): after an interruption the training goes on without it, perhaps with "
                    "other results; plain values are kept"
                )


def _is_made_anew(callback: Any, name: str) -> bool:
    """Tell whether it is Keras itself that sees to an attribute when a training begins: not to what it is to call."""
    import keras

    is_log = isinstance(callback, keras.callbacks.CSVLogger)
    is_own = type(callback).__module__.startswith("keras.") and not callable(vars(callback)[name])
    return is_own or (is_log and name in {"csv_file", "writer"})


def _is_plain(value: Any) -> bool:
    try:
        Packing().add(value)
    except NotPlainError:
        return False
    return True


def _describe(value: Any) -> tuple[str, list[bytes]]:
    packing = Packing()
    return json.dumps(packing.add(value)), [hashlib.sha256(each.tobytes()).digest() for each in packing.arrays.values()]


def _variables(value: Any) -> list[Any] | None:
    """Return the variables that are all the state of an object; None where there is more to look at."""
    import keras
    import tensorflow as tf

    if isinstance(value, keras.Variable | tf.Variable | tf.Tensor):
        return [value]
    if isinstance(value, keras.random.SeedGenerator | tf.random.Generator):
        return [value.state]
    variables = getattr(value, "variables", None)
    return variables if isinstance(variables, list) else None


def _digest(variable: Any) -> bytes:
    import keras

    array = keras.ops.convert_to_numpy(variable)
    return hashlib.sha256(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()).digest()
