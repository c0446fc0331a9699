"""Data that changes while a run is under way: no result is kept under the fingerprint of other bytes."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kflow.artifacts import digest_file
from kflow.run.originals import Original
from kflow.signature import state

MakeFolder = Callable[..., Any]

# 'slow' waits for a file; the last three rest on digits.h5: by a view of it, and by themselves.
WAITING = """
kflow: 1
name: waiting
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9}
  slow: {kind: slice_hdf5, datapath: calm.h5, dataset: labels, end: 9, normalizer: wait.py:change, needs: [x]}
  unit: {kind: normalize, x: "${x}", axis: 0, needs: [slow]}
  file: {kind: fetch, origin: digits.h5, needs: [slow]}
  labels: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, needs: [slow]}
"""
WAIT = """
import time
from pathlib import Path

here = Path(__file__).parent

def change(block):
    (here / "begun").touch()
    while not (here / "go").exists():
        time.sleep(0.05)
    return block
"""


def start(folder: Any) -> Any:
    """Start a run, and wait until its slow step is at work."""
    shutil.copy2(folder.path / "digits.h5", folder.path / "calm.h5")
    shutil.copy2(folder.path / "digits.h5", folder.path / "other.h5")
    with h5py.File(folder.path / "other.h5", "r+") as file:
        file["labels"][...] = 9 - file["labels"][...]
    run = folder.start("run", "w.yaml", "--keep-going")
    while not (folder.path / "begun").exists():
        assert run.poll() is None
        time.sleep(0.05)
    return run


def finish(run: Any, folder: Any) -> str:
    """Let the slow step go on, and return what the run told."""
    folder.write("go", "")
    told: str = run.communicate()[0]
    return told


def test_a_file_that_was_replaced_before_a_step_fails_the_step(make_folder: MakeFolder) -> None:
    """A step that names the file, and one that has it through another step's description."""
    folder = make_folder(WAITING, {"wait.py": WAIT})
    run = start(folder)
    (folder.path / "digits.h5").rename(folder.path / "before.h5")
    (folder.path / "other.h5").rename(folder.path / "digits.h5")
    told = finish(run, folder)
    failed = folder.statuses()
    (folder.path / "before.h5").rename(folder.path / "digits.h5")
    again = folder.kflow("run", "w.yaml")

    assert run.returncode == 1
    assert told.count("failed: the file digits.h5 was changed since the step was planned; run again") == 3
    assert failed == {"x": "run", "slow": "run", "unit": "failed", "file": "failed", "labels": "failed"}
    assert again.returncode == 0
    assert folder.statuses() == {"x": "reused", "slow": "reused", "unit": "run", "file": "run", "labels": "run"}


def test_a_file_that_is_replaced_while_a_step_runs_fails_the_step(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Nothing is kept of it, and no other try is made."""
    folder = make_folder(WAITING.replace("needs: [x]", "retries: 3"), {"wait.py": WAIT})
    run = start(folder)
    (folder.path / "other.h5").rename(folder.path / "calm.h5")
    told = finish(run, folder)
    step = folder.records()[0].steps["slow"]

    assert run.returncode == 1
    assert "failed: the file calm.h5 was changed while the step ran, and its result is not kept; run again" in told
    assert not (tmp_path / "store" / "entries" / step.fingerprint[:2] / step.fingerprint).exists()


def test_a_file_that_is_touched_before_a_step_is_the_same_file(make_folder: MakeFolder) -> None:
    """Its times alone are others: it is read again."""
    folder = make_folder(WAITING, {"wait.py": WAIT})
    run = start(folder)
    os.utime(folder.path / "digits.h5")
    told = finish(run, folder)

    assert run.returncode == 0, told


@pytest.mark.parametrize("change", ["none", "touched", "rewritten", "replaced", "longer", "gone"])
def test_a_file_is_known_again(tmp_path: Path, change: str) -> None:
    """By its state, and where that alone differs by its bytes."""
    path = tmp_path / "data"
    path.write_bytes(b"data")
    original = Original(str(path), digest_file(path), state(path))
    times = (original.known[1], original.known[1])
    match change:
        case "touched":
            os.utime(path, ns=(0, 0))
        case "rewritten":
            path.write_bytes(b"DATA")
            os.utime(path, ns=times)
        case "replaced":
            (tmp_path / "other").write_bytes(b"DATA")
            os.utime(tmp_path / "other", ns=times)
            (tmp_path / "other").rename(path)
        case "longer":
            path.write_bytes(b"data and more")
        case "gone":
            path.unlink()

    assert (original.look_again() is not None) == (change in {"none", "touched"})


def test_what_another_checkout_has_changed_is_made_from_the_own_file(make_folder: MakeFolder) -> None:
    """A stored result that refers to its file counts by size and time; before a step computes from it, it is read."""
    fetching = "kflow: 1\nname: w\nsteps:\n  d: {kind: fetch, origin: digits.h5}\n"
    end = '  x: {kind: slice_hdf5, datapath: "${d}", dataset: labels, end: 9, normalizer: "plain.py:plain"}\n'
    plain = {"plain.py": "def plain(block):\n    return block\n"}
    other, own = make_folder(fetching, name="other"), make_folder(fetching + end, plain, name="own")
    other.kflow("run", "w.yaml")
    times = state(other.path / "digits.h5")[1]
    with h5py.File(other.path / "digits.h5", "r+") as file:
        file["labels"][...] = 9 - file["labels"][...]
    os.utime(other.path / "digits.h5", ns=(times, times))
    os.utime(own.path / "digits.h5", ns=(times, times))
    run = own.kflow("run", "w.yaml")
    entry = own.records()[0].steps["x"].fingerprint

    with h5py.File(own.path / "digits.h5") as file:
        expected = file["labels"][:9]
    (stored,) = (own.path.parent / "store" / "entries" / entry[:2] / entry).rglob("*.npy")
    assert run.returncode == 0, run.stderr
    assert np.load(stored).tolist() == expected.tolist()
    assert own.statuses() == {"d": "run", "x": "run"}
