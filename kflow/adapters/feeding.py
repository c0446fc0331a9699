"""From arrays to batches: what `fit`, `evaluate` and `predict` are fed with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kflow.spec.base import Examination, StepContext
from kflow.spec.facts import ArrayFact
from kflow.spec.types import Array

if TYPE_CHECKING:
    from kflow.artifacts.array import Rows

Arrays = Array | tuple[Array, ...] | dict[str, Array]
"""One array, a list of them, or arrays by the names of the model's inputs or outputs."""

MEMORY_LIMIT = 512 * 2**20
"""Up to this many bytes, as stored, a source is read once and kept; a greater one is read batch by batch."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows of a nest of arrays: rows from `start` to `end`."""

    nest: Any
    start: int
    end: int

    def read(self, rows: Any) -> Any:
        """Read rows, counted from the start of the part."""
        return _map(lambda array: array[rows + self.start], self.nest)


def _map(function: Any, nest: Any) -> Any:
    if nest is None:
        return None
    if isinstance(nest, tuple):
        return tuple(_map(function, item) for item in nest)
    if isinstance(nest, Mapping):
        return {name: _map(function, item) for name, item in nest.items()}
    return function(nest)


def _leaves(nest: Any) -> list[Any]:
    found: list[Any] = []
    _map(found.append, nest)
    return found


def open_arrays(context: StepContext, nest: Any) -> Any:
    """Open the arrays of a field, small ones in memory."""

    def load(reference: Array) -> "Rows":
        rows: Rows = context.open(reference)
        return rows.in_memory(MEMORY_LIMIT)

    return _map(load, nest)


def count_rows(nest: Any) -> int:
    """Return the number of rows that all arrays of a nest have.

    Raises
    ------
    ValueError
        If they differ.
    """
    counts = {len(array) for array in _leaves(nest)}
    if len(counts) != 1:
        message = f"the arrays have different numbers of rows: {', '.join(map(str, sorted(counts)))}"
        raise ValueError(message)
    return counts.pop()


def batches(
    nest: Any, batch_size: int, *, start: int = 0, end: int | None = None, shuffle_seed: int | None = None
) -> Any:
    """Give rows to Keras in batches.

    Parameters
    ----------
    nest : nested Rows
        ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.
    batch_size : int
        The number of rows in a batch; the last one may have less.
    start, end : int
        The rows to use; default all.
    shuffle_seed : int, optional
        Shuffles the rows anew in each epoch, the same way for the same seed and epoch; default not shuffled.

    Returns
    -------
    kflow.core.Sequence
        Batches, read when they are asked for.
    """
    import numpy as np

    from kflow.core.sequences import Sequence

    part = Part(nest, start, count_rows(nest) if end is None else end)
    rows = part.end - part.start

    class Batches(Sequence):
        """Batches of rows; the order of an epoch follows from the seed and the number of the epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.epoch = 0
            self.order = self._new_order()

        def _new_order(self) -> Any:
            if shuffle_seed is None:
                return np.arange(rows)
            return np.random.default_rng([shuffle_seed, self.epoch]).permutation(rows)

        def __len__(self) -> int:
            return math.ceil(rows / batch_size)

        def __getitem__(self, index: int) -> Any:
            return part.read(self.order[index * batch_size : (index + 1) * batch_size])

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.order = self._new_order()

    return Batches()


def check_rows(exam: Examination, **fields: Any) -> None:
    """Report fields whose arrays have different numbers of rows."""
    seen: dict[int, str] = {}
    for name, nest in fields.items():
        for reference in _leaves(nest):
            fact = exam.fact(reference)
            rows = fact.rows if isinstance(fact, ArrayFact) else None
            if rows is not None:
                seen.setdefault(rows, name)
    if len(seen) > 1:
        counts = " and ".join(f"{name} has {rows:,} rows" for rows, name in seen.items())
        exam.problem(f"{counts}; they must have as many", next(reversed(seen.values())))
