"""to_categorical against writing its result once, normalize against copying its input once, and both against Keras."""

from functools import partial

import numpy as np  # noqa: TID253 - a measurement is heavy
from measure import measure, show


def report(rounds: int) -> None:
    """Print the tables."""
    import keras

    for labels, classes in ((1_000_000, 10), (10_000_000, 10), (100_000, 1000)):
        _report_encoding(keras, labels, classes, rounds)
    for shape in ((1_000_000, 16), (60_000, 784), (1000, 100_000)):
        _report_normalizing(keras, shape, rounds)


def _report_encoding(keras, labels, classes, rounds):
    from kflow.core import to_categorical

    y = np.random.default_rng(0).integers(0, classes, labels)
    limit = "memset of new float32 pages"
    candidates = {
        limit: partial(_memset, (labels, classes)),
        "kflow": partial(to_categorical, y, classes),
        "kflow, uint8": partial(to_categorical, y, classes, "uint8"),
        "kflow, classes given by name": partial(to_categorical, y, classes=range(classes)),
        "kflow, lazy, read in batches of 256": partial(_read_in_batches, y, classes),
        "kflow, sparse": partial(to_categorical, y, classes, sparse=True),
        "Keras (float64)": partial(keras.utils.to_categorical, y, classes),
    }
    medians = measure(candidates, rounds)
    show(f"to_categorical, {labels:,} labels x {classes} classes", medians, limit, {"kflow": 1.3})


def _report_normalizing(keras, shape, rounds):
    from kflow.core import normalize

    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    here = np.empty_like(x)
    limit = "copy to new pages"
    candidates = {
        limit: x.copy,
        "x * constant, to new pages": partial(np.multiply, x, np.float32(0.5)),
        "kflow": partial(normalize, x),
        "kflow, out=": partial(normalize, x, out=here),
        "kflow, axis 0": partial(normalize, x, 0),
        "kflow, order 1": partial(normalize, x, -1, 1),
        "Keras": partial(keras.utils.normalize, x),
        "Keras, order 1": partial(keras.utils.normalize, x, -1, 1),
    }
    medians = measure(candidates, rounds)
    show(f"normalize, {shape}", medians, limit, {"kflow": {16: 2.2, 784: 1.45}.get(shape[1], 1.45)})


def _memset(shape):
    pages = np.empty(shape, np.float32)
    pages.fill(0)
    return pages


def _read_in_batches(y, classes):
    from kflow.core import to_categorical

    rows = to_categorical(y, classes, lazy=True)
    for start in range(0, len(rows), 256):
        rows[start : start + 256]
