"""Values of environment variables are in no record, journal, saved plan or lock."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]
CODED = """
kflow: 1
name: hidden
steps:
  notes: {kind: fetch, origin: "${env.PLACE}/notes.txt"}
  objects: {kind: register_objects, objects: {A: "${env.PLACE}/a.py:A", B: b.py:B}}
  more: {kind: register_objects, objects: "${env.MORE}"}
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: "${env.PLACE}/a.py:change"}
"""
A = "import near\nA = 1\n\ndef change(block):\n    return block + near.x\n"


@pytest.fixture
def hidden(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder with a workflow whose data and code lie where variables say, one of them from the folder above."""
    folder = make_folder(CODED, {"b.py": "B = 1\n"})
    secret = folder.path / "secret"
    secret.mkdir()
    for name, text in {"notes.txt": "a", "a.py": A, "near.py": "x = 1\n"}.items():
        (secret / name).write_text(text)
    monkeypatch.setenv("PLACE", "../here/secret")
    monkeypatch.setenv("MORE", f"{{A: {secret}/a.py:A, B: b.py:B}}")
    return folder


def _kept(folder: Any) -> str:
    """Return all that runs, plans and locks have written down."""
    runs = (Path(os.environ["KFLOW_STORE"]) / "runs").glob("*/*.json*")
    return "".join(path.read_text() for path in [*runs, folder.path / "plan.json", folder.path / "w.lock.yaml"])


def test_the_place_of_data_and_code_is_not_kept(hidden: Any) -> None:
    """Neither in a reason, nor among the files of the code; what has changed there is told all the same."""
    first = hidden.kflow("run", "w.yaml")
    locked = hidden.kflow("lock", "w.yaml")
    os.utime(hidden.path / "secret" / "notes.txt", (0, 0))
    planned = hidden.kflow("plan", "w.yaml", "-o", "plan.json")
    again = hidden.kflow("run", "plan.json")
    kept = _kept(hidden)
    (hidden.path / "secret" / "near.py").write_text("x = 2\n")
    changed = hidden.kflow("run", "plan.json")

    assert [done.returncode for done in (first, locked, planned, again, changed)] == [0, 0, 0, 0, 1], first.stderr
    assert hidden.records()[0].steps["notes"].reason.endswith("${env.PLACE}/notes.txt was touched, moved or changed")
    assert "secret" not in kept
    assert changed.stderr.splitlines()[1:-1] == [
        "  step 'objects': code near.py of ${env.PLACE}/a.py changed",
        "  step 'more': code near.py of ${env.MORE}.A changed",
        "  step 'x': code near.py of ${env.PLACE}/a.py changed",
    ]


def test_a_value_is_not_kept_in_the_error_of_a_step(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though YAML has read it, and what is told has no quotes any more."""
    folder = make_folder('kflow: 1\nname: w\nsteps: {f: {kind: fetch, origin: "https://h/${env.KEY}"}}\n')
    monkeypatch.setenv("KEY", "'hunter2'")
    failed = folder.kflow("run", "w.yaml", KFLOW_OFFLINE="1")

    assert failed.returncode == 1
    assert "https://h/hunter2" in failed.stdout
    assert "https://h/${env.KEY}" in str(folder.records()[0].steps["f"].error)
    assert "hunter2" not in folder.records()[0].model_dump_json()


def test_a_value_is_not_kept_in_part(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long to be told is cut off, and within a value it could not be found any more."""
    origin = f"https://h/{'f/' * 240}${{env.KEY}}"
    folder = make_folder(f'kflow: 1\nname: w\nsteps: {{f: {{kind: fetch, origin: "{origin}"}}}}\n')
    monkeypatch.setenv("KEY", "SECRET" * 30)
    failed = folder.kflow("run", "w.yaml", KFLOW_OFFLINE="1")

    assert re.search(r"failed: .*SECR(ET)* \.\.\.", failed.stdout)
    assert "SECR" not in folder.records()[0].model_dump_json()


@pytest.mark.usefixtures("kinds")
def test_the_path_of_a_file_is_kept_as_the_workflow_has_it(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short value within a word would not be found there."""
    folder = make_folder('kflow: 1\nname: w\nsteps: {n: {kind: note, text: a, to_file: "out${env.PIN}.txt"}}\n')
    monkeypatch.setenv("PIN", "739")
    folder.kflow("run", "w.yaml")

    assert (folder.path / "out739.txt").exists()
    assert folder.records()[0].steps["n"].outputs["file"].path == "out${env.PIN}.txt"
