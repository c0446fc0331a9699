"""A lock holds what a workflow gave, and a locked run fails where reality differs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.document import dump_document, parse_document
from kflow.errors import WorkflowError
from kflow.run.lock import read_lock

MakeFolder = Callable[..., Any]
CODED = """
kflow: 1
name: coded
params: {order: 2}
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:change}
  unit: {kind: normalize, x: "${x}", axis: 0, order: "${params.order}"}
"""
CODE = "def change(block):\n    return block + 1\n"
RANDOM = "import os\n\ndef change(block):\n    return block.astype('i8') + int.from_bytes(os.urandom(3))\n"

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text("ab1e3.-:#~ nyo\n'\"é"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc1e~", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), values, min_size=1))
def test_what_is_dumped_is_read_back(value: dict[str, Any]) -> None:
    """Texts that look like numbers, infinities and line breaks included."""
    read = parse_document(dump_document(value, "A head."), "a.yaml").value

    assert read == value
    assert repr(read) == repr(value)


@pytest.fixture
def locked(make_folder: MakeFolder) -> Any:
    """Give a folder with a workflow that has been run and locked."""
    folder = make_folder(CODED, {"user.py": CODE})
    folder.kflow("run", "w.yaml")
    assert folder.kflow("lock", "w.yaml").returncode == 0
    return folder


def test_a_locked_run_from_nothing(locked: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Gives what was locked, in another store."""
    monkeypatch.setenv("KFLOW_STORE", str(tmp_path / "other"))

    assert locked.kflow("run", "w.yaml", "--locked").returncode == 0
    assert locked.statuses() == {"x": "run", "unit": "run"}


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        (
            "end: 9",
            "end: 8",
            "step 'x': end: 8 -> 9, and the same fingerprint: the lock was changed by hand or by a merge",
        ),
        ("seed: 0", "seed: 1", "seed: 1 -> 0, and the same fingerprint"),
        ("value: 0.5", "value: 0.75", "metric m.value is 0.5, and 0.75 was locked"),
        ("value: 0.5", "loss: 0.5", "metric m.value is 0.5, and nothing was locked"),
    ],
)
@pytest.mark.usefixtures("kinds")
def test_a_lock_that_was_changed_by_hand_is_told(
    make_folder: MakeFolder, written: str, instead: str, told: str
) -> None:
    """A merge that went wrong leaves numbers there that nothing gave."""
    text = CODED.replace("steps:", "steps:\n  m: {kind: measure, value: 0.5}")
    folder = make_folder(text, {"user.py": CODE})
    folder.kflow("run", "w.yaml")
    folder.kflow("lock", "w.yaml")
    good = folder.kflow("run", "w.yaml", "--locked")
    lock = folder.path / "w.lock.yaml"
    assert written in lock.read_text()
    lock.write_text(lock.read_text().replace(written, instead, 1))
    bad = folder.kflow("run", "w.yaml", "--locked")

    assert good.returncode == 0, good.stderr
    assert bad.returncode == 1
    assert told in bad.stderr


@pytest.mark.parametrize("part", ["fields", "libraries", "code", "inputs"])
@pytest.mark.parametrize("value", ["", "[1]", "text", "3"])
def test_a_lock_that_was_spoilt_is_told(locked: Any, part: str, value: str) -> None:
    """As a merge may leave it."""
    lock = locked.path / "w.lock.yaml"
    text = re.sub(rf"^      {part}:\n(        .*\n)+", f"      {part}: {value}\n", lock.read_text(), flags=re.MULTILINE)
    assert text != lock.read_text()
    lock.write_text(text)
    run = locked.kflow("run", "w.yaml", "--locked")

    assert run.returncode == 2, run.stdout + run.stderr
    assert "w.lock.yaml is no lock of this version of kflow; 'kflow lock' writes it anew" in run.stderr


@pytest.mark.usefixtures("kinds")
def test_a_text_that_a_document_holds_in_blocks_only(make_folder: MakeFolder) -> None:
    """What is locked can be read again."""
    text = "kflow: 1\nname: w\nsteps:\n  n:\n    kind: note\n    text: |\n      a\u200bb\n"
    folder = make_folder(text)
    done = [folder.kflow(*each) for each in (("run", "w.yaml"), ("lock", "w.yaml"), ("run", "w.yaml", "--locked"))]

    assert [each.returncode for each in done] == [0, 0, 0], done[-1].stderr


@pytest.mark.usefixtures("kinds")
def test_a_result_that_is_found_during_a_run_is_held_to_the_lock(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It could not be told before, as what it is made of had to be made again."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up}
  a: {kind: note, text: a, takes: {up: "${up}"}, is_noisy: true}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml")
    folder.kflow("lock", "w.yaml")
    folder.kflow("run", "w.yaml", "--only", "a", "--force")
    key = str(folder.records()[0].steps["up"].fingerprint)
    shutil.rmtree(tmp_path / "store" / "entries" / key[:2] / key)
    run = folder.kflow("run", "w.yaml", "--locked")

    assert run.returncode == 1
    assert "output a.file is" in run.stderr


def test_a_folder_in_the_place_of_a_lock(make_folder: MakeFolder) -> None:
    """Is no lock, and stays."""
    folder = make_folder()
    (folder.path / "w.lock.yaml").mkdir()
    folder.kflow("run", "w.yaml")
    locked, run = folder.kflow("lock", "w.yaml"), folder.kflow("run", "w.yaml", "--locked")

    assert (locked.returncode, run.returncode) == (2, 2)
    assert "w.lock.yaml is no lock, and would be gone" in locked.stderr
    assert "w.lock.yaml: this is a directory" in run.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("w.yaml", CODED.replace("order: 2", "order: 1")), "step 'unit': order: 2.0 -> 1.0"),
        (("user.py", CODE + "\n"), "step 'x': code user.py changed"),
        (("w.yaml", CODED.replace("unit:", "other:")), "step 'unit' is in the lock and no longer in the workflow"),
        (("w.yaml", CODED.replace("unit:", "other:")), "step 'other' is not in the lock"),
    ],
)
def test_what_differs_is_told_before_anything_runs(locked: Any, change: tuple[str, str], told: str) -> None:
    """In words, with exit code 1, and without a run."""
    locked.write(*change)
    failed = locked.kflow("run", "w.yaml", "--locked")

    assert failed.returncode == 1
    assert told in failed.stderr
    assert len(locked.records()) == 1


def test_another_result_fails_after_its_step(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What hangs on it is not run."""
    folder = make_folder(CODED, {"user.py": RANDOM})
    assert folder.kflow("run", "w.yaml").returncode == 0
    assert folder.kflow("lock", "w.yaml").returncode == 0
    monkeypatch.setenv("KFLOW_STORE", str(tmp_path / "other"))
    failed = folder.kflow("run", "w.yaml", "--locked")

    assert failed.returncode == 1
    assert "was locked (--locked)" in failed.stderr
    assert (folder.records()[0].status, folder.statuses()) == ("failed", {"x": "run", "unit": "not run"})


@pytest.mark.parametrize("text", [None, "", "[1]", "kflow-lock: 2\nsteps: {}\n", "kflow-lock: 1\nsteps: {x: {}}\n"])
def test_what_is_no_lock(locked: Any, text: str | None) -> None:
    """Is exit code 2, and says what to do."""
    path = locked.path / "w.lock.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    wrong = locked.kflow("run", "w.yaml", "--locked")

    assert wrong.returncode == 2
    assert "w.lock.yaml" in wrong.stderr


TWO = """
kflow: 1
name: two
params: {end: 9}
steps:
  m: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: "${params.end}"}
  s: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 9}
  t: {kind: normalize, x: "${s}", axis: 0}
"""


def test_a_locked_part_is_held_to_what_it_is_about(make_folder: MakeFolder) -> None:
    """To the chosen steps and those that they need; another one may be what it likes, or be gone."""
    folder = make_folder(TWO)
    folder.kflow("run", "w.yaml")
    folder.kflow("lock", "w.yaml")
    folder.write("w.yaml", TWO.replace("end: 9}\nsteps", "end: 8}\nsteps"))
    part = folder.kflow("run", "w.yaml", "--locked", "--only", "t")
    whole = folder.kflow("run", "w.yaml", "--locked")
    folder.write("w.yaml", TWO.replace("  m:", "  other:").replace("images, end: 9", "images, end: 7"))
    needed = folder.kflow("run", "w.yaml", "--locked", "--until", "t")

    assert part.returncode == 0, part.stderr
    assert (whole.returncode, needed.returncode) == (1, 1)
    assert "step 'm': end: 9 -> 8" in whole.stderr
    assert needed.stderr.splitlines()[1:] == ["  step 's': end: 9 -> 7"]


def test_a_workflow_that_was_not_run_cannot_be_locked(make_folder: MakeFolder) -> None:
    """The steps without a result are named."""
    wrong = make_folder(CODED, {"user.py": CODE}).kflow("lock", "w.yaml")

    assert wrong.returncode == 2
    assert wrong.stderr == "x, unit: no result in the store yet; 'kflow run' makes what can then be locked\n"


def test_a_lock_takes_the_place_of_a_lock_alone(locked: Any) -> None:
    """Neither of a file of the user's, nor of the lock of a workflow of the same name; a link to one stays."""
    lock = locked.path / "w.lock.yaml"
    kept = lock.rename(locked.path / "kept.yaml")
    lock.symlink_to(kept)
    kept.write_text("kflow-lock: 0\n")
    linked = locked.kflow("lock", "w.yaml")
    lock.unlink()
    lock.write_text(CODED)
    taken = locked.kflow("lock", "w.yaml")
    text = lock.read_text()
    lock.unlink()
    locked.write("w.yml", CODED)
    shared = [locked.kflow(*words) for words in (("lock", "w.yml"), ("run", "w.yaml", "--locked"))]

    assert linked.returncode == 0, linked.stderr
    assert kept.read_text().count("fingerprint") == 2
    assert (taken.returncode, text) == (2, CODED)
    assert taken.stderr == "w.lock.yaml is no lock, and would be gone; rename it, or the workflow\n"
    assert [each.returncode for each in shared] == [2, 2]
    assert "would be the lock of w.yaml as well as of w.yml; rename one of them" in shared[0].stderr
    assert not lock.exists()


def test_the_lock_of_a_long_workflow_is_read(tmp_path: Path) -> None:
    """What kflow itself writes may hold more than what people write; of all too much it is said what to do."""
    lock, huge = tmp_path / "w.lock.yaml", tmp_path / "huge.lock.yaml"
    outputs = "".join(f"      o{number}: 98ea6e4f216f2fb4\n" for number in range(200_000))
    lock.write_text(
        f"kflow-lock: 1\nworkflow: w\nsteps:\n  x:\n    fingerprint: a\n    outputs:\n{outputs}    components: {{}}\n"
    )
    huge.write_bytes(b"#" * (64 * 2**20 + 1))

    assert lock.stat().st_size > 4 * 2**20
    assert len(read_lock(lock).steps["x"]["outputs"]) == 200_000
    with pytest.raises(WorkflowError, match="the file is larger than 64 MiB") as refused:
        read_lock(huge)
    assert "divide the workflow, so that its locks are smaller" in str(refused.value)


def test_an_output_that_is_missing_in_the_lock_is_a_difference(locked: Any) -> None:
    """As after a merge that went wrong; so is one that the step has not."""
    lock = locked.path / "w.lock.yaml"
    lock.write_text(lock.read_text().replace("array:", "other:", 1))
    failed = locked.kflow("run", "w.yaml", "--locked")

    assert failed.returncode == 1
    assert re.search(r"output x.other is nothing, and [0-9a-f]{12} was locked", failed.stderr)
    assert re.search(r"output x.array is [0-9a-f]{12}, and nothing was locked", failed.stderr)
