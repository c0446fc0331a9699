"""``kflow verify`` does a run again elsewhere and says what came out otherwise, and where."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Folder

pytestmark = pytest.mark.long

MakeFolder = Callable[..., Any]
CODED = """
kflow: 1
name: coded
params: {order: 2}
steps:
  same: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9}
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:change}
  unit: {kind: normalize, x: "${x}", axis: 0, order: "${params.order}"}
"""
STEADY = "def change(block):\n    return block + 1\n"
# What it gives hangs on a file that kflow does not know of.
MOODY = "from pathlib import Path\n\ndef change(block):\n    return block + len(Path('mood').read_text())\n"


def test_a_run_that_repeats(make_folder: MakeFolder) -> None:
    """Every output is identical, with the params of the run; neither the store nor the runs have changed."""
    folder = make_folder(CODED, {"user.py": STEADY})
    folder.kflow("run", "w.yaml", "--set", "order=1")
    verified = folder.kflow("verify", "latest")

    assert verified.returncode == 0, verified.stdout
    assert re.findall(r"^(\S+) +identical$", verified.stdout, re.MULTILINE) == ["same.array", "x.array", "unit.array"]
    assert len(folder.records()) == 1
    assert not list((folder.path.parent / "store" / "tmp").iterdir())


def test_nothing_is_announced_that_goes_with_the_scratch_store(make_folder: MakeFolder) -> None:
    """A run names the file of a result that is wanted most often; that of a run done again is gone afterwards."""
    folder = make_folder(CODED, {"user.py": STEADY})
    code = (
        "from kflow.adapters.normalize import Normalize; Normalize.announces = ('array',)\n"
        "from kflow.cli import main; main()\n"
    )
    ran, verified = (
        subprocess.run(
            [sys.executable, "-c", code, *words], cwd=folder.path, capture_output=True, text=True, check=True
        ).stdout
        for words in (("run", "w.yaml"), ("verify", "latest"))
    )

    assert re.search(r"^  unit.array +\S+array.npy$", ran, re.MULTILINE)
    assert "array.npy" not in verified


def test_a_run_that_does_not_repeat(make_folder: MakeFolder) -> None:
    """The outputs that differ are named with the place of the first difference, and the others are not."""
    folder = make_folder(CODED, {"user.py": MOODY, "mood": "a"})
    folder.kflow("run", "w.yaml")
    folder.write("mood", "abc")
    verified = folder.kflow("verify", "latest")
    chosen = folder.kflow("verify", "latest", "--only", "same")

    assert verified.returncode == 1
    assert re.search(r"^same.array +identical$", verified.stdout, re.MULTILINE)
    assert re.search(
        r"^x.array +differs +9 of 9 values differ, by at most 2, first at \(0,\)$", verified.stdout, re.MULTILINE
    )
    assert re.search(r"^unit.array +differs +\d of 9 values differ", verified.stdout, re.MULTILINE)
    assert chosen.returncode == 0
    assert "x.array" not in chosen.stdout


@pytest.mark.parametrize(("option", "steps"), [("--until", ["x"]), ("--only", ["unit", "x"])])
def test_a_run_of_chosen_steps_is_verified_as_far_as_it_went(
    make_folder: MakeFolder, option: str, steps: list[str]
) -> None:
    """What it had no results of is not run now."""
    folder = make_folder(CODED, {"user.py": STEADY})
    folder.kflow("run", "w.yaml", "--until", "x")
    folder.kflow("run", "w.yaml", option, steps[0])
    verified = folder.kflow("verify", "latest")

    assert verified.returncode == 0, verified.stdout
    assert re.findall(r"^ +(\w+) \(\w+\) +done", verified.stdout, re.MULTILINE) == steps[::-1]
    assert sorted(re.findall(r"^(\w+)\.array +identical$", verified.stdout, re.MULTILINE)) == steps


def test_what_a_failed_step_printed_is_shown(make_folder: MakeFolder) -> None:
    """Its log goes with the scratch store, so that its place is not told."""
    folder = make_folder(CODED, {"user.py": STEADY})
    folder.kflow("run", "w.yaml")
    folder.write("user.py", "def change(block):\n    print('so far')\n    1 / 0\n")
    verified = folder.kflow("verify", "latest")

    assert re.search(r"the end of the log of x:\n  so far\n  Traceback[^$]*ZeroDivisionError", verified.stdout)
    assert "the full log" not in verified.stdout


def test_a_run_is_verified_from_any_folder(make_folder: MakeFolder) -> None:
    """Also after its project was moved, as long as the workflow lies where the run was told that it does."""
    folder = make_folder(CODED, {"user.py": STEADY})
    below = Folder(folder.path / "below")
    below.path.mkdir()
    below.kflow("run", "../w.yaml")
    elsewhere = folder.kflow("verify", "latest")
    folder.path.rename(folder.path.with_name("moved"))
    moved = Folder(folder.path.with_name("moved") / "below").kflow("verify", "latest")

    assert elsewhere.returncode == 0, elsewhere.stderr
    assert moved.returncode == 0, moved.stderr


READING = """
kflow: 1
name: reading
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: "${env.N}", normalizer: user.py:change}
  unit: {kind: normalize, x: "${x}", axis: 0}
"""


def _flip_a_byte(folder: Any) -> None:
    """Change data so that size and time do not tell it."""
    path = folder.path / "digits.h5"
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "count", "output", "cause"),
    [
        (_flip_a_byte, "030", "digits.file", "file origin changed"),
        (lambda folder: folder.write("user.py", STEADY.replace("1", "2")), "030", "x.array", "code user.py changed"),
        (
            lambda folder: folder.write("user.py", "def change(block):\n    1 / 0\n"),
            "030",
            "x.array",
            "code user.py changed",
        ),
        (lambda _: None, "31", "x.array", "variable N changed"),
    ],
)
def test_what_was_changed_since_the_run_is_told(
    make_folder: MakeFolder, change: Callable[[Any], None], count: str, output: str, cause: str
) -> None:
    """So that the result is not blamed for it."""
    folder = make_folder(READING, {"user.py": STEADY})
    folder.kflow("run", "w.yaml", N="030")
    change(folder)
    verified = folder.kflow("verify", "latest", N=count)

    assert verified.returncode == 1
    assert re.search(rf"^{output} +(differs|missing) .*\b{cause}$", verified.stdout, re.MULTILINE), verified.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: folder.write("w.yaml", CODED + "\n"), "w.yaml is not the file that "),
        (lambda folder: (folder.path / "w.yaml").unlink(), "which is not here; --file says where it is now"),
    ],
)
def test_a_workflow_that_is_no_longer_there(
    make_folder: MakeFolder, change: Callable[[Any], None], message: str
) -> None:
    """Is exit code 2."""
    folder = make_folder(CODED, {"user.py": STEADY})
    folder.kflow("run", "w.yaml")
    change(folder)
    wrong = folder.kflow("verify", "latest")

    assert wrong.returncode == 2
    assert message in wrong.stderr


SAVED = """
kflow: 1
name: saved
steps:
  model: {kind: build_model, layers: [Input: {shape: [3]}, Dense: {units: 2}]}
  save: {kind: save_model, model: "${model}", filepath: out.keras}
  load: {kind: load_model, filepath: "${save.file}"}
"""


def test_a_damaged_input_of_a_chosen_step_is_told(make_folder: MakeFolder) -> None:
    """Also one whose file the user had asked for by path; it stays as it is, for a verification changes nothing."""
    folder = make_folder(SAVED)
    folder.kflow("run", "w.yaml")
    key = folder.records()[0].steps["save"].fingerprint
    (stored,) = (folder.path.parent / "store" / "entries" / key[:2] / key).rglob("*.keras")
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    verified = folder.kflow("verify", "latest", "--only", "load")

    assert verified.returncode == 1
    assert "the stored result of step 'save' was damaged or removed" in verified.stdout
    assert stored.read_bytes() == data


DRAWING = """
kflow: 1
name: drawing
seed: 5
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: "noise.py:noisy"}
"""
NOISE = """
import random
import numpy as np

BIAS = np.random.rand()

def noisy(block):
    return block + BIAS + random.random() + np.random.rand(*block.shape)
"""


def test_what_a_function_draws_follows_the_seed(make_folder: MakeFolder) -> None:
    """So a verification gives the same bytes, and another seed others, of a step that is run again."""
    folder = make_folder(DRAWING, {"noise.py": NOISE})
    folder.kflow("run", "w.yaml")
    verified = folder.kflow("verify", "latest")
    folder.write("w.yaml", DRAWING.replace("seed: 5", "seed: 6"))
    planned = folder.kflow("run", "w.yaml")
    new, old = (record.steps["x"].outputs["array"].digest for record in folder.records())

    assert verified.returncode == 0, verified.stdout
    assert "seed: 5 -> 6" in planned.stdout
    assert new != old


ODD = """
kflow: 1
name: odd
params: {rate: 1.0, word: NaN, net: {a.b: 1}, a.b: 2}
steps:
  first: {kind: measure, value: "${params.rate}"}
  second: {kind: note, text: "${params.word}"}
  third: {kind: note, text: third}
"""


@pytest.mark.usefixtures("kinds")
def test_params_are_those_of_the_run_whatever_they_are(make_folder: MakeFolder) -> None:
    """Numbers for which JSON has no word are numbers, texts that look like them are texts, and names may have dots."""
    folder = make_folder(ODD)
    folder.kflow("run", "w.yaml", "--set", "rate=-.inf")
    verified = folder.kflow("verify", "latest")

    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.count("identical") == 3


@pytest.mark.usefixtures("kinds")
def test_steps_that_a_run_has_no_outputs_of_cannot_be_chosen(make_folder: MakeFolder) -> None:
    """There is nothing to compare with: each is named, and nothing is run."""
    folder = make_folder(ODD)
    folder.kflow("run", "w.yaml", "--only", "first")
    (record,) = folder.records()
    wrong = folder.kflow("verify", "latest", "--only", "first", "--only", "third", "--only", "second")

    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"{record.id} has no outputs of 'third', 'second' that could be compared\n"
