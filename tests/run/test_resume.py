"""A training that was killed goes on at its last whole epoch, and ends with the bits of one that was not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]

# Dropout, augmentation, batch normalization, Adam, shuffling, and callbacks with a memory of their own.
TRAINING = """
kflow: 1
name: resumed
seed: 3
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 96, normalizer: {scale: 0.0625}}
  y: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 96}
  custom: {kind: register_objects, objects: {Plug: plug.py:Plug}}
  model:
    kind: build_model
    layers:
      - Input: {shape: [8, 8, 1]}
      - RandomTranslation: {height_factor: 0.1, width_factor: 0.1}
      - Flatten
      - Dense: {units: 16, activation: relu}
      - BatchNormalization
      - Dropout: {rate: 0.3}
      - Dense: {units: 10, activation: softmax}
  fit:
    kind: train
    model: ${model}
    x: ${x}
    y: ${y}
    validation_split: 0.25
    optimizer: {Adam: {learning_rate: 0.05}}
    loss: sparse_categorical_crossentropy
    metrics: [accuracy]
    epochs: 7
    batch_size: 16
    callbacks:
      - ReduceLROnPlateau: {monitor: val_loss, factor: 0.5, patience: 1}
      - EarlyStopping: {monitor: val_loss, patience: 3, restore_best_weights: true}
      - Plug
    objects: ${custom}
    checkpoint: {every: 1}
"""
# Ends the worker in the second batch of the epochs that the file 'plug' names, each of them once.
PLUG = """
import json, os, signal
from pathlib import Path
import keras

plug = Path(__file__).with_name("plug")

class Plug(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        left = json.loads((Path.cwd() / "plug").read_text()) if (Path.cwd() / "plug").exists() else []
        if batch == 1 and self.now in left:
            (Path.cwd() / "plug").write_text(json.dumps([each for each in left if each != self.now]))
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def outputs(make_folder: MakeFolder) -> Callable[..., tuple[dict[str, str], str]]:
    """Return a function that runs the workflow to its end, and gives the digests and all that was told."""

    def run(kills: list[int]) -> tuple[dict[str, str], str]:
        folder = make_folder(TRAINING, {"plug.py": PLUG, "plug": json.dumps(kills)}, name=f"killed{len(kills)}")
        store = {"KFLOW_STORE": str(folder.path / ".kflow")}
        told = ""
        for _ in range(len(kills) + 1):
            done = folder.kflow("run", "w.yaml", **store)
            told += done.stdout
            if done.returncode == 0:
                break
            assert "the worker process was killed" in done.stdout
        record = json.loads(folder.kflow("show", "latest", "--json", **store).stdout)
        assert not list(Path(folder.path, ".kflow", "checkpoints").iterdir())
        return {name: each["digest"] for name, each in record["steps"]["fit"]["outputs"].items()}, told

    return run


def test_a_training_killed_in_several_epochs_gives_the_same_bits(outputs: Any) -> None:
    """Weights, optimizer state and history, whichever epoch it was killed in, also in the first."""
    whole, quiet = outputs([])
    killed, told = outputs([0, 1, 3, 4])

    assert killed == whole
    assert "goes on" not in quiet
    assert [line.split()[4] for line in told.splitlines() if "fit goes on after" in line] == ["1", "3", "4"]
