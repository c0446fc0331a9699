"""HDF5Matrix against h5py and against arrays in memory: single batches, whole epochs of fit, and memory.

Run as a program it is the child of the last part: ``core_hdf5.py ROUTE FILE`` prints the memory that a fit takes.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py  # noqa: TID253 - a benchmark loads what it measures
import numpy as np  # noqa: TID253
from measure import Medians, measure, show

from kflow.core import HDF5Matrix  # noqa: TID253

Fits = dict[str, Callable[[], tuple[float, float]]]
"""By route, a training that returns its wall and CPU seconds."""
KINDS = ("Private_Dirty", "Private_Clean")


def report(rounds: int) -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp may be memory
        _reads(Path(folder) / "digits.h5", rounds)
        _epochs(Path(folder) / "digits.h5", rounds)
        _gigabyte(Path(folder) / "images.h5", rounds)


def _reads(path: Path, rounds: int) -> None:
    """Compare batches of 28 x 28 bytes, in order and shuffled."""
    data = np.random.default_rng(0).integers(0, 32, (60_000, 28, 28), dtype="uint8")  # compressible
    with h5py.File(path, "w") as file:
        file["contiguous"] = data
        file.create_dataset("chunked", data=data, chunks=(256, 28, 28))
        file.create_dataset("gzip", data=data, chunks=(256, 28, 28), compression="gzip")
        file.create_dataset("gzip, chunked by h5py", data=data, compression="gzip")
        file["labels"] = data[:, 0, 0].astype("int64")
    order = np.random.default_rng(1).permutation(len(data))
    copy = shutil.copy(path, path.with_name("copy.h5"))  # h5py must not find chunks in the cache of HDF5Matrix
    for size in (32, 256):
        candidates: dict[str, Callable[[], object]] = {"array": partial(_slices, data, size)}
        candidates["HDF5Matrix, contiguous, opened before"] = partial(_slices, HDF5Matrix(path, "contiguous"), size)
        for name in ("contiguous", "chunked", "gzip"):
            candidates[f"HDF5Matrix, {name}"] = partial(_afresh, path, name, size)
            candidates[f"h5py, {name}"] = partial(_through_h5py, copy, name, _slices, size)
        show(f"200 batches of {size} in order, with opening the file", measure(candidates, rounds), "array")
    name = "gzip, chunked by h5py"
    candidates = {"array": partial(_slices, data, 32), f"HDF5Matrix, {name}": partial(_afresh, path, name, 32)}
    candidates[f"h5py, {name}"] = partial(_through_h5py, copy, name, _slices, 32)
    show("200 batches of 32 in order, with opening the file", measure(candidates, min(rounds, 3)), "array")
    candidates = {"array": partial(_takes, data, order)}
    for name in ("contiguous", "chunked", "gzip"):
        candidates[f"HDF5Matrix, {name}"] = partial(_takes, HDF5Matrix(path, name), order)
        candidates[f"h5py, {name}"] = partial(_through_h5py, copy, name, _takes, order)
        if name != "contiguous":
            unpacked = HDF5Matrix(path, name)
            unpacked.unpack(is_shuffled=True)
            candidates[f"HDF5Matrix, {name}, unpacked as by fit"] = partial(_takes, unpacked, order)
    show("8 batches of 32 shuffled", measure(candidates, min(rounds, 3)), "array")


def _through_h5py(path: Path, name: str, read: Callable[..., None], *arguments: Any) -> None:
    """Read with h5py, with the cache of chunks that it has by default."""
    with h5py.File(path) as file:
        read(file[name], *arguments)


def _afresh(path: Path, name: str, size: int) -> None:
    """Read with a window that is made anew."""
    with HDF5Matrix(path, name) as matrix:
        _slices(matrix, size)


def _slices(rows: Any, size: int) -> None:
    """Read 200 batches in order."""
    for first in range(0, 200 * size, size):
        batch = rows[first : first + size]
        if isinstance(rows, np.ndarray):  # the others have copied
            np.array(batch)


def _takes(rows: Any, order: np.ndarray[Any, Any]) -> None:
    """Read 8 batches of 32 rows in this order, as each of them allows."""
    for first in range(0, 8 * 32, 32):
        index = order[first : first + 32]
        if isinstance(rows, h5py.Dataset):
            ascending, back = np.unique(index, return_inverse=True)
            rows[ascending][back]
        else:
            rows[index]


def _epochs(path: Path, rounds: int) -> None:
    """Compare epochs of fit, fully shuffled."""
    import keras

    with h5py.File(path) as file:
        x, y = file["contiguous"][:], file["labels"][:]
    dense = [keras.layers.Flatten(), keras.layers.Dense(128, "relu")]
    convolution = [keras.layers.Reshape((28, 28, 1)), keras.layers.Conv2D(16, 3, 2, activation="relu"), dense[0]]
    for title, layers, size, rows in (
        ("MLP, batches of 32", dense, 32, 60_000),
        ("MLP, batches of 256", dense, 256, 60_000),
        ("CNN, batches of 64", convolution, 64, 30_000),
    ):
        routes = {"arrays": (x[:rows], y[:rows])}
        for name in ("contiguous", "gzip"):
            routes[f"HDF5Matrix, {name}"] = HDF5Matrix(path, name, end=rows), HDF5Matrix(path, "labels", end=rows)
        first = keras.Input((28, 28)), keras.layers.Rescaling(1 / 32)
        fits = {name: _fit([*first, *layers, keras.layers.Dense(32)], data, size) for name, data in routes.items()}
        _show_epochs(f"an epoch of fit, shuffled: {title}", fits, rounds, "HDF5Matrix, contiguous")


def _show_epochs(title: str, fits: Fits, rounds: int, name: str) -> None:
    """Let the fits take turns, and show their medians beside that of arrays; the target is that of the one named."""
    times = [{each: fit() for each, fit in fits.items()} for _ in range(rounds)]
    walls, cpus = ({each: statistics.median(time[each][i] for time in times) for each in fits} for i in range(2))
    show(f"{title}, the quickest of three", Medians(walls, cpus, rounds), "arrays", {name: 1.08})


def _fit(layers: list[Any], data: tuple[Any, Any], batch_size: int) -> Callable[[], tuple[float, float]]:
    """Return a function that trains a model of its own, and returns the wall and CPU seconds of an epoch."""
    import keras

    keras.utils.set_random_seed(0)
    copies = [type(layer).from_config(layer.get_config()) for layer in layers[1:]]
    model = keras.Sequential([layers[0], *copies])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    return lambda: _quickest_epoch(model, data, batch_size)


def _quickest_epoch(model: Any, data: tuple[Any, Any], batch_size: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of the quickest of three epochs, after one that also sets things up.

    TensorFlow on two processors has two speeds, whatever it is fed with: in one epoch of three its threads get in each
    other's way, and it takes twice as long.
    """
    import keras

    ends: list[tuple[float, float]] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append((time.perf_counter(), time.process_time()))
    )
    model.fit(*data, batch_size=batch_size, epochs=4, callbacks=[note], verbose=0)
    wall, cpu = np.diff(ends, axis=0).min(axis=0)
    return float(wall), float(cpu)


def _gigabyte(path: Path, rounds: int) -> None:
    """Compare shuffled epochs on a gigabyte of floats, and the memory of each fit in a process of its own."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("x", (21_000, 64, 64, 3), "f4")
        for first in range(0, len(images), 1000):
            images[first : first + 1000] = np.random.default_rng(first).random((1000, 64, 64, 3), "f4")
        file["y"] = np.random.default_rng(0).integers(0, 10, len(images))
        megabytes = images.nbytes / 2**20
    os.sync()  # until then the system's cache is dirty, and a page of it that we map looks like ours
    x, y = HDF5Matrix(path, "x"), HDF5Matrix(path, "y")
    routes = {"arrays": (x[:], y[:]), "HDF5Matrix": (x, y)}
    fits = {name: _fit(_perceptron(), data, 64) for name, data in routes.items()}
    _show_epochs(f"an epoch of fit on {megabytes:.0f} MB, shuffled: MLP, batches of 64", fits, rounds, "HDF5Matrix")
    print("\nmemory beyond that of a fit on a few rows, in parts of the data")  # noqa: T201
    for route in routes:
        command = [sys.executable, __file__, route, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this file
        shares = "".join(
            f"{kind:>16} {float(value) / megabytes:5.2f}"
            for kind, value in zip(KINDS, done.stdout.split(), strict=True)
        )
        target = "   target: Private_Dirty <= 0.05" if route == "HDF5Matrix" else ""
        print(f"  {route:20}{shares}{target}")  # noqa: T201


def _perceptron() -> list[Any]:
    """Return the layers of a model of images, of which the first weights take most of the time."""
    import keras

    return [keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.Dense(10)]


def _fit_in_child(route: str, path: str) -> None:
    """Print the megabytes by which the memory of a fit grows at most."""
    import keras

    x, y = HDF5Matrix(path, "x"), HDF5Matrix(path, "y")
    model = keras.Sequential(_perceptron())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    few = HDF5Matrix(path, "x", end=1000)
    model.fit(few[:], y[:1000], batch_size=64, verbose=0)
    few.close()
    before, peak, stop = _private(), dict.fromkeys(KINDS, 0.0), threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            for kind, value in _private().items():
                peak[kind] = max(peak[kind], value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = (x, y) if route == "HDF5Matrix" else (x[:], y[:])
    model.fit(*data, batch_size=64, verbose=0)
    stop.set()
    watcher.join()
    print(*(peak[kind] - before[kind] for kind in KINDS))  # noqa: T201


def _private() -> dict[str, float]:
    """Return the private memory of this process in megabytes.

    Dirty pages are its own. Clean ones are pages of the mapped file in the system's cache, which takes them back
    whenever it needs to; they count as private as long as no other process maps the file.
    """
    text = Path("/proc/self/smaps_rollup").read_text()
    return {kind: int(re.search(rf"{kind}: *(\d+) kB", text)[1]) / 1024 for kind in KINDS}  # type: ignore[index]


if __name__ == "__main__":
    _fit_in_child(*sys.argv[1:])
