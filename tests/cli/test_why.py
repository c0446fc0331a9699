"""``kflow why`` and ``kflow diff`` compare runs in words."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Folder

MakeFolder = Callable[..., Any]

HELPED = """
kflow: 1
name: helped
params: {rows: 40, order: 2}
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: "${params.rows}", normalizer: near.py:change}
  unit: {kind: normalize, x: "${x}", axis: 0, order: "${params.order}"}
  other: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 3}
"""
FILES = {
    "near.py": "from middle import twice\n\ndef change(block):\n    return twice(block)\n",
    "middle.py": "from far import factor\n\ndef twice(block):\n    return factor * block\n",
    "far.py": "factor = 2.0\n",
}


@pytest.fixture
def folder(make_folder: MakeFolder) -> Any:
    """Give a folder with two runs, between which a function two imports away has changed, and a param."""
    made = make_folder(HELPED, FILES)
    made.kflow("run", "w.yaml")
    made.write("far.py", "factor = 3.0\n")
    assert made.kflow("run", "w.yaml", "--set", "order=1").returncode == 0
    return made


def test_a_helper_two_imports_away_is_named(folder: Any) -> None:
    """With the way from the step that was asked for to where the change comes from."""
    told = folder.kflow("why", "unit")

    first, second, third = told.stdout.splitlines()
    assert re.search(r"^unit of \S+ was run: order: .*, compared with \S+:$", first)
    assert re.search(r"^unit: order: 2(\.0)? -> 1(\.0)?; input x changed$", second)
    assert third == "  x: code far.py changed"


def install(site: Path, version: str) -> None:
    """Put a library there whose package has another name, as PyYAML has."""
    shutil.rmtree(site, ignore_errors=True)
    described = site / f"Scaling_Library-{version}.dist-info"
    described.mkdir(parents=True)
    (site / "scaling.py").write_text(f"factor = {version}\n")
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Scaling-Library\nVersion: {version}\n")
    (described / "top_level.txt").write_text("scaling\n")


def test_another_version_of_a_library_that_a_helper_imports_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Two imports away, under another name than its package's; the step is run again, and no other."""
    folder = make_folder(HELPED, {**FILES, "far.py": "from scaling import factor\n"})
    install(tmp_path / "site", "2.0")
    first = folder.kflow("run", "w.yaml", PYTHONPATH=str(tmp_path / "site"))
    install(tmp_path / "site", "3.0")

    planned = folder.kflow("plan", "w.yaml", PYTHONPATH=str(tmp_path / "site")).stdout
    folder.kflow("run", "w.yaml", PYTHONPATH=str(tmp_path / "site"))

    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"^run +x +slice_hdf5 +Scaling-Library: 2\.0 -> 3\.0$", planned, re.MULTILINE)
    assert folder.statuses() == {"x": "run", "unit": "run", "other": "reused"}
    assert folder.kflow("why", "x").stdout.endswith("x: Scaling-Library: 2.0 -> 3.0\n")


def test_any_two_runs_can_be_compared(folder: Any) -> None:
    """By id, or the start of one; a step that did not change says so."""
    newest, oldest = (record.id for record in folder.records())
    same = folder.kflow("why", "other", "--run", oldest, "--against", newest)

    assert "other: nothing differs" in same.stdout
    assert folder.kflow("why", "unit", "--run", oldest).stdout.endswith("no earlier run of w.yaml has done it\n")


def test_a_step_that_was_reused_is_not_said_to_have_been_run(folder: Any) -> None:
    """Nothing differs from the run before; nor does any run from itself."""
    folder.kflow("run", "w.yaml", "--set", "order=1")
    newest, before, *_ = (record.id for record in folder.records())

    assert folder.kflow("why", "unit").stdout == (
        f"unit of {newest} was reused, compared with {before}:\nunit: nothing differs\n"
    )
    assert folder.kflow("why", "unit", "--against", newest).stdout == (
        f"unit: nothing differs, as {newest} is compared with itself\n"
    )


def test_a_step_that_was_run_by_force_says_so(folder: Any) -> None:
    """Nothing differs, and yet it was run."""
    folder.kflow("run", "w.yaml", "--set", "order=1", "--only", "other", "--force")

    first, second = folder.kflow("why", "other").stdout.splitlines()
    assert " was run: forced, compared with " in first
    assert second == "other: nothing differs in what it is made of"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("why", "uint"), "has no step 'uint'; did you mean 'unit'?"),
        (("why", "unit", "--against", "1999"), "no run starts with '1999'"),
        (("diff", "latest", "1999"), "no run starts with '1999'"),
        (("runs", "--sort", "accuracy"), "--sort accuracy: no run has this metric; no run has any"),
    ],
)
def test_what_cannot_be_compared(folder: Any, arguments: tuple[str, ...], message: str) -> None:
    """Is exit code 2, with what there is."""
    wrong = folder.kflow(*arguments)

    assert wrong.returncode == 2
    assert message in wrong.stderr


def test_two_runs_differ_in_params_code_and_outputs(folder: Any) -> None:
    """As text and as JSON."""
    newest, oldest = (record.id for record in folder.records())
    text = folder.kflow("diff", oldest, newest).stdout
    found = json.loads(folder.kflow("diff", oldest, newest, "--json").stdout)

    assert re.search(r"params:\n  order +2 +-> 1", text)
    assert re.search(r"  x +code far.py changed", text)
    assert found["params"] == {"order": [2, 1]}
    assert set(found["outputs"]) == {"x.array", "unit.array"}
    assert set(found["seconds"]) == {"x", "unit"}


def test_a_run_does_not_differ_from_itself(folder: Any) -> None:
    """But for the time, which is equal here."""
    assert "nothing differs but the time" in folder.kflow("diff", "latest", "latest").stdout


SHORT = """
kflow: 1
name: short
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9}
"""


def test_projects_that_share_a_store_are_told_apart(make_folder: MakeFolder) -> None:
    """Though their workflows are of the same name, and each is run from its own folder."""
    make_folder(SHORT, name="first").kflow("run", "w.yaml")
    second = make_folder(SHORT.replace("9", "5"), name="second")
    planned = second.kflow("plan", "w.yaml").stdout
    second.kflow("run", "w.yaml")

    assert "never run before" in planned
    assert "no earlier run of w.yaml has done it" in second.kflow("why", "x").stdout


@pytest.mark.parametrize("name", ["here", os.fsdecode(b"h\xe9re")])
def test_a_workflow_has_one_history_from_wherever_it_is_run(make_folder: MakeFolder, name: str) -> None:
    """The name of its folder may be of any bytes."""
    folder = make_folder(SHORT, name=name)
    below = Folder(folder.path / "below")
    below.path.mkdir()
    folder.kflow("run", "w.yaml")
    folder.write("w.yaml", SHORT.replace("9", "5"))
    planned = below.kflow("plan", "../w.yaml").stdout
    below.kflow("run", "../w.yaml")

    assert "end: 9 -> 5" in planned
    assert "x: end: 9 -> 5" in folder.kflow("why", "x").stdout


def test_the_name_of_a_workflow_may_be_of_any_bytes(make_folder: MakeFolder) -> None:
    """Its record holds what is no UTF-8 written out."""
    folder = make_folder(SHORT)
    name = os.fsdecode(b"w\xe9.yaml")
    (folder.path / "w.yaml").rename(folder.path / name)

    ran, again = folder.kflow("run", name), folder.kflow("run", name)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "1 reused" in again.stdout
    assert folder.records()[0].workflow.path == r"w\xe9.yaml"


def test_a_workflow_has_one_history_by_way_of_a_link(make_folder: MakeFolder, tmp_path: Path) -> None:
    """To its folder: a link to the file alone is another workflow, as other files lie beside it."""
    folder = make_folder(SHORT)
    folder.kflow("run", "w.yaml")
    folder.write("w.yaml", SHORT.replace("9", "5"))
    (tmp_path / "link").symlink_to(folder.path)

    assert "end: 9 -> 5" in folder.kflow("plan", str(tmp_path / "link" / "w.yaml")).stdout


def test_a_step_that_a_run_was_not_asked_for(folder: Any) -> None:
    """Such a run did not end early."""
    folder.kflow("run", "w.yaml", "--only", "other", "--force")
    wrong = folder.kflow("why", "unit")

    assert wrong.returncode == 2
    assert re.search(r"the run \S+ was not asked for step 'unit'; 'kflow runs' lists others", wrong.stderr)


LISTENING = """
kflow: 1
name: listening
params: {word: one}
steps:
  inner: {kind: note, text: "${params.word}"}
  outer: {kind: note, text: same, takes: {"enc.in": "${inner}", enc: "${inner}"}}
  last: {kind: note, text: last, needs: [outer], after: "${env.SIGN}"}
  never: {kind: note, text: never, needs: [last]}
"""


@pytest.mark.usefixtures("kinds")
def test_an_input_whose_name_has_a_dot_is_followed(make_folder: MakeFolder) -> None:
    """As Keras names the inputs of a model within a model; where the record says of none, nothing is."""
    folder = make_folder(LISTENING)
    for word in ("one", "two"):
        assert folder.kflow("run", "w.yaml", "--set", f"word={word}", SIGN="/").returncode == 0

    told = folder.kflow("why", "outer")
    path = max((folder.path.parent / "store" / "runs").iterdir()) / "record.json"
    path.write_text(path.read_text().replace('"enc.in": "${inner}",', "").replace('"enc": "${inner}"', '"enc": null'))
    untold = folder.kflow("why", "outer")
    inputs = "outer: input takes.enc.in changed; input takes.enc changed"
    assert told.stdout.splitlines()[1:] == [inputs, '  inner: text: "one" -> "two"']
    assert untold.stdout.splitlines()[1:] == [inputs]


@pytest.mark.usefixtures("kinds")
def test_a_step_that_a_run_under_way_has_not_come_to(make_folder: MakeFolder) -> None:
    """Such a run has not ended."""
    folder = make_folder(LISTENING)
    sign = folder.path / "sign"
    runner = folder.start("run", "w.yaml", SIGN=str(sign))
    folder.wait_until_it_runs("last")
    wrong = folder.kflow("why", "never")
    sign.touch()
    runner.communicate(timeout=100)

    assert (wrong.returncode, runner.returncode) == (2, 0)
    assert re.search(r"the run \S+ is still running, and has not come to step 'never'; 'kflow runs'", wrong.stderr)


@pytest.mark.usefixtures("kinds")
def test_what_is_no_number_is_a_text_in_json(make_folder: MakeFolder) -> None:
    """JSON has no NaN and no infinity, wherever they stand."""
    folder = make_folder(
        "kflow: 1\nname: odd\nparams: {x: 1.5, ä: [0.5]}\nsteps:\n  m: {kind: measure, value: '${params.x}'}\n"
    )
    folder.kflow("run", "w.yaml")
    assert folder.kflow("run", "w.yaml", "--set", "x=.nan", "--set", "ä=[-.inf]").returncode == 0

    newest, oldest = (record.id for record in folder.records())
    told = folder.kflow("diff", oldest, newest, "--json", PYTHONIOENCODING="ascii").stdout
    found = json.loads(told, parse_constant=pytest.fail)
    assert found["params"] == {"x": [1.5, "NaN"], "ä": [[0.5], ["-Infinity"]]}
    assert found["metrics"] == {"m.value": [1.5, "NaN"]}
