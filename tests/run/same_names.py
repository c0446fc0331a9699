"""Many steps at once that give one name to different code; the result of each shows whose code it ran."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kflow.run.record import read_records
from kflow.store.store import Store

HEAD = """
kflow: 1
name: names
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 2, normalizer: {scale: 0.0625}}
"""
CHAIN = """
  code@: {kind: register_objects, objects: {Plus: "f@/layers.py:Plus", times: "f@/layers.py:times"}}
  model@: {kind: build_model, layers: [Input: {shape: [8, 8, 1]}, Plus, Activation: {activation: times}],
           objects: "${code@}"}
  out@: {kind: predict, model: "${model@}", x: "${x}", objects: "${code@}"}
"""
LAYERS = """
import keras
from numbers_ import addend

@keras.saving.register_keras_serializable("mine", "Plus")
class Plus(keras.layers.Layer):
    def call(self, x):
        return x + addend

@keras.saving.register_keras_serializable("mine", "times")
def times(x):
    from numbers_ import factor
    return x * factor
"""


def count_right(make_folder: Callable[..., Any], steps: int, jobs: int) -> int:
    """Run so many chains of steps, each with a folder of code of its own; returns how many gave their own result."""
    folder = make_folder(HEAD + "".join(CHAIN.replace("@", str(number)) for number in range(steps)))
    for number in range(steps):
        code = folder.path / f"f{number}"
        code.mkdir()
        (code / "layers.py").write_text(LAYERS)
        (code / "numbers_.py").write_text(f"addend = {number}\nfactor = {number % 7 + 2}\n")
    runner = folder.start("run", "w.yaml", "--jobs", str(jobs))
    told = runner.communicate()  # hundreds of steps take their time
    assert runner.returncode == 0, told
    store = Store(Path(os.environ["KFLOW_STORE"]))
    record = next(iter(read_records(store.root)))
    with h5py.File(folder.path / "digits.h5") as file:
        x = file["images"][:2].astype("float32") * np.float32(0.0625)
    return sum(_is_right(store, record.steps[f"out{number}"].fingerprint, x, number) for number in range(steps))


def _is_right(store: Store, fingerprint: str | None, x: Any, number: int) -> bool:
    entry = store.lookup(fingerprint or "")
    assert entry is not None
    (stored,) = (entry.folder / "array").glob("*.npy")
    return bool(np.allclose(np.load(stored), (x + number) * (number % 7 + 2)))
