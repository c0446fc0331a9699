"""Checkpoints of a training: all that the next epoch hangs on, in one file that is there whole or not at all.

A training that continues from one ends with the same bits as one that was never interrupted, on the CPU. For that
it holds more than Keras's ``BackupAndRestore``: the states of dropout and augmentation, those of Python's and NumPy's
generators, the state of every callback, and the history.
"""

import contextlib
import json
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import durable

NAME = "checkpoint.npz"
PAUSE = 60.0
"""Seconds between two checkpoints where the workflow does not say after how many epochs one is due."""

_FORMAT = 2
_NOT_STATE = {"_model", "params", "monitor_op", "validation_data"}
"""What Keras gives a callback anew in each training."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training after some whole epochs."""

    epochs: int
    """How many are done."""
    has_stopped: bool
    """Whether a callback had asked to stop."""
    history: Mapping[str, list[float]]
    callbacks: list[Mapping[str, Any]]
    generators: Mapping[str, Any]
    arrays: Mapping[str, Any]


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; None where there is none that can be used."""
    import numpy as np

    if not (folder / NAME).is_file():  # from a pipe in its place reading may never end
        return None
    try:
        # Opened here, as NumPy leaves a file open that is no zip file.
        with (folder / NAME).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # each has a sum of its own, which is checked
        state = json.loads(arrays.pop("state").tobytes())
        if state.pop("format") != _FORMAT or state.pop("names") != sorted(arrays):
            return None
        return Checkpoint(arrays=arrays, **state)
    except Exception:  # noqa: BLE001  damage: NumPy, zipfile, its ways to pack, and JSON have a dozen words for it
        return None


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Put a checkpoint in place of the last one in one step, and on the disk."""
    import numpy as np

    state = {
        "format": _FORMAT,
        "names": sorted(checkpoint.arrays),
        "epochs": checkpoint.epochs,
        "has_stopped": checkpoint.has_stopped,
        "history": checkpoint.history,
        "callbacks": checkpoint.callbacks,
        "generators": checkpoint.generators,
    }
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    with durable.replacing(folder / NAME) as staged, Path(staged).open("xb") as stream:
        np.savez(stream, state=text, **checkpoint.arrays)


def checkpoint_callback(model: Any, callbacks: list[Any], history: Any, folder: Path, every: int | None) -> Any:
    """Make the callback that takes up a checkpoint, if there is one, and makes new ones.

    Parameters
    ----------
    model : keras.Model
        The model, compiled; its variables and those of its optimizer are kept.
    callbacks : list of keras.callbacks.Callback
        The other callbacks; this one must come after them, for they forget their state when a training begins.
    history : keras.callbacks.History
        The one that the training keeps; before this callback as well.
    folder : Path
        Where the checkpoint lies.
    every : int, optional
        Epochs between two checkpoints; default as many as pass in a minute.

    Returns
    -------
    keras.callbacks.Callback
        Its ``epochs`` says how many epochs are done already.
    """
    import keras

    found = read_checkpoint(folder)

    class Resume(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
        """Restores a training and writes down how far it is."""

        epochs = found.epochs if found else 0
        has_stopped = bool(found and found.has_stopped)

        def on_train_begin(self, logs: Any = None) -> None:
            del logs
            self.written = time.monotonic()
            if found:
                _restore(found, model, callbacks)
                history.history.update(found.history)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del logs
            is_last = epoch + 1 == self.params["epochs"]
            is_due = (epoch + 1) % every == 0 if every else time.monotonic() - self.written >= PAUSE
            if is_due and not is_last:
                # Where locks lie, another run may do the same training, be done with it, and tidy up.
                with contextlib.suppress(FileNotFoundError):
                    write_checkpoint(_capture(epoch + 1, model, callbacks, history.history), folder)
                self.written = time.monotonic()

    return Resume()


def _variables(model: Any) -> list[Any]:
    """Return all that a training changes: weights, random states, and the optimizer's variables."""
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables, *_global_generator()]


def _global_generator() -> Iterable[Any]:
    from keras.src.random.seed_generator import global_seed_generator

    return [global_seed_generator().state]


def _capture(epochs: int, model: Any, callbacks: list[Any], curves: Mapping[str, list[float]]) -> Checkpoint:
    import keras
    import numpy as np

    values = [keras.ops.convert_to_numpy(each) for each in _variables(model)]
    arrays = {f"variable{number}": _storable(value) for number, value in enumerate(values)}
    states: list[Mapping[str, Any]] = []
    for number, callback in enumerate(callbacks):
        state: dict[str, Any] = {}
        for name, value in vars(callback).items():
            if name not in _NOT_STATE:
                _pack(f"callback{number}.{name}", name, value, state, arrays)
        states.append(state)
    history = {name: [float(value) for value in curve] for name, curve in curves.items()}
    kind, keys, *rest = np.random.get_state()
    arrays["numpy"] = np.asarray(keys)
    generators = {"python": random.getstate(), "numpy": [kind, *rest]}
    return Checkpoint(epochs, bool(model.stop_training), history, states, generators, arrays)


def _storable(value: Any) -> Any:
    """Return the bytes of an array of a type that NumPy cannot store, such as bfloat16, as whole numbers."""
    return value.view(f"u{value.dtype.itemsize}") if value.dtype.kind == "V" else value


def _pack(key: str, name: str, value: Any, state: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Keep a value of a callback as JSON or as arrays; what is neither is made anew by the callback itself."""
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        arrays[key], state[name] = value, {"array": key}
    elif isinstance(value, list | tuple) and value and all(isinstance(each, np.ndarray) for each in value):
        arrays.update({f"{key}.{number}": each for number, each in enumerate(value)})
        state[name] = {"arrays": [f"{key}.{number}" for number in range(len(value))]}
    elif _is_plain(value):
        state[name] = {"value": value}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _restore(checkpoint: Checkpoint, model: Any, callbacks: list[Any]) -> None:
    import keras
    import numpy as np

    for number, variable in enumerate(_variables(model)):
        kept = keras.ops.convert_to_numpy(variable).dtype
        variable.assign(checkpoint.arrays[f"variable{number}"].view(kept))
    for callback, state in zip(callbacks, checkpoint.callbacks, strict=True):
        for name, packed in state.items():
            setattr(callback, name, _unpack(packed, checkpoint.arrays))
    version, keys, gauss = checkpoint.generators["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, *rest = checkpoint.generators["numpy"]
    np.random.set_state((kind, checkpoint.arrays["numpy"], *rest))


def _unpack(packed: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    if "array" in packed:
        return arrays[packed["array"]]
    if "arrays" in packed:
        return [arrays[name] for name in packed["arrays"]]
    return packed["value"]
