"""Feeding a model from a sequence: kflow's, Keras's own, and the array in memory that both are slower than."""

import time

import numpy as np  # noqa: TID253
from measure import measure, show

from kflow.core import OrderedEnqueuer, Sequence  # noqa: TID253

# Keras is imported where it is used: worker processes import this module, and would load TensorFlow with it.

ROWS = np.random.default_rng(0).random((12_800, 64), dtype="float32")
TARGETS = np.zeros((len(ROWS), 1), "float32")
BATCH = 32


def _read(index: int) -> tuple[np.ndarray, np.ndarray]:
    rows = slice(index * BATCH, (index + 1) * BATCH)
    return ROWS[rows], TARGETS[rows]


class Ours(Sequence):
    """Batches by kflow."""

    def __len__(self) -> int:
        return len(ROWS) // BATCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return _read(index)


class Slow(Ours):
    """Batches that take 5 ms, as small pictures do that are read from a disk."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.005)
        return _read(index)


class Pictures(Ours):
    """Batches of 12 MB."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full((32, 128, 128, 6), index, "float32")


def _model(keras: object, steps: int) -> object:
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps)
    return model


def _drain(enqueuer: object, count: int) -> None:
    batches = enqueuer.get()
    for _ in range(count):
        next(batches)


def _by_kflow(source: Sequence, workers: int, *, processes: bool = False) -> None:
    enqueuer = OrderedEnqueuer(source, use_multiprocessing=processes)
    enqueuer.start(workers)
    _drain(enqueuer, len(source))
    enqueuer.stop()


def _by_keras(source: Sequence) -> None:
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer as KerasEnqueuer

    enqueuer = KerasEnqueuer(source, workers=2, use_multiprocessing=True)
    enqueuer.start()
    _drain(enqueuer, len(source))
    enqueuer.stop()


def report(rounds: int) -> None:
    """Measure one epoch of training, and the workers alone."""
    for steps in (1, 32):
        _report_training(steps, rounds)
    slow, pictures = Slow(), Pictures()
    candidates = {
        "a loop": lambda: list(slow),
        "kflow, 1 thread": lambda: _by_kflow(slow, 1),
        "kflow, 8 threads": lambda: _by_kflow(slow, 8),
    }
    show("64 batches of 5 ms that release the GIL", measure(candidates, rounds), "a loop")
    running = OrderedEnqueuer(pictures, use_multiprocessing=True)
    running.start(2)
    candidates = {
        "a loop": lambda: list(pictures),
        "kflow, 2 processes that run already": lambda: _drain(running, len(pictures)),
        "kflow, 2 processes, with their start": lambda: _by_kflow(pictures, 2, processes=True),
        "Keras, 2 forked processes, with their start": lambda: _by_keras(pictures),
    }
    show("24 batches of 12.6 MB from processes", measure(candidates, rounds), "a loop")
    running.stop()


def _report_training(steps: int, rounds: int) -> None:
    import keras

    class Keras(keras.utils.PyDataset):
        """The same batches by Keras."""

        def __len__(self) -> int:
            return len(ROWS) // BATCH

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return _read(index)

    model = _model(keras, steps)

    def feed(data: object) -> object:
        return lambda: model.fit(data, verbose=0, shuffle=False)

    candidates = {
        "arrays in memory": lambda: model.fit(ROWS, TARGETS, batch_size=BATCH, verbose=0, shuffle=False),
        "keras.utils.Sequence": feed(Keras()),
        "kflow.core.Sequence": feed(Ours()),
        "keras.utils.Sequence, 4 threads": feed(Keras(workers=4)),
        "kflow.core.Sequence, 4 threads": feed(Ours(workers=4)),
    }
    title = f"fit, one epoch of 400 batches of 32 rows, steps_per_execution={steps}"
    show(title, measure(candidates, rounds), "keras.utils.Sequence")
