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


def test_a_run_from_another_folder(make_folder: MakeFolder) -> None:
    """Paths in the workflow start at its file; the last line says where the record lies."""
    folder = make_folder(ONE)
    done = type(folder)(folder.path.parent).kflow("run", "here/w.yaml")

    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[:2] == ["run", "record"]
    assert (folder.path.parent / last[2]).is_file()
    assert folder.records()[0].workflow.path == "here/w.yaml"
