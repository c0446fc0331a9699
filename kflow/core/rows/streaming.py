"""Arrays that lie in files, read batch by batch: in memory that does not grow with them."""

from __future__ import annotations

import contextlib
import math
import operator
import random
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kflow.core.rows.stored import empty_aligned, tensor_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Stream", "batches", "count_rows", "is_read_by_rows"]

_BLOCK = 2**20  # bytes that are read at a time: small batches would each pay for a call of Python
_UNSEEN = 0.05  # seconds for which rows are taken from a mapped file that nobody looked at: each look waits for Python
_FEW = 2**24  # bytes that may be copied into memory, whatever the size of the data


def is_read_by_rows(nest: Any) -> bool:
    """Whether something in lists, tuples and dictionaries is to be read by rows, as an `HDF5Matrix` is.

    The class of such a thing has an attribute ``is_read_by_rows = True``, a ``shape``, and indexing by slices and
    by arrays of row numbers; if it has a method ``unpack`` like that of `HDF5Matrix`, it is called before reading.
    If ``gives_copies`` is True as well, what it gives is nobody else's, and is not copied once more. A method
    ``stored`` like that of `HDF5Matrix` lets TensorFlow take the rows from where they lie.
    """
    if isinstance(nest, Mapping):
        nest = tuple(nest.values())
    if isinstance(nest, list | tuple):
        return any(map(is_read_by_rows, nest))
    return getattr(type(nest), "is_read_by_rows", False) is True


def count_rows(nest: Any) -> int:
    """Return the number of rows that all arrays in lists, tuples and dictionaries have.

    Raises
    ------
    ValueError
        If they differ, or something is not an array.
    """
    import keras

    shapes: list[Any] = [getattr(leaf, "shape", ()) for leaf in keras.tree.flatten(nest) if leaf is not None]
    if not all(len(shape) for shape in shapes):
        msg = "inputs, targets and sample weights must be arrays, or lists, tuples and dictionaries of arrays"
        raise ValueError(msg)
    counts = sorted({int(shape[0]) for shape in shapes})
    if len(counts) != 1:
        msg = f"the arrays have different numbers of rows: {', '.join(map(str, counts))}"
        raise ValueError(msg)
    return counts[0]


def batches(
    arrays: Any,
    batch_size: int = 32,
    *,
    shuffle: bool | Literal["batch"] = False,
    start: int = 0,
    end: int | None = None,
    seed: int | None = None,
) -> Any:
    """Make a ``tf.data.Dataset`` of the rows of arrays, for loops of one's own.

    Parameters
    ----------
    arrays : nested arrays
        An `HDF5Matrix`, an array, or tuples, lists and dictionaries of them, such as ``(x, y)``.
    batch_size : int, default 32
        The rows in a batch; the last one may have less.
    shuffle : bool or "batch", default False
        True takes the rows in a random order, a new one in each epoch. ``"batch"`` shuffles whole batches of
        consecutive rows; the last, short one stays the last. So it was in Keras 2.1.
    start, end : int
        The rows to use; default all.
    seed : int, optional
        Of the order; by default one from Python's generator, which ``keras.utils.set_random_seed`` seeds.

    Returns
    -------
    tf.data.Dataset
        Of batches in the structure of the arrays, with lists as tuples. Floats have the type
        ``keras.config.floatx()``, all others their own.

    Raises
    ------
    ValueError
        If there are no rows, the arrays have different numbers of them, or ``shuffle`` is something else.

    Examples
    --------
    >>> import h5py, tempfile
    >>> from kflow.core import HDF5Matrix
    >>> path = tempfile.mkdtemp() + "/digits.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["images"] = np.arange(5)
    >>> for x, y in batches((HDF5Matrix(path, "images"), np.arange(5) * 10), batch_size=3):
    ...     print(x.numpy(), y.numpy())
    [0 1 2] [ 0 10 20]
    [3 4] [30 40]
    """
    return Stream(arrays, batch_size, shuffle=shuffle, start=start, end=end, seed=seed).dataset


class Stream:
    """A data set of batches of rows, and the error that stopped it, if one did."""

    def __init__(
        self,
        arrays: Any,
        batch_size: int,
        *,
        shuffle: bool | Literal["batch"] = False,
        start: int = 0,
        end: int | None = None,
        seed: int | None = None,
    ) -> None:
        import keras
        import tensorflow as tf

        self.error: Exception | None = None
        self._start, self._stop, _ = slice(start, end).indices(count_rows(arrays))
        if self._start >= self._stop:
            msg = f"there are no rows from {self._start} to {self._stop}; nothing can be computed of none"
            raise ValueError(msg)
        if not hasattr(batch_size, "__index__") or batch_size < 1:
            msg = f"batch_size must be a number of rows, at least 1, not {batch_size!r}"
            raise ValueError(msg)
        is_text = isinstance(shuffle, str)
        if shuffle != "batch" if is_text else not isinstance(shuffle, bool | int | np.bool_ | None):
            msg = f"shuffle must be True, False or 'batch', not {shuffle!r}"
            raise ValueError(msg)
        self._batch_size, self._shuffle = min(operator.index(batch_size), self._stop - self._start), shuffle
        self._seed = random.getrandbits(64) if seed is None and shuffle else seed
        self._epoch = 0
        self._looked = empty_aligned((1,), np.dtype("float64"))  # when, in seconds since 1970; read by TensorFlow
        self._looked[0] = 0.0
        self._floatx = keras.config.floatx()
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        self._arrays = [leaf if is_read_by_rows(leaf) else np.asarray(leaf) for leaf in leaves]
        for array in self._arrays:
            if hasattr(array, "unpack"):
                array.unpack(self._start, self._stop, is_shuffled=bool(shuffle))
        self.dataset = self._dataset(keras.tree.lists_to_tuples(arrays))
        self.dataset.kflow_stream = self  # the data set, and nothing else, keeps what it reads alive
        if not tf.executing_eagerly():  # it goes when the graph is made, and the graph will read
            graph = tf.compat.v1.get_default_graph()
            graph.kflow_streams = [*getattr(graph, "kflow_streams", []), self]

    def _dataset(self, structure: Any) -> Any:
        """Return the data set: row numbers, the rows of some batches at a time, then single batches."""
        import keras
        import tensorflow as tf

        batch_size, rows = self._batch_size, self._stop - self._start
        samples = self._read(np.arange(self._start, self._start + 1))
        row_bytes = sum(sample.nbytes for sample in samples)
        size = batch_size * max(1, _BLOCK // max(1, batch_size * row_bytes))

        read_block = self._reading(samples)

        def read(numbers: Any) -> Any:
            blocks = read_block(numbers)
            for block, sample in zip(blocks, samples, strict=True):
                block.set_shape((None, *sample.shape[1:]))
            given = iter(blocks)  # None, for an output without targets or weights, stays None
            leaves = [None if leaf is None else next(given) for leaf in keras.tree.flatten(structure)]
            return keras.tree.pack_sequence_as(structure, leaves)

        options = tf.data.Options()
        # The optimizer of graphs takes longer than it saves here; nothing is left to it. Keras does the same.
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        found = self._numbers(size).map(read, num_parallel_calls=2)
        if size > batch_size:
            found = found.rebatch(batch_size)
        found = found.concatenate(self._end().flat_map(lambda _: found.take(0)))
        found = found.apply(tf.data.experimental.assert_cardinality(math.ceil(rows / batch_size)))
        return found.with_options(options).prefetch(tf.data.AUTOTUNE)

    def _end(self) -> Any:
        """Return a data set for the end of an epoch, at which the files are looked at once more."""
        import tensorflow as tf

        look = _without_owner(self.look_at_end)
        return tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(look, [], tf.bool))

    def _reading(self, samples: list[NDArray[Any]]) -> Callable[[Any], list[Any]]:
        """Return a function of TensorFlow's from the numbers of a block to its rows of each array.

        Where rows are taken from where they lie, that is looked at now and then: each look waits for Python.
        """
        import tensorflow as tf

        read, look = _without_owner(self._read), _without_owner(self._look)
        tensors = self._tensors = self._stored(samples)  # the mapping must not end in a thread of TensorFlow's
        if not tensors:
            return lambda numbers: tf.numpy_function(read, [numbers], [sample.dtype for sample in samples])
        looked = tensor_on(self._looked)

        def take(numbers: Any) -> list[Any]:
            is_due = tf.abs(tf.timestamp() - looked[0]) > _UNSEEN
            seen = tf.cond(is_due, lambda: tf.numpy_function(look, [], tf.bool), lambda: False)
            with tf.control_dependencies([seen]):
                return [tf.gather(tensor, numbers + row if row else numbers) for tensor, row in tensors]

        return take

    def _numbers(self, size: int) -> Any:
        """Return the data set of the numbers of the rows, in blocks."""
        import tensorflow as tf

        draw_order = _without_owner(self._draw_order)
        first_row, rows = self._start, self._stop - self._start

        def order(_: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(draw_order, [], tf.int64), [rows])

        def in_order(first: Any) -> Any:
            return first_row + tf.range(first, tf.minimum(first + size, rows))

        def blocks(numbers: Any) -> Any:
            return tf.data.Dataset.range(0, rows, size).map(lambda first: numbers[first : first + size])

        if not self._shuffle:
            return tf.data.Dataset.range(0, rows, size).map(in_order)
        return tf.data.Dataset.range(1).map(order).flat_map(blocks)

    def _stored(self, samples: list[NDArray[Any]]) -> list[tuple[Any, int]]:
        """Return a tensor for each array, and the number in it of row 0; none at all if one of them has none.

        Reading in Python waits for the training, which is in Python most of the time.
        """
        import tensorflow as tf

        if not tf.executing_eagerly():  # what a graph takes, it must have in itself
            return []
        found = [self._tensor(array, sample.dtype) for array, sample in zip(self._arrays, samples, strict=True)]
        return [each for each in found if each] if all(found) else []

    def _tensor(self, array: Any, fed: np.dtype[Any]) -> tuple[Any, int] | None:
        """Return a tensor with the rows, and the number in it of row 0: on a mapped file, or a copy of few rows."""
        import tensorflow as tf

        rows, first = (array, 0) if isinstance(array, np.ndarray) else self._where(array) or (None, 0)
        if rows is None:
            return None
        tensor = tensor_on(rows) if rows is not array and rows.dtype == fed else None
        if tensor is not None:
            return tensor, first
        used = rows[self._start + first : self._stop + first]
        if used.dtype.kind not in "biuf" or used.nbytes > _FEW:
            return None
        with tf.device("CPU"):  # whatever device the model is on
            return tf.constant(self._as_fed(used, is_fresh=False)), -self._start

    def _where(self, array: Any) -> tuple[NDArray[Any], int] | None:
        """Return where the rows of an array lie, if they lie somewhere as they are; raise if they have changed."""
        return array.stored(self._start, self._stop) if hasattr(type(array), "stored") else None

    def _look(self) -> np.bool_:
        """Raise if rows that are taken from where they lie are no longer those that were asked for."""
        try:
            for array in self._arrays:
                self._where(array)
        except Exception as error:
            self.error = error
            raise
        self._looked[0] = time.time()
        return np.True_

    def look_at_end(self) -> np.bool_:
        """Raise what reading raises if a file has changed; one that was closed meanwhile is done with."""
        with contextlib.suppress(ValueError):
            self._read(np.arange(self._start, self._start + 1))  # looks at the files, whatever the arrays are
        return np.True_

    def begin_epoch(self, epoch: int) -> None:
        """Let the next order be that of an epoch, however often the data were looked at before."""
        self._epoch = epoch

    def _draw_order(self) -> NDArray[np.int64]:
        """Return the numbers of the rows in the order of the next epoch."""
        draw = np.random.default_rng([self._seed or 0, self._epoch])
        self._epoch += 1
        rows = self._stop - self._start
        if self._shuffle != "batch":
            return draw.permutation(np.arange(self._start, self._stop))
        whole = rows // self._batch_size
        firsts = self._start + draw.permutation(whole) * self._batch_size
        numbers = (firsts[:, np.newaxis] + np.arange(self._batch_size)).ravel()
        return np.concatenate([numbers, np.arange(self._start + whole * self._batch_size, self._stop)])

    def _read(self, numbers: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return these rows of each array, as Keras takes them."""
        rows = numbers if self._shuffle else slice(int(numbers[0]), int(numbers[-1]) + 1)
        try:
            return [
                self._as_fed(np.asarray(array[rows]), getattr(array, "gives_copies", False)) for array in self._arrays
            ]
        except Exception as error:
            self.error = error  # TensorFlow hands on its text only
            raise

    def _as_fed(self, block: NDArray[Any], is_fresh: bool) -> NDArray[Any]:
        """Return floats in the type of Keras, and everything in the byte order of the machine, in memory of its own.

        TensorFlow takes an array that is aligned as it is, and may write into it; it must not be somebody's.
        """
        dtype = np.dtype(self._floatx) if block.dtype.kind == "f" else block.dtype.newbyteorder("=")
        if dtype.hasobject or (is_fresh and block.dtype == dtype):
            return block
        copy = empty_aligned(block.shape, dtype)
        copy[...] = block
        return copy


def _without_owner(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a method without keeping its object: TensorFlow keeps functions for ever."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        found = reference()
        if found is None:
            msg = "the data set that these rows belong to is gone"
            raise ReferenceError(msg)
        return found(*args)

    return call
