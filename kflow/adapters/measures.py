"""What Keras measures, as one number to a name: a metric of several values, such as one for each class, has several."""

from collections.abc import Mapping, Sequence
from typing import Any


def by_number(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of some measures by name.

    Examples
    --------
    >>> import numpy as np
    >>> by_number({"loss": 0.5, "f1_score": np.array([1.0, 0.25])})
    {'loss': 0.5, 'f1_score[0]': 1.0, 'f1_score[1]': 0.25}
    """
    return {name: number for each, value in measured.items() for name, number in _numbers(each, value)}


def curves_by_number(curves: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """Return the curve of each number in those of some measures, one value an epoch."""
    found: dict[str, list[float]] = {}
    for each, curve in curves.items():
        if not curve:
            found[each] = []
        for value in curve:
            for name, number in _numbers(each, value):
                found.setdefault(name, []).append(number)
    return found


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    import numpy as np

    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return [(name, float(array))]
    return [(f"{name}[{','.join(map(str, place))}]", float(number)) for place, number in np.ndenumerate(array)]
