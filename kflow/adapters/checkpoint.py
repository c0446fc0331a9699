"""Checkpoints of a training: all that the next epoch hangs on, in one file that is there whole or not at all.

A training that continues from one ends with the same bits as one that was never interrupted, on the CPU. For that
it holds more than Keras's ``BackupAndRestore``: the states of dropout and augmentation, those of Python's and NumPy's
generators, all else that the training function changes, the state of every callback, and the history.
"""

import contextlib
import inspect
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow import durable
from kflow.adapters.plain import NotPlainError, Packing, Unpacking
from kflow.adapters.traces import Attribute, Watch
from kflow.durable import open_at_once

NAME = "checkpoint.npz"
PAUSE = 60.0
"""Seconds between two checkpoints where the workflow does not say after how many epochs one is due."""

_FORMAT = 4
_NOT_STATE = {"_model", "params"}
"""What Keras gives a callback anew in each training."""
_NO_MORE = (
    "no checkpoint after epoch {} or later: the model was compiled anew, its training function was made anew, or what "
    "is trainable was changed; after an interruption the training goes on from the checkpoint before, if there is one"
)


class UnfitError(ValueError):
    """A checkpoint is of another training, or of no use to any."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training after some whole epochs."""

    epochs: int
    """How many are done."""
    history: Mapping[str, list[Any]]
    variables: list[Any]
    """The arrays of all that a training changes in model and optimizer."""
    captured: list[Any]
    """The arrays of what else the training function uses: state of a loss, of metrics, of further optimizers."""
    batch: Any
    """The shape and type of each array in a batch, to trace the training function with; None before the first."""
    callbacks: list[Mapping[str, Any]]
    """The attributes of each callback."""
    logs: list[bytes | None]
    """What each callback has written, if it is a CSVLogger."""
    generators: tuple[Any, ...]
    """The states of the generators of Python, NumPy and Keras; None for Keras's if nothing has drawn from it yet."""


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder; None where there is none.

    Raises
    ------
    UnfitError
        If it is damaged, or of another version of kflow.
    """
    import numpy as np

    if not (folder / NAME).exists():
        return None
    try:
        # Opened here, as NumPy leaves a file open that is no zip file.
        with open(folder / NAME, "rb", opener=open_at_once) as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # each has a sum of its own, which is checked
        state = json.loads(arrays.pop("state").tobytes())
        if state["format"] != _FORMAT:
            message = "its checkpoint is of another version of kflow"
            raise UnfitError(message)
        unpacking = Unpacking(arrays, _known())
        attributes: list[Mapping[str, Any]] = [
            {name: unpacking.take(packed) for name, packed in callback.items()} for callback in state["callbacks"]
        ]
        return Checkpoint(callbacks=attributes, **unpacking.take(state["rest"]))
    except UnfitError:
        raise
    except Exception as error:  # damage: NumPy, zipfile, its ways to pack, and JSON have a dozen words for it
        message = "its checkpoint is damaged"
        raise UnfitError(message) from error


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> list[Attribute]:
    """Put a checkpoint in place of the last one in one step, and on the disk.

    Returns
    -------
    list
        The attributes of callbacks that are no plain values, and so are not in it.
    """
    import numpy as np

    packing, left_out = Packing(_known()), []
    callbacks: list[dict[str, Any]] = []
    for number, attributes in enumerate(checkpoint.callbacks):
        callbacks.append({})
        for name, value in attributes.items():
            try:
                callbacks[-1][name] = packing.add(value)
            except NotPlainError:
                left_out.append((number, name))
    rest = {name: getattr(checkpoint, name) for name in checkpoint.__slots__ if name != "callbacks"}
    state = {"format": _FORMAT, "callbacks": callbacks, "rest": packing.add(rest)}
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    with durable.replacing(folder / NAME) as staged, Path(staged).open("xb") as stream:
        np.savez(stream, state=text, **packing.arrays)
    return left_out


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint in a folder, or what lies in its place."""
    if (folder / NAME).is_dir():
        shutil.rmtree(folder / NAME, ignore_errors=True)
    (folder / NAME).unlink(missing_ok=True)


def _known() -> tuple[Any, ...]:
    """Return what callbacks of Keras compare with: the sign of their ``min_delta`` hangs on having chosen one."""
    import keras

    return keras.ops.less, keras.ops.greater


def checkpoint_callback(
    model: Any,
    callbacks: list[Any],
    history: Any,
    folder: Path,
    *,
    every: int | None,
    require: Callable[[], None],
    resumed: Callable[[int], None],
    warn: Callable[[str], None],
) -> Any:
    """Make the callback that takes up a checkpoint, if there is one, and makes new ones.

    Parameters
    ----------
    model : keras.Model
        The model, compiled; its variables are kept, and all others that its training function uses.
    callbacks : list of keras.callbacks.Callback
        The other callbacks; this one must come after them, for they forget their state when a training begins.
    history : keras.callbacks.History
        The one that the training keeps; before this callback as well.
    folder : Path
        Where the checkpoint lies.
    every : int, optional
        Epochs between two checkpoints; default as many as pass in a minute.
    require : callable
        Raises an error if what the training was given is not what it was, and so what it has learnt.
    resumed : callable
        Takes the number of epochs that are done, when the training goes on after them.
    warn : callable
        Takes a sentence on what a callback has changed and cannot be kept.

    Returns
    -------
    keras.callbacks.Callback
        Its ``epochs`` says how many epochs are done already. Training with it raises an `UnfitError` if the checkpoint
        is of another training. A damaged one is refused at once, in the same way.
    """
    import keras

    found = read_checkpoint(folder)

    class Resume(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
        """Restores a training and writes down how far it is."""

        epochs = found.epochs if found else 0

        def on_train_begin(self, logs: Any = None) -> None:
            del logs
            self.written = time.monotonic()
            self.batch: Any = found.batch if found else None
            if found:
                _restore(found, model, callbacks)
                history.history.update(found.history)
                resumed(found.epochs)
            elif any(map(_appends, callbacks)):
                self._write(0)  # what a killed training has appended must go before it begins again
            self.began_with: Any = _what_is_trained(model)
            self.watch = Watch(callbacks, lambda: _kept(model, callbacks), warn)
            if self.batch is None:
                _note_first_batch(model, self)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del logs
            # After the last one there is nothing to go on with, and what looks at the logs of an epoch would get none.
            is_last = epoch + 1 == self.params["epochs"] or model.stop_training
            is_due = (epoch + 1) % every == 0 if every else time.monotonic() - self.written >= PAUSE
            if is_due and not is_last and self._can_keep(epoch + 1):
                self.watch.tell(self._write(epoch + 1))
                self.written = time.monotonic()

        def _can_keep(self, epochs: int) -> bool:
            if self.began_with and not _is_trained_as(self.began_with, model):
                self.began_with = None
                warn(_NO_MORE.format(epochs))
            return self.began_with is not None

        def _write(self, epochs: int) -> list[Attribute]:
            require()
            # Where locks lie, another run may do the same training, be done with it, and tidy up.
            with contextlib.suppress(FileNotFoundError):
                return write_checkpoint(_capture(epochs, model, callbacks, history.history, self.batch), folder)
            return []

    return Resume()


def _is_log(callback: Any) -> bool:
    import keras

    return isinstance(callback, keras.callbacks.CSVLogger)


def _appends(callback: Any) -> bool:
    return _is_log(callback) and bool(callback.append)


def _attributes(callback: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(callback).items() if name not in _NOT_STATE}


def _variables(model: Any) -> list[Any]:
    """Return what there is of all that a training changes: weights, random states, and the optimizer's variables.

    Nothing is built for it: the first step may make weights, and trains those that it likes.
    """
    return [*model.variables, *model.optimizer.variables]


def _kept(model: Any, callbacks: list[Any]) -> set[int]:
    """Return the ids of what a checkpoint has anyhow."""
    variables = _variables(model)
    return {id(each) for each in (*variables, *(variable.value for variable in variables), *callbacks, random._inst)}


def _what_is_trained(model: Any) -> dict[int, Any]:
    """Return the training function and which layers are trainable: a training that goes on has both from the workflow.

    The keys are ids, for a layer may be equal to another one.
    """
    layers = {id(layer): (layer, layer.trainable) for layer in model._flatten_layers()}
    return {0: model.train_function, **layers}


def _is_trained_as(before: dict[int, Any], model: Any) -> bool:
    now = _what_is_trained(model)
    return all(now.get(key, value) == value for key, value in before.items())


def _note_first_batch(model: Any, resume: Any) -> None:
    """Note of the first batch, when it is done, the shape and type of each array, as text, and what layers it made."""
    import keras

    function = model.train_function

    def first(iterator: Any) -> Any:
        model.train_function = function
        logs = function(iterator)
        describe = lambda array: json.dumps([array.shape.as_list(), array.dtype.name])  # noqa: E731
        resume.batch = keras.tree.map_structure(describe, iterator.element_spec)
        resume.began_with = _what_is_trained(model) | resume.began_with
        return logs

    model.train_function = first


def _trace(model: Any, batch: Any) -> Any:
    """Return the training function for such batches as TensorFlow has it; None where it has none to show.

    It is made if it is not there yet, and with it all that the first step makes.
    """
    import keras
    import tensorflow as tf

    # Keras hides the function of TensorFlow inside one that asks whether there was another batch.
    function: Any = inspect.getclosurevars(model.train_function).nonlocals.get("multi_step_on_iterator")
    if batch is None or not hasattr(function, "get_concrete_function"):  # what is run eagerly tells of no variables
        return None
    spec = keras.tree.map_structure(lambda text: tf.TensorSpec(*json.loads(text)), batch)
    return function.get_concrete_function(tf.data.IteratorSpec(spec))


def _captured(model: Any, traced: Any) -> list[Any]:
    """Return the variables that a training function uses besides those that are kept anyhow, in its order."""
    import tensorflow as tf

    if traced is None:
        return []
    by_handle = {id(variable.handle): variable for variable in traced.variables if variable.dtype != tf.string}
    generator = _global_generator()
    own = {id(each.value.handle) for each in (*_variables(model), *([generator.state] if generator else []))}
    handles = [id(handle) for handle in traced.captured_inputs]
    return [by_handle[each] for each in handles if each in by_handle and each not in own]


def _global_generator() -> Any:
    """Return what Keras draws from without a seed; None as long as it has not: making it draws from Python's."""
    from keras.src.backend.common.global_state import get_global_attribute
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    return get_global_attribute(GLOBAL_SEED_GENERATOR)


def _capture(epochs: int, model: Any, callbacks: list[Any], curves: Mapping[str, list[Any]], batch: Any) -> Checkpoint:
    import keras
    import numpy as np

    generator = _global_generator()
    drawn = generator and keras.ops.convert_to_numpy(generator.state)
    return Checkpoint(
        epochs=epochs,
        history={name: [_number_or_array(value) for value in curve] for name, curve in curves.items()},
        variables=[keras.ops.convert_to_numpy(each) for each in _variables(model)],
        captured=[each.numpy() for each in _captured(model, _trace(model, batch))],
        batch=batch,
        callbacks=[_attributes(callback) for callback in callbacks],
        logs=[_read_log(callback) if _is_log(callback) else None for callback in callbacks],
        generators=(random.getstate(), np.random.get_state(legacy=False), drawn),
    )


def _number_or_array(value: Any) -> Any:
    import keras

    return value if isinstance(value, float | int) else keras.ops.convert_to_numpy(value)


def _read_log(callback: Any) -> bytes | None:
    """Return the rows that a CSVLogger has written; None if they cannot be read any more."""
    from keras.src.utils import file_utils  # it opens what the callback opens

    with contextlib.suppress(OSError), file_utils.File(callback.filename, "rb") as stream:
        return bytes(stream.read())
    return None


def _restore(checkpoint: Checkpoint, model: Any, callbacks: list[Any]) -> None:
    traced = _trace(model, checkpoint.batch)
    if len(_variables(model)) < len(checkpoint.variables) and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)  # as an eager step has built it, which is not made by tracing
    _assign(_variables(model), checkpoint.variables)
    _assign(_captured(model, traced), checkpoint.captured)
    for callback, attributes, log in zip(callbacks, checkpoint.callbacks, checkpoint.logs, strict=True):
        vars(callback).update(attributes)
        if log is not None:
            _put_back(callback, log)
    _set_generators(*checkpoint.generators)


def _set_generators(python: Any, numpy: Any, drawn: Any) -> None:
    import numpy as np
    from keras.src.random.seed_generator import global_seed_generator

    if drawn is not None:
        global_seed_generator().state.assign(drawn)
    random.setstate(python)  # after Keras's, which is seeded from it
    np.random.set_state(numpy)


def _assign(variables: list[Any], values: list[Any]) -> None:
    here, there = ([tuple(each.shape) for each in some] for some in (variables, values))
    if here != there:
        message = "its checkpoint has variables of other shapes"
        raise UnfitError(message)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _put_back(callback: Any, log: bytes) -> None:
    """Give a CSVLogger the rows up to the checkpoint: it has emptied its file, or left in it what came afterwards."""
    from keras.src.utils import file_utils

    callback.csv_file.close()
    with file_utils.File(callback.filename, "wb") as stream:
        stream.write(log)
    callback.csv_file = file_utils.File(callback.filename, "a")
    callback.append_header = callback.append_header and callback.keys is None  # it stands before the first row
