"""``deterministic: true`` switches on the op determinism of TensorFlow for its step, and for no other."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.run.record import read_records

pytestmark = pytest.mark.long

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


PLAIN = """
kflow: 1
name: plain
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 32}
  model:
    kind: build_model
    layers: [Input: {shape: [8, 8, 1]}, Conv2D: {filters: 2, kernel_size: 3}, BatchNormalization, Flatten,
             Dense: {units: 3}]
  guesses: {kind: predict, model: "${model}", x: "${x}"}
"""


def test_the_settings_in_the_home_folder_change_nothing(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    """What counts stands in the workflow: the type of numbers, their order in images, and epsilon are Keras's own."""
    folder = make_folder(PLAIN)
    folder.kflow("run", "w.yaml", "--store", str(tmp_path / "one"))
    settings = {"floatx": "float16", "epsilon": 1e-3, "backend": "torch", "image_data_format": "channels_first"}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "keras.json").write_text(json.dumps(settings))
    done = folder.kflow("run", "w.yaml", "--store", str(tmp_path / "two"), KERAS_HOME=str(tmp_path / "home"))

    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (next(iter(read_records(tmp_path / name))).steps for name in ("one", "two"))
    assert one["model"].outputs == two["model"].outputs
    assert one["guesses"].outputs == two["guesses"].outputs


def test_variables_that_change_the_bits_count(make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """For the steps that TensorFlow computes, and for no others; the plan names the variable."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    folder = make_folder(PLAIN)
    folder.kflow("run", "w.yaml")
    same = folder.kflow("plan", "w.yaml").stdout
    other = folder.kflow("plan", "w.yaml", TF_ENABLE_ONEDNN_OPTS="0").stdout

    assert same.count("reuse") == 4, same
    assert re.findall(r"^(\w+) +(\w+) ", other, re.MULTILINE)[:3] == [
        ("reuse", "x"),
        ("run", "model"),
        ("wait", "guesses"),
    ]
    assert "variable TF_ENABLE_ONEDNN_OPTS added" in other


STEPS = """
import sys
from pathlib import Path
from tensorflow.python.framework.config import is_op_determinism_enabled
from kflow.adapters.session import keras_session
from kflow.spec.base import StepContext

context = StepContext(Path(), Path(), 7, 0, {}, {}, lambda event: None)
for is_deterministic in (False, True, False):
    with keras_session(context, None, is_deterministic=is_deterministic):
        print(is_op_determinism_enabled())
"""


@pytest.mark.parametrize(("value", "seen"), [("0", ["False", "True", "False"]), ("1", ["True", "True", "True"])])
def test_a_step_leaves_op_determinism_as_it_was(value: str, seen: list[str]) -> None:
    """As the environment has it: what a later step in the worker gives does not hang on what was run before."""
    environ = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_DETERMINISTIC_OPS": value}
    done = subprocess.run([sys.executable, "-c", STEPS], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout.split() == seen


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
