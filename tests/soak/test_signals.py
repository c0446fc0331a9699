"""Random moments, three signals, a parallel run with trainings: nothing survives, nothing is lost, no bit is other.

KFLOW_SOAK_MOMENTS says at how many moments each signal is sent, KFLOW_SOAK_SEED at which.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kflow.artifacts import digest_file
from kflow.run.record import now, read_records
from tests.soak.inspection import MARK, find_corruption, survivors

MakeFolder = Callable[..., Any]
MOMENTS = int(os.environ.get("KFLOW_SOAK_MOMENTS", "150"))
SEED = int(os.environ.get("KFLOW_SOAK_SEED", "0"))
IN_A_ROW = 3
"""Interruptions of one run, before it may come to its end."""

# Two trainings, and beside them steps that leave processes behind, some of them detached.
WORKFLOW = """
kflow: 1
name: soaked
seed: 5
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: 64, normalizer: {scale: 0.0625}}
  y: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 64}
  first: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 64, normalizer: steps.py:change}
  second: {kind: normalize, x: "${first}", axis: 0}
  third:
    {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 80, normalizer: steps.py:change, needs: [second]}
  fourth:
    {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 96, normalizer: steps.py:change, needs: [third]}
  fifth: {kind: normalize, x: "${fourth}", axis: 0, order: 1}
  custom: {kind: register_objects, objects: {Pause: user.py:Pause}}
  model:
    kind: build_model
    layers:
      - Input: {shape: [8, 8, 1]}
      - Flatten
      - Dense: {units: 8, activation: relu}
      - Dropout: {rate: 0.3}
      - Dense: {units: 10, activation: softmax}
  one:
    {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: sparse_categorical_crossentropy, epochs: 6,
     batch_size: 16, optimizer: adam, callbacks: [Pause], objects: "${custom}", checkpoint: {every: 1}}
  two:
    {kind: train, model: "${one.model}", x: "${x}", y: "${y}", loss: sparse_categorical_crossentropy, epochs: 6,
     batch_size: 8, optimizer: sgd, callbacks: [Pause], objects: "${custom}", checkpoint: {every: 1}}
  save: {kind: save_model, model: "${two.model}", filepath: results/trained.keras, objects: "${custom}"}
"""
CODE = {
    "steps.py": """
import subprocess, time

def change(block):
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    time.sleep(1.5)
    return block + 1
""",
    "user.py": """
import time

import keras

class Pause(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        time.sleep(0.15)
""",
}


def results(folder: Any, store: Path) -> Mapping[str, str]:
    """Return the digests of all that a run gave, and of the file that it was asked for."""
    record = next(iter(read_records(store)))
    found = {f"{name}.{out}": each.digest for name, step in record.steps.items() for out, each in step.outputs.items()}
    return {**found, "file": digest_file(folder.path / "results" / "trained.keras")}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    make_folder: MakeFolder, tmp_path: Path, number: signal.Signals
) -> None:
    """Whenever the signal came: 0 survivors, 0 corrupt, and in the end the same bytes."""
    folder, store = make_folder(WORKFLOW, CODE), tmp_path / "store"
    began = time.monotonic()
    run_to_its_end(folder)
    length = time.monotonic() - began
    expected = results(folder, store)
    moments = random.Random(f"{number.name} {SEED}")

    done = 0
    while done < MOMENTS:
        shutil.rmtree(store)
        shutil.rmtree(folder.path / "results")
        for _ in range(min(IN_A_ROW, MOMENTS - done)):
            done += interrupt(folder, store, number, moments.uniform(0.05, length))
        run_to_its_end(folder)

        assert results(folder, store) == expected
        assert find_corruption(store) == []


def run_to_its_end(folder: Any) -> None:
    """Run what is left to be done."""
    runner = folder.start("run", "w.yaml", "--jobs", "3")
    told = runner.communicate()
    assert runner.returncode == 0, told


def interrupt(folder: Any, store: Path, number: signal.Signals, moment: float) -> bool:
    """Stop a run at a moment, and inspect what is left; tells whether it was still there to be stopped."""
    mark = f"{number.name} {time.time_ns()}"
    # In a session of its own, so that SIGINT reaches its group, as it does from a terminal; and with the signals of
    # one: where the tests were started with '&', they ignore SIGINT, and so would Python until kflow's first line.
    prefix = ("setsid", "env", "--default-signal=INT,TERM")
    runner = folder.start("run", "w.yaml", "--jobs", "3", prefix=prefix, **{MARK: mark})
    try:
        runner.wait(moment)
    except subprocess.TimeoutExpired:
        sent = now()
        (os.killpg if number is signal.SIGINT else os.kill)(runner.pid, number)
        came_in_time = True
    else:
        came_in_time = False
    out, err = runner.communicate(timeout=300)
    told = f"{number.name} after {moment:.3f} s, exit {runner.returncode}\n{out}{err}"

    assert survivors(mark) == [], told
    assert find_corruption(store) == [], told
    # Until Python has come to kflow's first line, a signal is the business of Python and the kernel.
    assert "Traceback" not in out + err or "in main\n" not in err, told
    assert "kflow has a bug" not in err, told
    ends = {0, 130, -number, *([1] if "Fatal Python error: init" in err else [])} if came_in_time else {0}
    assert runner.returncode in ends, told
    if came_in_time and runner.returncode == 0:  # all was done, and the process about to end
        assert (next(iter(read_records(store))).finished or sent) < sent, told
    print(told.partition("\n")[0])  # noqa: T201  'pytest -s' shows how it goes
    return came_in_time
