"""``kflow validate`` tells all that is wrong, and touches nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

MakeFolder = Callable[..., Any]


def test_several_files_are_all_checked(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The good are told on standard output, the bad on standard error; one bad file is exit code 2."""
    folder = make_folder()
    folder.write("bad.yaml", "kflow: 1\nname: bad\nsteps:\n  a: {kind: fech, origin: digits.h5}\n")
    before = sorted(folder.path.iterdir())
    checked = folder.kflow("validate", "w.yaml", "bad.yaml", "none.yaml", "w.yaml")

    assert checked.returncode == 2
    assert checked.stdout == "w.yaml: fine, 5 steps\n" * 2
    assert "bad.yaml:4:13: " in checked.stderr
    assert "did you mean 'fetch'" in checked.stderr
    assert "none.yaml" in checked.stderr
    assert sorted(folder.path.iterdir()) == before
    assert not (tmp_path / "store").exists()


def test_all_files_good_is_exit_code_0(make_folder: MakeFolder) -> None:
    """And says nothing on standard error."""
    checked = make_folder().kflow("validate", "w.yaml", "--set", "rows=3")

    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_wrong_set_is_told_before_any_file(make_folder: MakeFolder) -> None:
    """With an example of a right one."""
    wrong = make_folder().kflow("validate", "w.yaml", "--set", "rows")

    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "expected NAME=VALUE, such as --set epochs=3" in wrong.stderr


def test_a_set_goes_through_validation(make_folder: MakeFolder) -> None:
    """A value that the field does not take is told as if it stood in the file; so is an unknown param."""
    folder = make_folder()

    assert folder.kflow("validate", "w.yaml", "--set", "rows=three").returncode == 2
    unknown = folder.kflow("validate", "w.yaml", "--set", "row=3")
    assert unknown.returncode == 2
    assert "rows" in unknown.stderr
