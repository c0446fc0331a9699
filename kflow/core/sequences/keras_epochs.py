"""What Keras's ``fit``, ``evaluate`` and ``predict`` do with a ``Sequence``: epochs of our own instead of Keras's.

Keras 3.15 makes one ``TFEpochIterator`` for each of these calls and asks it for epochs. :func:`take_over` puts
:class:`Epochs` in its place, which leaves all data but sequences to Keras. Nothing else of Keras is changed. Should a
new Keras call other things, ``tests/core/test_keras_epochs.py`` says which.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorflow as tf
from keras.src.backend import standardize_dtype
from keras.src.backend.tensorflow import trainer
from keras.src.backend.tensorflow.trainer import TFEpochIterator
from keras.src.trainers.data_adapters.data_adapter_utils import NUM_BATCHES_FOR_TENSOR_SPEC, get_tensor_spec
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from kflow.core.sequences.epochs import Crew, Draws, begin_epoch, end_epoch
from kflow.core.sequences.workers import raise_noted, require_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def take_over(kind: type) -> None:
    """Feed Keras with the sequences of a class from now on."""
    Epochs.kinds += (kind,)
    trainer.TFEpochIterator = Epochs


@dataclass(slots=True)
class _Plan:
    """The batches of one epoch, and what went wrong while they were made."""

    indices: Iterable[int]
    failure: BaseException | None = None


class Feed(PyDatasetAdapter):  # type: ignore[misc]  # Keras has no types
    """Gives the batches of a sequence to Keras, one planned epoch at a time.

    Of Keras's adapter it keeps the ``tf.data`` pipeline and the rules for what a batch may be.
    """

    def __init__(self, x: Any, class_weight: Any, shuffle: bool) -> None:
        # Not super().__init__(), which would make an enqueuer of Keras's.
        self.py_dataset, self.class_weight, self.shuffle = x, class_weight, shuffle
        self.enqueuer = None
        self._output_signature: Any = None
        self._sound: Any = None
        self._draws = Draws()
        self._rest: list[int] = []
        self._start = 0
        self._crew: Crew | None = None
        self.plan = _Plan(())

    # --- what Keras calls ---------------------------------------------------------------------------------

    def get_tf_dataset(self) -> Any:
        """Read up to two batches for their shapes and dtypes, and return the pipeline."""
        if self.shuffle:
            self._draws.begin()
        try:
            self._output_signature = self._signature()
            self._sound = None
        except BaseException:
            self.dismiss()
            raise
        return super().get_tf_dataset()

    def _get_iterator(self) -> Iterator[Any]:
        """Yield the batches of the planned epoch; called by ``tf.data`` in a thread of its own.

        No exception leaves this generator, for TensorFlow would make another one of it, without its type. It is kept,
        and the data end here; :class:`Epochs` raises it in the thread of the one who called Keras.
        """
        plan = self.plan
        try:
            for index, batch in self._batches(plan.indices):
                if batch is not None:
                    yield self._standardize(index, batch)
        except GeneratorExit:  # the epoch was broken off
            raise
        except BaseException as error:  # noqa: BLE001
            plan.failure = error

    def on_epoch_begin(self) -> None:
        """Ignore Keras, which knows less of epochs than :class:`Epochs`."""

    def on_epoch_end(self) -> None:
        """Ignore Keras, which also calls this before the first epoch."""

    # --- what an epoch is made of ---------------------------------------------------------------------------

    def begin(self, steps: int | None) -> int | None:
        """Plan an epoch and get the workers ready; return the number of its batches, None if it is endless."""
        length = self._length()
        indices, total = self._choose(length, steps)
        self.plan = _Plan(indices)
        self._hire()
        return total

    def _hire(self) -> None:
        """Get the workers ready, if the sequence wants any; processes get it as it is now."""
        data = self.py_dataset
        require_limits(data.workers, data.max_queue_size, data.timeout, least=0)
        if data.workers > 1 or data.use_multiprocessing or data.timeout is not None:
            self._crew = self._crew or Crew(
                data,
                max(data.workers, 1),
                use_multiprocessing=data.use_multiprocessing,
                max_queue_size=data.max_queue_size,
                timeout=data.timeout,
            )
            self._crew.prepare(self._draws)

    def rewind(self) -> None:
        """Forget what ``steps_per_epoch`` left over: the next epoch begins with the first batch."""
        self._rest, self._start = [], 0

    def dismiss(self) -> None:
        """Let the workers go."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.pool.close()

    def _choose(self, length: int | None, steps: int | None) -> tuple[Iterable[int], int | None]:
        """Return the indices of an epoch, and how many they are.

        With ``steps`` the epochs share an endless stream of passes over the sequence, as in Keras 2.1.
        """
        if length is None:
            start, self._start = self._start, self._start + (steps or 0)
            return (count(start) if steps is None else range(start, start + steps)), steps
        if steps is None:
            return self._draws.order(length, shuffle=self.shuffle), length
        self._rest = [index for index in self._rest if index < length]
        while len(self._rest) < steps:
            self._rest += self._draws.order(length, shuffle=self.shuffle)
        chosen, self._rest = self._rest[:steps], self._rest[steps:]
        return chosen, steps

    def _length(self) -> int | None:
        length: int | None = self.py_dataset.num_batches
        if length is not None and length < 1:
            msg = f"{type(self.py_dataset).__name__} has no batches: its length is {length}"
            raise ValueError(msg)
        return length

    def _signature(self) -> Any:
        """Return the shapes and dtypes of the first two batches, made as those of an epoch but one by one."""
        length = self._length()
        self._hire()
        indices = range(length) if length is not None else count()
        made = (pair for index in indices for pair in self._batches([index]))
        given = ((index, self._standardize(index, batch)) for index, batch in made if batch is not None)
        probe = list(islice(given, NUM_BATCHES_FOR_TENSOR_SPEC))
        if not probe:
            msg = f"every batch of {type(self.py_dataset).__name__} is None"
            raise ValueError(msg)
        try:
            return get_tensor_spec([batch for _, batch in probe])
        except Exception as error:  # noqa: BLE001 - it is raised again
            raise_noted(error, probe[-1][0])  # each alone is sound: the last one does not go with the first

    def _batches(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Make batches by the workers if there are any, and when they are asked for if not."""
        return self._directly(indices) if self._crew is None else self._crew.batches(indices)

    def _directly(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Make batches without workers, when they are asked for."""
        for index in indices:
            try:
                batch = self.py_dataset[index]
            except BaseException as error:  # noqa: BLE001 - it is raised again
                raise_noted(error, index)
            yield index, batch

    def _standardize(self, index: int, batch: Any) -> Any:
        """Return a batch as Keras wants it, or raise what would otherwise fail without its index."""
        try:
            standard = _as_tuples(self._standardize_batch(batch))
            kind = _kind(standard)
            if kind is None or kind != self._sound:
                _check_arrays(standard)
                _check_shapes(standard, self._output_signature)
                self._sound = kind
            return standard
        except Exception as error:  # noqa: BLE001 - it is raised again
            raise_noted(error, index)


def _as_tuples(nest: Any) -> Any:
    """Replace lists, such as ``[x_1, x_2]`` for a model with two inputs, which ``tf.data`` takes for arrays."""
    if isinstance(nest, dict):
        return {name: _as_tuples(item) for name, item in nest.items()}
    if isinstance(nest, (list, tuple)):
        return tuple(_as_tuples(item) for item in nest)
    return nest


def _kind(batch: Any) -> Any:
    """Return all that the checks look at, for a batch of arrays side by side, which most are; None for any other."""
    if isinstance(batch, tuple) and all(type(array) is np.ndarray for array in batch):
        return [(array.dtype, array.shape) for array in batch]
    return None


def _check_arrays(batch: Any) -> None:
    """Refuse a batch with something else than arrays of what Keras knows."""
    for leaf in tf.nest.flatten(batch):
        if leaf is None:
            continue
        if not _shape(leaf):
            msg = f"it holds a single value, of type {type(leaf).__name__}, where an array must be; see numpy.asarray"
            raise ValueError(msg)
        try:
            standardize_dtype(leaf.dtype)
        except ValueError:
            msg = f"it holds an array of dtype {leaf.dtype}, which no model takes; convert it to numbers first"
            raise ValueError(msg) from None


def _check_shapes(batch: Any, signature: Any) -> None:
    """Refuse a batch whose shapes do not go with those of the first batches, or with one another."""
    if signature is not None and not _fits(batch, signature):
        msg = (
            f"its arrays have the shapes {_shapes(batch)} and those of the first batches {_shapes(signature)}; "
            "a size that varies (None) must do so in batches 0 and 1"
        )
        raise ValueError(msg)
    has_targets = isinstance(batch, tuple) and len(batch) > 1
    if has_targets and len({shape[:1] for shape in map(_shape, tf.nest.flatten(batch)) if shape}) > 1:
        msg = f"its arrays have different numbers of rows; the shapes are {_shapes(batch)}"
        raise ValueError(msg)


def _fits(batch: Any, signature: Any) -> bool:
    """Whether ``tf.data`` takes a batch, as far as it depends on its structure and shapes."""
    try:
        tf.nest.assert_same_structure(signature, batch)
    except (TypeError, ValueError):
        return False
    pairs = zip(tf.nest.flatten(signature), tf.nest.flatten(batch), strict=True)
    return all(tf.TensorShape(_shape(spec)).is_compatible_with(_shape(array)) for spec, array in pairs)


def _shape(array: Any) -> tuple[int | None, ...] | None:
    """Return the shape of an array, a tensor or a specification of one; None for anything else."""
    shape = getattr(array, "shape", None)
    return None if shape is None else tuple(shape)


def _shapes(nest: Any) -> Any:
    """Replace the arrays of a batch by their shapes."""
    return tf.nest.map_structure(_shape, nest)


class Epochs(TFEpochIterator):  # type: ignore[misc]  # Keras has no types
    """Keras's iterator over epochs, with the contract of ``Sequence`` when the data are one."""

    kinds: ClassVar[tuple[type, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        x, is_alone = kwargs.get("x"), kwargs.get("y") is None and kwargs.get("sample_weight") is None
        self._feed: Feed | None = None
        if isinstance(x, self.kinds) and is_alone:  # Keras has its own words for targets beside a sequence
            self._feed = Feed(x, kwargs.get("class_weight"), bool(kwargs.get("shuffle")))
            kwargs["x"] = self._feed
            weakref.finalize(self, self._feed.dismiss)
        self._is_epoch = False
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Start over with the first batch."""
        if self._feed is not None:
            self._feed.rewind()
        super().reset()

    def _enumerate_iterator(self) -> Iterator[tuple[int, int, Any]]:
        """Yield ``(first step, last step, iterator over batches)`` for each call of the model in one epoch."""
        if self._feed is None:
            yield from super()._enumerate_iterator()
            return
        feed, data, is_epoch = self._feed, self._feed.py_dataset, self._is_epoch
        if is_epoch:
            begin_epoch(data)
        self._num_batches = feed.begin(self.steps_per_epoch)
        self._current_iterator = iter(self._get_iterator())
        steps = count() if self._num_batches is None else range(self._num_batches)
        for step in islice(steps, 0, None, self.steps_per_execution):
            yield step, step + self.steps_per_execution - 1, self._current_iterator
        if feed.plan.failure is not None:  # with several steps in one call the last call may have got some batches
            raise feed.plan.failure
        if is_epoch:
            end_epoch(data)

    @contextmanager
    def catch_stop_iteration(self) -> Iterator[None]:
        """Surround an epoch.

        Keras asks for epochs inside of this context only when it means them. Outside of it, it begins one to build a
        model under a distribution strategy from its first batch: then no hook is called.
        """
        if self._feed is None:
            with super().catch_stop_iteration():
                yield
            return
        self._is_epoch = True
        try:
            with super().catch_stop_iteration():
                yield
        except BaseException:
            self._feed.dismiss()
            raise
        finally:
            self._is_epoch = False
            self._epoch_iterator = None  # also ends an epoch that was broken off

    def _interrupted_warning(self) -> None:
        """Raise what stopped the data, instead of the warning that there are none; skipped batches are no reason."""
        if self._feed is None:
            super()._interrupted_warning()
        elif self._feed.plan.failure is not None:
            raise self._feed.plan.failure
        elif self._is_epoch:
            end_epoch(self._feed.py_dataset)
