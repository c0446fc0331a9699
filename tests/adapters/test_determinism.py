"""``deterministic: true`` switches on the op determinism of TensorFlow for its step, and for no other."""

from collections.abc import Callable
from typing import Any

WORKFLOW = """
kflow: 1
name: determined
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 32, normalizer: {scale: 0.0625}}
  y: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 32}
  custom: {kind: register_objects, objects: {Look: look.py:Look}}
  model:
    kind: build_model
    layers: [Input: {shape: [8, 8, 1]}, Conv2D: {filters: 2, kernel_size: 3}, Dropout: {rate: 0.2}, Flatten,
             Dense: {units: 10, activation: softmax}]
  before: {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: sparse_categorical_crossentropy, epochs: 2,
           callbacks: [Look: {name: before}], objects: "${custom}"}
  fit: {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: sparse_categorical_crossentropy, epochs: 2,
        callbacks: [Look: {name: fit}], objects: "${custom}", deterministic: true, needs: [before]}
  after: {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: sparse_categorical_crossentropy, epochs: 2,
          callbacks: [Look: {name: after}], objects: "${custom}", needs: [fit]}
"""
LOOK = """
import keras
from pathlib import Path
from tensorflow.python.framework.config import is_op_determinism_enabled

class Look(keras.callbacks.Callback):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def on_train_begin(self, logs=None):
        Path(f"{self.name}.txt").write_text(str(is_op_determinism_enabled()))
"""


def test_op_determinism_is_that_of_one_step(make_folder: Callable[..., Any]) -> None:
    """It is on while the step runs, the console says what it costs, and a later step in the worker has its old bits."""
    folder = make_folder(WORKFLOW, {"look.py": LOOK})
    done = folder.kflow("run", "w.yaml", "--jobs", "1")
    steps = folder.records()[0].steps

    assert done.returncode == 0, done.stdout
    seen = [(folder.path / f"{name}.txt").read_text() for name in ("before", "fit", "after")]
    assert seen == ["False", "True", "False"]
    assert "    fit: computes with op determinism; it is slower for it" in done.stdout
    assert done.stdout.count("op determinism") == 1
    assert steps["after"].outputs == steps["before"].outputs
