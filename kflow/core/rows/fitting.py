"""``fit``, ``evaluate`` and ``predict`` of Keras, taught to read an `HDF5Matrix` batch by batch.

Keras 3 would turn it into an array in memory. So the three methods of ``keras.Model`` are wrapped, once a matrix is
made and Keras is loaded: given data that is read by rows, they hand on a ``tf.data.Dataset`` of its batches; all
other calls pass as they are. Only public names of Keras are used.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
import threading
from collections.abc import Mapping
from functools import wraps
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

import numpy as np

from kflow.core.rows.streaming import Stream, count_rows, is_read_by_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from numpy.typing import NDArray

__all__ = ["teach_keras"]

_teaching = threading.RLock()


def teach_keras() -> None:
    """Let ``fit``, ``evaluate`` and ``predict`` stream data that is read by rows; now, or once Keras is loaded.

    Importing `HDF5Matrix` does this. It does not load Keras.

    Examples
    --------
    >>> teach_keras()
    """
    with _teaching:
        if "keras" in sys.modules:
            import keras  # waits for a thread that is still loading it

            _teach(keras)
        elif not any(isinstance(finder, _KerasWatcher) for finder in sys.meta_path):
            sys.meta_path.insert(0, _KerasWatcher())


class _KerasWatcher(MetaPathFinder):
    """Waits for the import of Keras, and teaches it then."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find Keras as it would be found without this, and nothing else."""
        if name != "keras":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_teach(module: ModuleType) -> None:
                load(module)
                _teach(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = load_and_teach  # type: ignore[method-assign]
        return spec


def _teach(keras: Any) -> None:
    """Wrap the three methods, unless they are."""
    for name, prepare in (("fit", _prepare_fit), ("evaluate", _prepare_evaluate), ("predict", _prepare_predict)):
        method = getattr(keras.Model, name)
        if not hasattr(method, "reads_by_rows"):
            setattr(keras.Model, name, _reading_by_rows(method, prepare))


def _reading_by_rows(
    method: Callable[..., Any], prepare: Callable[[dict[str, Any]], list[Stream]]
) -> Callable[..., Any]:
    """Return the method, with data that is read by rows handed on as batches."""
    signature = inspect.signature(method)

    @wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_read_by_rows((args, kwargs)):
            return method(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs)
        streams = prepare(given.arguments)
        try:
            result = method(*given.args, **given.kwargs)
            for stream in streams:
                stream.look_at_end()  # Keras need not ask for the end of the data
            return result
        except Exception:
            for stream in streams:
                if stream.error is not None:
                    raise stream.error from None
            raise

    wrapper.reads_by_rows = True  # type: ignore[attr-defined]  # functions take attributes, their type does not
    return wrapper


def _prepare_fit(given: dict[str, Any]) -> list[Stream]:
    """Replace the training and the validation data, where they are read by rows."""
    import keras

    streams: list[Stream] = []
    data = tuple(given.get(name) for name in ("x", "y", "sample_weight"))
    size, steps = given.get("batch_size"), given.get("steps_per_epoch")
    held_out = given.get("validation_batch_size") or size, given.get("validation_steps")
    if is_read_by_rows(data):
        end = None
        if given.get("validation_split") and given.get("validation_data") is None:
            end = _split(count_rows(data), given.pop("validation_split"))
            streams.append(_stream(data, *held_out, start=end))
            given["validation_data"] = streams[0].dataset
        x, y, weight = data
        weight = _class_weights(y, weight, given.pop("class_weight", None))
        streams.append(_stream((x, y, weight), size, steps, end=end, shuffle=given.get("shuffle", True)))
        given.update(x=streams[-1].dataset, y=None, sample_weight=None, shuffle=False)
        given["callbacks"] = _with_order(given.get("callbacks"), streams[-1])
    if is_read_by_rows(given.get("validation_data")):
        data = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
        streams.append(_stream(data, *held_out))
        given["validation_data"] = streams[-1].dataset
    return streams


def _with_order(callbacks: Any, stream: Stream) -> Any:
    """Add a callback that ties the order of the rows to the number of the epoch, so that a training can be resumed."""
    import keras

    order = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: stream.begin_epoch(epoch))
    if isinstance(callbacks, keras.callbacks.CallbackList):
        ordered = copy.copy(callbacks)  # the caller's own must not keep the order of this training
        ordered.callbacks = [*callbacks.callbacks, order]
        return ordered
    return [*(callbacks if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []), order]


def _prepare_evaluate(given: dict[str, Any]) -> list[Stream]:
    """Replace the data by batches."""
    data = tuple(given.get(name) for name in ("x", "y", "sample_weight"))
    stream = _stream(data, given.get("batch_size"), given.get("steps"))
    given.update(x=stream.dataset, y=None, sample_weight=None)
    return [stream]


def _prepare_predict(given: dict[str, Any]) -> list[Stream]:
    """Replace the inputs by batches."""
    stream = _stream((given["x"], None, None), given.get("batch_size"), given.get("steps"))
    given["x"] = stream.dataset
    return [stream]


def _stream(data: tuple[Any, ...], batch_size: int | None, steps: int | None, **options: Any) -> Stream:
    """Return the batches of inputs, targets and sample weights, in Keras's default sizes."""
    import keras

    x, y, weight = data
    rows = len(range(count_rows(data))[slice(options.get("start"), options.get("end"))])
    if batch_size is not None and batch_size < 1:
        msg = f"batch_size must be at least 1, not {batch_size}"
        raise ValueError(msg)
    if keras.tree.is_nested(y) and weight is not None and not keras.tree.is_nested(weight):
        weight = keras.tree.map_structure(lambda _: weight, y)  # the same for each output
    packed = keras.utils.pack_x_y_sample_weight(x, y, weight)
    return Stream(packed, batch_size or (math.ceil(rows / steps) if steps else 32), **options)


def _split(rows: int, share: float) -> int:
    """Return the first row that is held out: the last part of the rows, as they lie in the file."""
    end = math.floor(rows * (1.0 - share))
    if not 0 < end < rows:
        msg = f"{rows} rows cannot be divided by validation_split={share}: one part would be empty"
        raise ValueError(msg)
    return end


def _class_weights(y: Any, weight: Any, class_weight: Any) -> Any:
    """Return sample weights: the given ones, or those of the classes."""
    import keras

    if class_weight is None:
        return weight
    if not isinstance(class_weight, Mapping):
        msg = f"class_weight must be a dictionary from classes to weights, as {{0: 1.0, 1: 5}}, not {class_weight!r}"
        raise ValueError(msg)
    if weight is not None or y is None or keras.tree.is_nested(y):
        msg = "class_weight needs targets y for a single output, and no sample_weight beside it"
        raise ValueError(msg)
    return _ClassWeights(y if is_read_by_rows(y) else np.asarray(y), class_weight)


class _ClassWeights:
    """The weight of each row by its class, looked up when the row is read; 1 for a class without a weight."""

    is_read_by_rows = True

    def __init__(self, y: Any, weights: Mapping[int, float]) -> None:
        self._y, self._weights = y, weights
        self.shape = (len(y),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float64]:
        """Return the weights of some rows."""
        labels = np.asarray(self._y[rows])
        if labels.ndim > 1:
            labels = labels.argmax(axis=-1) if labels.shape[-1] != 1 else labels[..., 0]
        return np.array([self._weights.get(round(label), 1.0) for label in labels.tolist()], np.float64)
