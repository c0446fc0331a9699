"""``kflow plan`` tells what a run would do, and does nothing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]


def test_before_the_first_run(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What has no inputs will run, the rest waits for it; no store appears."""
    planned = make_folder().kflow("plan", "w.yaml")

    assert planned.returncode == 0
    assert re.findall(r"^(\w+) +(\w+) +\w+ +(.*)$", planned.stdout, re.MULTILINE) == [
        ("run", "digits", "never run before"),
        ("wait", "x", "waits for digits"),
        ("wait", "labels", "waits for digits"),
        ("wait", "y", "waits for labels"),
        ("wait", "unit", "waits for x"),
    ]
    assert planned.stdout.endswith("1 to run, 4 to wait\n")
    assert not (tmp_path / "store").exists()


def test_a_wrong_workflow_is_exit_code_2(make_folder: MakeFolder) -> None:
    """With the same words as validate."""
    folder = make_folder("kflow: 1\n")
    planned, checked = folder.kflow("plan", "w.yaml"), folder.kflow("validate", "w.yaml")

    assert planned.returncode == 2
    assert planned.stderr == checked.stderr


def test_a_command_without_options_loads_no_command_line_library(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to be read from the command line; with an option it says the same."""
    folder = make_folder()
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    short = folder.kflow("plan", "w.yaml")
    long = folder.kflow("plan", "w.yaml", "--force")
    done = folder.kflow("run", "w.yaml")

    assert "kflow.plan.planner" in short.stderr
    assert "typer" not in short.stderr
    assert "typer" in long.stderr
    assert short.stdout == long.stdout.replace("forced", "never run before")
    assert done.returncode == 0
    assert "typer" not in done.stderr


EXPORTING = """
kflow: 1
name: exporting
steps:
  m: {kind: build_model, layers: [{Input: {shape: [2]}}, {Dense: {units: 1}}]}
  s: {kind: save_model, model: "${m}", filepath: out/m.keras}
"""


def test_a_file_that_a_run_would_put_back_is_work_to_do(make_folder: MakeFolder) -> None:
    """It was asked for by path; where it is gone, or is another one, the plan says so."""
    folder = make_folder(EXPORTING)
    ran = folder.kflow("run", "w.yaml")
    made = folder.path / "out" / "m.keras"
    told = [folder.kflow("plan", "w.yaml", "--exit-code")]
    content = made.read_bytes()
    made.write_bytes(bytes(len(content)))
    told.append(folder.kflow("plan", "w.yaml", "--exit-code"))
    made.unlink()
    told.append(folder.kflow("plan", "w.yaml", "--exit-code"))
    folder.kflow("run", "w.yaml")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [each.returncode for each in told] == [0, 3, 3]
    assert told[1].stdout.endswith("out/m.keras of step s holds something else; a run puts it in place\n")
    assert told[2].stdout.endswith("out/m.keras of step s is not there; a run puts it in place\n")
    assert made.read_bytes() == content
    assert folder.statuses() == {"m": "reused", "s": "reused"}


NEEDED = """
kflow: 1
name: needed
steps:
  m: {kind: build_model, layers: [{Input: {shape: [2]}}, {Dense: {units: 1}}]}
  s: {kind: save_model, model: "${m}", filepath: out/m.keras}
  again: {kind: load_model, filepath: "${s.file}"}
"""


def test_a_part_puts_back_what_it_needs(make_folder: MakeFolder) -> None:
    """A run of chosen steps does so for those that they need, and the plan of the same says it, however often."""
    folder = make_folder(NEEDED)
    ran = folder.kflow("run", "w.yaml")
    made = folder.path / "out" / "m.keras"
    part = ("plan", "w.yaml", "--only", "again", "--exit-code")
    told = [folder.kflow(*part)]
    made.unlink()
    told += [folder.kflow(*part) for _ in range(2)]
    folder.kflow("run", "w.yaml", "--only", "again")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [each.returncode for each in told] == [0, 3, 3]
    assert told[1].stdout.endswith("1 to reuse\nout/m.keras of step s is not there; a run puts it in place\n")
    assert made.exists()
