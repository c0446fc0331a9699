"""A training that was killed goes on at its last whole epoch, and ends with the bits of one that was not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

MakeFolder = Callable[..., Any]

# Dropout, augmentation, batch normalization, Adam, shuffling, and callbacks with a memory of their own.
TRAINING = """
kflow: 1
name: resumed
seed: 3
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 96, normalizer: {scale: 0.0625}}
  y: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 96}
  custom: {kind: register_objects, objects: {Plug: plug.py:Plug, Window: plug.py:Window}}
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
      - ReduceLROnPlateau: {monitor: val_loss, factor: 0.5, patience: 1, min_delta: 0.3}
      - EarlyStopping: {monitor: val_loss, patience: 3, restore_best_weights: true}
      - CSVLogger: {filename: log.csv}
      - CSVLogger: {filename: appended.csv, append: true}
      - Window
      - Plug
    objects: ${custom}
    checkpoint: {every: 2}
"""
# Ends the worker in the second batch of the epochs that the file 'plug' names, each of them once; and a callback with
# state of many kinds, of which only what cannot be kept does not count.
PLUG = """
import collections, itertools, json, os, random, signal
from pathlib import Path
import keras, numpy as np

plug = Path(__file__).with_name("plug")

class Steady:
    def __init__(self):
        self.numbers = [object()]

class Window(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.window, self.seen, self.last, self.sums = (), {}, collections.deque(maxlen=2), [np.float32(0)]
        self.names, self.rng, self.own = {"a"}, np.random.default_rng(5), random.Random(5)
        self.count, self.steady = itertools.count(), Steady()

    def on_epoch_end(self, epoch, logs=None):
        self.window = (*self.window, logs["loss"])[-3:]
        self.seen[epoch, "loss"] = logs["loss"]
        self.last.append(epoch)
        self.sums.append(self.sums[-1] + np.float32(logs["loss"]))
        self.names.add(str(len(self.seen)))
        next(self.count)
        seen = len(self.window) + len(self.seen) + sum(self.last) + len(self.names) + float(sum(self.sums))
        rate = self.model.optimizer.learning_rate
        rate.assign(rate * (1 + 0.01 * seen + 0.01 * self.rng.normal() + 0.01 * self.own.random()))

class Plug(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        left = json.loads((Path.cwd() / "plug").read_text()) if (Path.cwd() / "plug").exists() else []
        if batch == 1 and self.now in left:
            (Path.cwd() / "plug").write_text(json.dumps([each for each in left if each != self.now]))
            os.kill(os.getpid(), signal.SIGKILL)
"""


# Overwrites, when an epoch begins, a part of the file that the file 'spoil' names, once.
SPOIL = (
    PLUG
    + """
class Spoil(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        spoil = Path.cwd() / "spoil"
        if epoch == 4 and spoil.exists():
            with open(spoil.read_text(), "r+b") as stream:
                stream.seek(-400, os.SEEK_END)
                stream.write(bytes(200))
            spoil.unlink()
"""
)
SPOILT = (
    TRAINING.replace("x: ${x}", "x: ${unit}")
    .replace("      - Plug\n", "      - Spoil\n")
    .replace("Plug: plug.py:Plug,", "Spoil: plug.py:Spoil,")
    .replace("  custom:", '  unit: {kind: normalize, x: "${x}", axis: 0, order: 2}\n  custom:')
)


@pytest.fixture
def outputs(make_folder: MakeFolder) -> Callable[..., tuple[dict[str, str], str]]:
    """Return a function that runs the workflow to its end, and gives the digests of all files and what was told."""

    def run(kills: list[int]) -> tuple[dict[str, str], str]:
        files = {"plug.py": PLUG, "plug": json.dumps(kills), "appended.csv": "of another training\n"}
        folder = make_folder(TRAINING, files, name=f"killed{len(kills)}")
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
        made = {name: each["digest"] for name, each in record["steps"]["fit"]["outputs"].items()}
        return made | {path.name: path.read_text() for path in folder.path.glob("*.csv")}, told

    return run


def test_a_training_killed_in_several_epochs_gives_the_same_bits(outputs: Any) -> None:
    """Weights, optimizer state, history and the files of CSVLogger, whichever epoch it was killed in.

    Callbacks may keep what they like in plain attributes; what changes and is not plain is told, once for each process.
    """
    whole, quiet = outputs([])
    killed, told = outputs([0, 1, 3, 4])

    assert killed == whole
    assert "fit goes on" not in quiet
    assert [line.split()[4] for line in told.splitlines() if "fit goes on after" in line] == ["2", "4"]
    assert whole["log.csv"].count("\n") == whole["appended.csv"].count("\n") == 6  # it stops early, after five epochs
    assert whole["appended.csv"].startswith("of another training\n0,")
    for text in (quiet, told):
        assert "Window.count has changed, and a checkpoint cannot keep it (a count)" in text
        assert text.count("has changed") == text.count("Window.count")
    assert quiet.count("has changed") == 1


def test_a_training_whose_input_is_damaged_goes_on_from_before_that(make_folder: MakeFolder, tmp_path: Path) -> None:
    """No checkpoint is made of what was learnt from damaged data, so that none is gone on with, whenever that is."""
    made = []
    for name in ("whole", "spoilt"):
        folder = make_folder(SPOILT, {"plug.py": SPOIL}, name=name)
        store = {"KFLOW_STORE": str(folder.path / ".kflow")}
        assert folder.kflow("run", "w.yaml", "--until", "unit", **store).returncode == 0
        if name == "spoilt":
            (array,) = (folder.path / ".kflow" / "entries").rglob("array/array.npy")
            folder.write("spoil", str(array))
        done = folder.kflow("run", "w.yaml", **store)
        record = json.loads(folder.kflow("show", "latest", "--json", **store).stdout)
        made.append({output: each["digest"] for output, each in record["steps"]["fit"]["outputs"].items()})

        assert done.returncode == 0, done.stdout + done.stderr

    assert made[0] == made[1]
    assert "the stored result of unit was damaged or removed; fit is put off until it is sound" in done.stdout
    assert "fit goes on after 4 epochs" in done.stdout
