"""From arrays to batches: what `fit`, `evaluate` and `predict` are fed with."""

from collections.abc import Mapping
from typing import Any

from kflow.spec.base import Examination, StepContext
from kflow.spec.facts import ArrayFact
from kflow.spec.types import Array

Arrays = Array | tuple[Array, ...] | dict[str, Array]
"""One array, a list of them, or arrays by the names of the model's inputs or outputs."""


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
    """Open the arrays of a field, to be read batch by batch by ``fit``, ``evaluate`` and ``predict``."""
    from kflow.core.rows.fitting import teach_keras

    teach_keras()
    return _map(context.open, nest)


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
