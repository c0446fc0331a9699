"""``kflow run``: the way through the command line; what a run does is tested with the executor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

MakeFolder = Callable[..., Any]
ONE = "kflow: 1\nname: one\nsteps:\n  digits: {kind: fetch, origin: digits.h5}\n"


def test_store_by_option_by_variable_and_by_default(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The option is stronger than KFLOW_STORE; with neither it is .kflow in the current folder."""
    folder = make_folder(ONE)
    assert folder.kflow("run", "w.yaml", "--store", "mine").returncode == 0
    assert (folder.path / "mine" / "runs").is_dir()
    assert not (tmp_path / "store").exists()

    assert folder.kflow("run", "w.yaml", KFLOW_STORE="named").returncode == 0
    assert (folder.path / "named" / "runs").is_dir()

    assert folder.kflow("run", "w.yaml", KFLOW_STORE="").returncode == 0
    assert (folder.path / ".kflow" / "runs").is_dir()


def test_the_file_is_the_one_that_the_system_opens(make_folder: MakeFolder) -> None:
    """Behind a link '..' leads to where the link leads, and a file of the same name here is another one."""
    folder = make_folder(ONE, name="real")
    (folder.path / "sub").mkdir()
    here = type(folder)(folder.path.parent)
    (here.path / "link").symlink_to("real/sub")
    here.write("w.yaml", "kflow: 1\n")
    done = [here.kflow(command, "link/../w.yaml") for command in ("run", "plan", "lock", "validate", "run")]
    why = here.kflow("why", "digits")

    assert [each.returncode for each in done] == [0] * 5, [each.stderr for each in done]
    assert {record.workflow.place for record in folder.records()} == {str(folder.path / "w.yaml")}
    assert (folder.path / "w.lock.yaml").is_file()
    assert "was reused" in why.stdout


def test_a_run_from_another_folder(make_folder: MakeFolder) -> None:
    """Paths in the workflow start at its file; the last line says where the record lies."""
    folder = make_folder(ONE)
    done = type(folder)(folder.path.parent).kflow("run", "here/w.yaml")

    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[:2] == ["run", "record"]
    assert (folder.path.parent / last[2]).is_file()
    assert folder.records()[0].workflow.path == "here/w.yaml"
