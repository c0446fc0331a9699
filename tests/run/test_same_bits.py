"""A workflow with every kind of step gives the same bytes from nothing, in another folder and in other processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.adapters import BUILTIN
from kflow.artifacts import TYPES, digest_file
from kflow.run.record import read_records
from kflow.store.store import Store

pytestmark = pytest.mark.long

WORKFLOW = """
kflow: 1
name: all-kinds
seed: 11
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: 48, normalizer: {scale: 0.0625}}
  changed: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: 48, normalizer: user.py:change}
  unit: {kind: normalize, x: "${changed}", axis: [1, 2]}
  labels: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 48}
  y: {kind: encode_labels, y: "${labels}", num_classes: 10, label_smoothing: 0.1}
  custom: {kind: register_objects, objects: {Scale: user.py:Scale, squash: user.py:squash}}
  model:
    kind: build_model
    layers:
      - Input: {shape: [8, 8, 1]}
      - RandomTranslation: {height_factor: 0.1, width_factor: 0.1}
      - Conv2D: {filters: 4, kernel_size: 3, activation: squash}
      - Scale
      - BatchNormalization
      - Flatten
      - Dropout: {rate: 0.3}
      - Dense: {units: 10, activation: softmax}
    objects: ${custom}
  fit: {kind: train, model: "${model}", x: "${unit}", y: "${y}", optimizer: adam, loss: categorical_crossentropy,
        metrics: [accuracy], epochs: 2, batch_size: 16, validation_split: 0.25, objects: "${custom}"}
  test: {kind: evaluate, model: "${fit.model}", x: "${x}", y: "${y}", objects: "${custom}"}
  guesses: {kind: predict, model: "${fit.model}", x: "${x}", to_file: out/guesses.npy, objects: "${custom}"}
  whole: {kind: save_model, model: "${fit.model}", filepath: out/fit.keras, objects: "${custom}"}
  weights: {kind: save_model, model: "${fit.model}", filepath: out/fit.weights.h5, objects: "${custom}"}
  back: {kind: load_model, filepath: "${whole.file}", objects: "${custom}"}
  png: {kind: plot_model, model: "${fit.model}", to_file: out/model.png, show_shapes: true, objects: "${custom}"}
  svg: {kind: plot_model, model: "${fit.model}", to_file: out/model.svg, objects: "${custom}"}
  text: {kind: plot_model, model: "${fit.model}", to_file: out/model.txt, objects: "${custom}"}
  curves: {kind: plot_history, history: "${fit.history}", to_file: out/curves.png}
  curves_svg: {kind: plot_history, history: "${fit.history}", to_file: out/curves.svg}
  curves_pdf: {kind: plot_history, history: "${fit.history}", to_file: out/curves.pdf}
"""
CODE = """
import keras

def change(block):
    return block.astype("float32") / 16 + 1

def squash(x):
    return keras.ops.tanh(x) * 2

class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="random_uniform")

    def call(self, x):
        return x * self.factor
"""


def test_every_kind_of_artifact_is_the_same_byte_by_byte(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    """In the store as in the files that were asked for."""
    seen = []
    for name in ("one", "another folder"):
        folder = make_folder(WORKFLOW, {"user.py": CODE}, name=name)
        store = Store(tmp_path / f"store of {name}")
        done = folder.kflow("run", "w.yaml", "--jobs", "1", "--store", str(store.root))
        assert done.returncode == 0, done.stdout + done.stderr
        (record,) = read_records(store.root)
        seen.append((contents(folder.path / "out", store), {key: step.outputs for key, step in record.steps.items()}))

    assert seen[0] == seen[1]
    assert {step.kind for step in record.steps.values()} == set(BUILTIN)
    assert {output.type for step in record.steps.values() for output in step.outputs.values()} == set(TYPES)


def contents(folder: Path, store: Store) -> dict[str, str]:
    """Return the digest of every file in a folder, and of every one in a store by the kind that made it."""
    exported = {path.name: digest_file(path) for path in folder.iterdir()}
    stored = {
        f"{entry.manifest.kind} {entry.manifest.fingerprint} {name}": content.sha256
        for entry in store.entries()
        for name, content in entry.manifest.files.items()
    }
    return exported | stored
