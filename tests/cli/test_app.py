"""What holds for every command: help, version, exit codes, light imports, completion."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kflow

MakeFolder = Callable[..., Any]
Spy = Callable[[], dict[str, set[str]]]
COMMAND = Path(sys.executable).with_name("kflow")


def test_help_names_every_command_and_the_exit_codes(make_folder: MakeFolder) -> None:
    """So that nobody has to look elsewhere."""
    shown = make_folder().kflow("--help")

    assert shown.returncode == 0
    for word in (
        "validate",
        "plan",
        "run",
        "runs",
        "show",
        "kinds",
        "schema",
        "--version",
        "130",
        "3 'plan --exit-code'",
    ):
        assert word in shown.stdout


def test_version(make_folder: MakeFolder) -> None:
    """Of the installed command as of the module, alone as before other options."""
    told = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True).stdout

    assert told == f"kflow {kflow.__version__}\n"
    assert make_folder().kflow("--version", "--help").stdout == told


def test_looking_never_imports_anything_heavy(make_folder: MakeFolder, spy: Spy) -> None:
    """Validation looks into HDF5 files with a child process; nothing else starts one."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")
    spy()
    light = [["--help"], ["--version"], ["kinds"], ["kinds", "train"], ["schema"], ["schema", "--record"]]
    for arguments in [*light, ["runs"], ["show", "latest"]]:
        assert folder.kflow(*arguments).returncode == 0
        assert spy() == {"kflow": set()}, arguments

    for arguments in (["validate", "w.yaml"], ["plan", "w.yaml"]):
        assert folder.kflow(*arguments).returncode == 0
        seen = spy()
        assert seen.pop("kflow") == set(), arguments
        assert seen.keys() == {"kflow.core.hdf5"}, arguments


def test_the_spy_sees_what_is_imported(spy: Spy) -> None:
    """The test above could fail."""
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)

    assert spy() == {"-c": {"numpy"}}


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["run", "w.yaml", "--nonsense"], ["show"]])
def test_a_wrong_command_line_is_exit_code_2(make_folder: MakeFolder, arguments: list[str]) -> None:
    """With a hint at the help."""
    wrong = make_folder().kflow(*arguments)

    assert wrong.returncode == 2
    assert "-h' for help" in wrong.stderr


def test_debug_shows_a_traceback_and_keeps_the_exit_code(make_folder: MakeFolder) -> None:
    """Also of an error that is the user's."""
    wrong = make_folder("- a list\n").kflow("validate", "none.yaml", "--debug")
    missing = make_folder(name="other").kflow("plan", "none.yaml", "--debug")

    assert wrong.returncode == missing.returncode == 2
    assert "Traceback" in missing.stderr
    assert missing.stderr.rstrip().splitlines()[-1].startswith("none.yaml")


def test_the_shell_completes_commands() -> None:
    """The script is printed for the shell, and the shell's question is answered."""
    environ = {**os.environ, "_KFLOW_COMPLETE": "source_bash"}
    script = subprocess.run([COMMAND], env=environ, capture_output=True, text=True, check=False).stdout
    question = {"_KFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "kflow va", "COMP_CWORD": "1"}
    answer = subprocess.run([COMMAND], env={**os.environ, **question}, capture_output=True, text=True, check=False)

    assert "complete -o default -F _kflow_completion kflow" in script
    assert answer.stdout.split() == ["validate"]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_shell_completes_kinds_and_runs(make_folder: MakeFolder) -> None:
    """By the kinds that there are, and by the runs of the store."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")
    (run,) = (record.id for record in folder.records())

    assert _completions("kflow kinds pl") == ["plot_history", "plot_model"]
    assert _completions(f"kflow show --store {os.environ['KFLOW_STORE']} ''") == ["latest", run]


def _completions(line: str) -> list[str]:
    """Ask what bash would ask when the line ends here."""
    question = {"_KFLOW_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environ = {**os.environ, **question}
    return subprocess.run([COMMAND], env=environ, capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.parametrize("command", ["run", "plan", "validate", "lock"])
@pytest.mark.parametrize("name", ["pipe.yaml", "pipe.json"])
def test_a_pipe_is_no_workflow_and_not_waited_for(make_folder: MakeFolder, command: str, name: str) -> None:
    """Nobody may ever write to it."""
    folder = make_folder()
    os.mkfifo(folder.path / name)

    done = folder.kflow(command, name)

    assert (done.returncode, done.stderr) == (2, f"{name}: the file cannot be read: it is no regular file\n")


def test_a_current_folder_that_is_gone_is_told(make_folder: MakeFolder) -> None:
    """Nothing relative can be found from there."""
    folder = make_folder()
    gone = folder.path / "gone"
    script = f"mkdir {gone}; cd {gone}; rmdir {gone}; exec {sys.executable} -P -m kflow plan ../w.yaml"

    environ = {name: value for name, value in os.environ.items() if name != "KFLOW_STORE"}
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == "the current folder was deleted; go to one that is there, and run the command again\n"


def test_an_interruption_before_the_work_begins_is_one_word(make_folder: MakeFolder) -> None:
    """Wherever it comes, there is no traceback: here while the command's modules are imported."""
    folder = make_folder()
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # these tests may run where it is ignored
    folder.write("typer.py", f"import os, signal\n{heed}\nos.kill(os.getpid(), signal.SIGINT)\n")

    # Not all of sys.path: what other tests in this process have left there may hide a module.
    paths = [str(folder.path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = folder.kflow("validate", "w.yaml", PYTHONPATH=os.pathsep.join(paths))

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_goes_away_gets_no_complaint(make_folder: MakeFolder) -> None:
    """``kflow schema | head -1``, where head has gone before anything is written."""
    process = make_folder().start("schema")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) != 0


@pytest.mark.parametrize(
    "arguments", [["--help"], ["kinds"], ["--version"], ["validate", "w.yaml"], ["plan", "w.yaml"]]
)
def test_a_reader_that_goes_away_is_exit_code_141(make_folder: MakeFolder, arguments: list[str]) -> None:
    """As a shell has it for a program that was ended by a closed pipe; 1 would be a run that failed."""
    command = [sys.executable, "-m", "kflow", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, cwd=make_folder().path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["kinds"]])
def test_an_output_that_is_full_is_told(make_folder: MakeFolder, arguments: list[str]) -> None:
    """In one line."""
    command = [sys.executable, "-m", "kflow", *arguments]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, cwd=make_folder().path, stdout=full, stderr=subprocess.PIPE, check=False)

    assert ended.returncode == 1
    assert (
        ended.stderr
        == b"output: No space left on device; make room, and 'kflow run' goes on: what was finished is kept\n"
    )


def test_sigterm_ends_any_command_as_ctrl_c_does(make_folder: MakeFolder) -> None:
    """Also one that has nothing to tidy up; here it waits for the lines of a workflow that nobody writes."""
    folder = make_folder()
    folder.write("typer.py", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    ended = folder.kflow("kinds", PYTHONPATH=str(folder.path))

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")
