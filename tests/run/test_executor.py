"""A run from the outside: what is done, what is reused, and what is left when it is stopped, starved or broken."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]
Spy = Callable[[], dict[str, set[str]]]

# Its last step calls a function of the user's; 'block' is a few labels.
WITH_CODE = """
kflow: 1
name: coded
steps:
  digits: {kind: fetch, origin: digits.h5}
  labels: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 9}
  y: {kind: encode_labels, y: "${labels}", num_classes: 10}
  changed: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 9, normalizer: user.py:change}
  after: {kind: normalize, x: "${changed}", axis: 0}
"""

# Waits until it is killed, unless there is a file 'go'.
WAITING = """
import os, time
from pathlib import Path

here = Path(__file__).parent

def change(block):
    (here / "draft").write_text(str(os.getpid()))
    (here / "draft").rename(here / "pid")
    while not (here / "go").exists():
        time.sleep(0.05)
    return block + 1
"""


def wait_for(path: Path) -> str:
    """Return the text of a file as soon as it is there."""
    for _ in range(600):
        if path.exists():
            return path.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


def is_gone(pid: int) -> bool:
    """Tell whether a process ends within ten seconds; one that nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


# --- reuse ---------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(make_folder: MakeFolder, spy: Spy) -> None:
    """Everything is reused, no worker is started, and nothing heavy is imported."""
    folder = make_folder()
    first = folder.kflow("run", "w.yaml")
    started = spy()
    second = folder.kflow("run", "w.yaml")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "kflow.run.forkserver" in started
    again = spy()
    assert again["kflow"] == set()
    assert "kflow.run.forkserver" not in again
    assert set(folder.statuses().values()) == {"reused"}
    assert not list((folder.path.parent / "store" / "runs" / folder.records()[0].id / "logs").iterdir())


def test_a_changed_param_runs_again_what_hangs_on_it(make_folder: MakeFolder) -> None:
    """And nothing else; the reason names old and new value, in the plan as in the record."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")
    plan = folder.kflow("plan", "w.yaml", "--set", "order=1").stdout
    folder.kflow("run", "w.yaml", "--set", "order=1")

    assert folder.statuses() == {"digits": "reused", "x": "reused", "labels": "reused", "y": "reused", "unit": "run"}
    assert re.fullmatch(r"order: 2(\.0)? -> 1(\.0)?", folder.records()[0].steps["unit"].reason)
    assert re.search(r"run +unit +normalize +order: 2(\.0)? -> 1", plan)
    assert "1 to run, 4 to reuse" in plan

    folder.kflow("run", "w.yaml", "--set", "rows=50")
    assert folder.statuses() == {"digits": "reused", "x": "run", "labels": "run", "y": "run", "unit": "run"}


def test_equal_bytes_upstream_stop_the_cascade(make_folder: MakeFolder) -> None:
    """A step that runs again and gives the same does not run its followers again."""
    folder = make_folder(WITH_CODE, {"user.py": "def change(block):\n    return block + 1\n"})
    folder.kflow("run", "w.yaml")
    folder.write("user.py", "def change(block):\n    return 1 + block\n")
    plan = folder.kflow("plan", "w.yaml").stdout
    folder.kflow("run", "w.yaml")

    assert re.search(r"run +changed .*code user.py changed", plan)
    assert re.search(r"wait +after .*waits for changed", plan)
    assert folder.statuses() == {
        "digits": "reused",
        "labels": "reused",
        "y": "reused",
        "changed": "run",
        "after": "reused",
    }


TRAINED = """
kflow: 1
name: trained
params: {epochs: 1}
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 64, normalizer: {scale: 0.0625}}
  labels: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 64}
  y: {kind: encode_labels, y: "${labels}", num_classes: 10}
  custom: {kind: register_objects, objects: {squash: layers.py:squash}}
  model:
    kind: build_model
    layers:
      - Input: {shape: [8, 8, 1]}
      - Flatten
      - Dense: {units: 4, activation: squash}
      - Dense: {units: 10, activation: softmax}
    objects: ${custom}
  plain: {kind: build_model, layers: [Input: {shape: [3]}, Dense: {units: 2}]}
  fit: {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: categorical_crossentropy, metrics: [accuracy],
        epochs: "${params.epochs}", batch_size: 32, objects: "${custom}"}
  test: {kind: evaluate, model: "${fit.model}", x: "${x}", y: "${y}", objects: "${custom}"}
  save: {kind: save_model, model: "${plain}", filepath: results/plain.keras}
"""
LAYERS = "from middle import twice\n\ndef squash(x):\n    return twice(x) / 3\n"
MIDDLE = "from far import factor\n\ndef twice(x):\n    return x * factor\n"


@pytest.mark.long
def test_a_training_and_what_makes_it_run_again(make_folder: MakeFolder, spy: Spy) -> None:
    """Epochs touch the training; a custom object, also by a module two imports away, touches those that take it."""
    folder = make_folder(TRAINED, {"layers.py": LAYERS, "middle.py": MIDDLE, "far.py": "factor = 2\n"})
    first = folder.kflow("run", "w.yaml")
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"epoch 1/1  .*accuracy", first.stdout)
    assert {"accuracy", "loss"} <= folder.records()[0].metrics["test"].keys()
    spy()

    # A file that the user asked for is put back when it is gone or changed, without any work.
    saved = folder.path / "results" / "plain.keras"
    content = saved.read_bytes()
    saved.unlink()
    folder.kflow("run", "w.yaml")
    assert saved.read_bytes() == content
    saved.write_bytes(b"changed")
    folder.kflow("run", "w.yaml")
    assert saved.read_bytes() == content
    assert "kflow.run.forkserver" not in spy()
    assert set(folder.statuses().values()) == {"reused"}

    # More epochs.
    assert folder.kflow("run", "w.yaml", "--set", "epochs=2").returncode == 0
    again = {name for name, status in folder.statuses().items() if status == "run"}
    assert again == {"fit", "test"}
    assert folder.records()[0].steps["fit"].reason == "epochs: 1 -> 2"

    # The body of the custom object, and of what it calls: every consumer, and no one else.
    for name, text in (("layers.py", LAYERS.replace("/ 3", "/ 4")), ("far.py", "factor = 5\n")):
        before = (folder.path / name).read_text()
        folder.write(name, text)
        plan = folder.kflow("plan", "w.yaml").stdout
        assert re.search(rf"run +custom .*code {name} changed", plan)
        assert set(re.findall(r"^reuse +(\w+)", plan, re.MULTILINE)) == {"x", "labels", "y", "plain", "save"}
        folder.write(name, before)
    folder.write("far.py", "factor = 5\n")
    assert folder.kflow("run", "w.yaml").returncode == 0
    again = {name for name, status in folder.statuses().items() if status == "run"}
    assert again == {"custom", "model", "fit", "test"}


# --- stopped -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_so_and_is_continued(make_folder: MakeFolder, number: int) -> None:
    """Exit code 130, no process left, the finished steps kept; the next run does the rest."""
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    # Under nohup the tests themselves ignore SIGHUP, and kflow respects that.
    runner = folder.start("run", "w.yaml", "--jobs", "1", prefix=("env", "--default-signal=HUP"))
    worker = int(wait_for(folder.path / "pid"))
    runner.send_signal(number)
    out, err = runner.communicate(timeout=60)

    assert runner.returncode == 130
    assert "interrupted; 'kflow run' continues from the last finished step" in err
    assert "Traceback" not in out + err
    assert is_gone(worker)
    assert folder.records()[0].status == "interrupted"
    done = {"digits": "run", "labels": "run", "y": "run"}
    assert folder.statuses() == {**done, "changed": "interrupted", "after": "not run"}
    assert not list((folder.path.parent / "store" / "tmp").iterdir())

    folder.write("go", "")
    assert folder.kflow("run", "w.yaml").returncode == 0
    assert folder.statuses() == {**dict.fromkeys(done, "reused"), "changed": "run", "after": "run"}


def test_a_killed_runner_leaves_no_worker(make_folder: MakeFolder) -> None:
    """After SIGKILL the worker ends by itself, its record says 'interrupted', and the next run continues."""
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    runner = folder.start("run", "w.yaml", "--jobs", "1")
    worker = int(wait_for(folder.path / "pid"))
    assert folder.records()[0].status == "running"
    assert folder.statuses()["y"] == "run"
    runner.kill()
    runner.communicate(timeout=60)

    assert is_gone(worker)
    assert folder.records()[0].status == "interrupted"
    (left,) = (folder.path.parent / "store" / "tmp").iterdir()
    os.utime(left, (0, 0))
    folder.write("go", "")
    assert folder.kflow("run", "w.yaml").returncode == 0
    assert folder.statuses()["y"] == "reused"
    assert not left.exists()


def test_ctrl_c_does_not_wait_for_servers_that_say_nothing(make_folder: MakeFolder) -> None:
    """However many downloads have stalled; the bound is that of a test on a busy machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        steps = "".join(
            f"  s{number}: {{kind: fetch, origin: 'http://127.0.0.1:{listener.getsockname()[1]}/{number}'}}\n"
            for number in range(6)
        )
        folder = make_folder(f"kflow: 1\nname: stalled\nsteps:\n{steps}")
        runner = folder.start("run", "w.yaml", "--jobs", "6")
        accepted = [listener.accept() for _ in range(6)]
        runner.send_signal(signal.SIGINT)
        out, err = runner.communicate(timeout=20)
        for connection, _ in accepted:
            connection.close()

    assert runner.returncode == 130, out + err
    assert set(folder.statuses().values()) == {"interrupted"}


def test_a_signal_that_another_thread_gets_stops_the_run(make_folder: MakeFolder) -> None:
    """The kernel may give it to any of them, and the main one may wait for a step of days."""
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    run = folder.start("run", "w.yaml")
    wait_for(folder.path / "pid")
    others = {int(each.name) for each in Path(f"/proc/{run.pid}/task").iterdir()} - {run.pid}
    tgkill = "import ctypes, sys; ctypes.CDLL(None).syscall(234, *map(int, sys.argv[1:]))"
    time.sleep(0.5)  # until it waits for nothing else
    subprocess.run([sys.executable, "-c", tgkill, str(run.pid), str(max(others)), "15"], check=True)
    run.communicate(timeout=20)

    assert run.returncode == 130


def test_several_signals_at_once_are_one(make_folder: MakeFolder) -> None:
    """No traceback, and the exit code of an interruption."""
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    ended = []
    for numbers in ((15, 2), (2, 15), (15, 1), (15, 2, 15), (1, 2, 15)):
        run = folder.start("run", "w.yaml")
        wait_for(folder.path / "pid")
        for number in numbers:
            run.send_signal(number)
        _, err = run.communicate(timeout=20)
        (folder.path / "pid").unlink()
        ended.append((run.returncode, err))

    assert ended == [(130, "interrupted; 'kflow run' continues from the last finished step\n")] * 5


def test_sigterm_stops_a_run_that_is_process_1(make_folder: MakeFolder) -> None:
    """As in a container, where the kernel ignores a signal that nobody handles.

    Where namespaces are not permitted the run is no process 1, and the rest must hold all the same.
    """
    prefix = ("unshare", "--pid", "--fork")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        prefix = ()
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    outer = folder.start("run", "w.yaml", prefix=prefix)
    wait_for(folder.path / "pid")
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    os.kill(int(children[0]) if prefix else outer.pid, signal.SIGTERM)
    outer.communicate(timeout=60)

    assert outer.returncode == 130
    assert folder.records()[0].status == "interrupted"


# --- failed --------------------------------------------------------------------------------------------------


def test_a_failing_step_is_told_with_place_cause_and_log(make_folder: MakeFolder) -> None:
    """No traceback unless it is asked for; the log has it; what was finished is kept."""
    folder = make_folder(WITH_CODE, {"user.py": "def change(block):\n    raise RuntimeError('no luck today')\n"})
    failed = folder.kflow("run", "w.yaml", "--jobs", "1")

    assert failed.returncode == 1
    assert "w.yaml:8:3: step 'changed' (slice_hdf5) failed: RuntimeError: no luck today" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    log = re.search(r"the full log is in (.*)", failed.stdout)
    assert log is not None
    assert "no luck today" in Path(folder.path, log[1]).read_text()
    record = folder.records()[0]
    assert record.steps["changed"].error == "RuntimeError: no luck today"
    assert (record.status, record.steps["y"].status, record.steps["after"].status) == ("failed", "run", "not run")

    debugged = folder.kflow("run", "w.yaml", "--debug")
    assert "Traceback (most recent call last)" in debugged.stdout
    assert folder.statuses()["y"] == "reused"


def test_a_killed_worker_is_told_as_that(make_folder: MakeFolder) -> None:
    """As when the machine runs out of memory."""
    code = "import os, signal\ndef change(block):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    failed = make_folder(WITH_CODE, {"user.py": code}).kflow("run", "w.yaml")

    assert failed.returncode == 1
    assert "step 'changed' (slice_hdf5) failed: the worker process was killed" in failed.stdout


def test_labels_out_of_range(make_folder: MakeFolder) -> None:
    """Found when the labels are read; what was finished is kept."""
    folder = make_folder()
    failed = folder.kflow("run", "w.yaml", "--set", "classes=5")

    assert failed.returncode == 1
    assert re.search(r"w.yaml:\d+:3: step 'y' \(encode_labels\) failed: .*5", failed.stdout)
    assert folder.statuses()["labels"] == "run"


@pytest.mark.long
def test_a_last_layer_that_does_not_fit(make_folder: MakeFolder) -> None:
    """Found by Keras, where validation cannot see into a function of the user's."""
    workflow = TRAINED.partition("  custom:")[0] + (
        '  model: {kind: build_model, function: "models.py:build"}\n'
        '  fit: {kind: train, model: "${model}", x: "${x}", y: "${y}", loss: categorical_crossentropy}\n'
    )
    code = "import keras\n\ndef build():\n    return keras.Sequential([keras.Input((8, 8, 1)), "
    code += "keras.layers.Flatten(), keras.layers.Dense(3, activation='softmax')])\n"
    folder = make_folder(workflow, {"models.py": code})
    failed = folder.kflow("run", "w.yaml")

    assert failed.returncode == 1
    assert re.search(r"step 'fit' \(train\) failed: .*shape", failed.stdout)
    assert (folder.statuses()["model"], folder.statuses()["fit"]) == ("run", "failed")


def test_bad_input_writes_nothing(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Exit code 2, and neither a store nor a result appears."""
    folder = make_folder("kflow: 1\nname: bad\nsteps:\n  x: {kind: fetch, origin: none.h5}\n")
    before = sorted(folder.path.iterdir())
    wrong = folder.kflow("run", "w.yaml")

    assert wrong.returncode == 2
    assert "w.yaml:4:28: the file 'none.h5' does not exist" in wrong.stderr
    assert sorted(folder.path.iterdir()) == before
    assert not (tmp_path / "store").exists()


# --- the store -----------------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_made(make_folder: MakeFolder) -> None:
    """The message names it; this holds for root too, whom no permission stops."""
    failed = make_folder().kflow("run", "w.yaml", "--store", "/proc/kflow")

    assert failed.returncode == 1
    assert failed.stderr.startswith("the store /proc/kflow cannot be written, and there is work to do (digits, x, ")


@pytest.mark.parametrize(
    ("limit", "message"),
    [(1000, "record.json: File too large\n"), (16_000, "step 'unit' (normalize) failed: a file could not be written")],
)
def test_a_disk_that_takes_no_more(make_folder: MakeFolder, limit: int, message: str) -> None:
    """A clear message, whether it is the record or a result that does not fit; the store stays valid."""
    folder = make_folder()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        failed = folder.kflow("run", "w.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert failed.returncode == 1
    assert message in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "bug" not in failed.stderr
    assert folder.kflow("run", "w.yaml").returncode == 0


def test_two_runners_at_once(make_folder: MakeFolder) -> None:
    """Both end right, and the slow step is done once."""
    code = "import os, time\nfrom pathlib import Path\ndef change(block):\n"
    code += "    with (Path(__file__).parent / 'pids').open('a') as f:\n        f.write(f'{os.getpid()}\\n')\n"
    code += "    time.sleep(1)\n    return block\n"
    folder = make_folder(WITH_CODE, {"user.py": code})
    both = [folder.start("run", "w.yaml") for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], ends
    first, second = folder.records()
    assert first.steps["after"].outputs == second.steps["after"].outputs
    assert len(set((folder.path / "pids").read_text().split())) == 1


def test_a_damaged_entry_is_redone(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It is a miss in the plan, and set aside by the run."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")
    (array,) = (tmp_path / "store" / "entries").rglob("*.npy")
    digest = folder.records()[0].steps["unit"].outputs["array"].digest
    os.truncate(array, 100)

    assert "its stored result is damaged" in folder.kflow("plan", "w.yaml").stdout
    assert folder.kflow("run", "w.yaml").returncode == 0
    assert folder.statuses()["unit"] == "run"
    assert folder.records()[0].steps["unit"].outputs["array"].digest == digest
    assert len(list((tmp_path / "store" / "damaged").iterdir())) == 1


def test_a_moved_folder_computes_nothing_again(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views on its data are made anew, with the same digests, so what was computed from them is reused."""
    folder = make_folder()
    monkeypatch.setenv("KFLOW_STORE", str(folder.path / ".kflow"))
    folder.kflow("run", "w.yaml")
    before = {name: step.outputs for name, step in folder.records()[0].steps.items()}
    moved = type(folder)(folder.path.with_name("there"))
    shutil.copytree(folder.path, moved.path)
    shutil.rmtree(folder.path)
    monkeypatch.setenv("KFLOW_STORE", str(moved.path / ".kflow"))

    assert moved.kflow("run", "w.yaml").returncode == 0
    assert moved.statuses()["unit"] == "reused"
    assert {name: step.outputs for name, step in moved.records()[0].steps.items()} == before


# --- several at once, again, and in part ---------------------------------------------------------------------

# 'left' and 'right' hang on nothing but the data, 'late' waits for 'right' without using it.
SIDES = """
kflow: 1
name: sides
steps:
  left: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:left}
  right: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:right}
  late: {kind: normalize, x: "${left}", axis: 0, needs: [right]}
"""
MEETING = """
import time
from pathlib import Path

here = Path(__file__).parent

def meet(own, other, block):
    (here / own).touch()
    for _ in range(300):
        if (here / other).exists():
            return block
        time.sleep(0.1)
    raise RuntimeError("the other did not come")

def left(block):
    return meet("l", "r", block)

def right(block):
    return meet("r", "l", block)
"""


def test_independent_steps_run_at_once(make_folder: MakeFolder) -> None:
    """Each of two waits for the other to begin."""
    folder = make_folder(SIDES, {"user.py": MEETING})
    done = folder.kflow("run", "w.yaml", "--jobs", "2")

    assert done.returncode == 0, done.stdout
    assert re.search(r"right \(slice_hdf5\) +done.*late \(normalize\) +starts", done.stdout, re.DOTALL)


@pytest.mark.parametrize(("options", "late"), [((), "not run"), (("--keep-going",), "run")])
def test_a_failure_stops_what_hangs_on_it(make_folder: MakeFolder, options: tuple[str, ...], late: str) -> None:
    """And the rest too, unless the run keeps going."""
    code = "def left(block):\n    raise RuntimeError('no')\n\ndef right(block):\n    return block\n"
    text = SIDES.replace("${left}", "${right}").replace("needs: [right]", "needs: []")
    folder = make_folder(text, {"user.py": code})
    failed = folder.kflow("run", "w.yaml", "--jobs", "1", *options)

    assert failed.returncode == 1
    assert folder.statuses() == {"left": "failed", "right": late, "late": late}


def test_a_step_is_tried_again(make_folder: MakeFolder) -> None:
    """As often as the workflow says, with what went wrong on the console."""
    code = "from pathlib import Path\ndef change(block):\n    tries = Path(__file__).with_name('tries')\n"
    code += "    with tries.open('a') as f:\n        f.write('x')\n"
    code += "    if len(tries.read_text()) < 3:\n        raise RuntimeError('not yet')\n    return block\n"
    folder = make_folder(WITH_CODE.replace("user.py:change", "user.py:change, retries: 2"), {"user.py": code})
    done = folder.kflow("run", "w.yaml")

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed failed: RuntimeError: not yet; it is tried again in ") == 2
    assert folder.statuses()["changed"] == "run"


def test_a_step_has_a_timeout(make_folder: MakeFolder) -> None:
    """It is stopped, the message says so, and the fingerprint is that without a timeout."""
    text = WITH_CODE.replace("user.py:change", "user.py:change, timeout: 6 s")
    folder = make_folder(text, {"user.py": WAITING})
    failed = folder.kflow("run", "w.yaml")
    worker = int((folder.path / "pid").read_text())

    assert failed.returncode == 1
    assert "step 'changed' (slice_hdf5) failed: it was stopped after its timeout of 6 s" in failed.stdout
    assert is_gone(worker)
    folder.write("go", "")
    folder.kflow("run", "w.yaml")
    folder.write("w.yaml", WITH_CODE)
    folder.kflow("run", "w.yaml")
    assert set(folder.statuses().values()) == {"reused"}


def test_what_steps_print_is_shown_on_request(make_folder: MakeFolder) -> None:
    """Line by line, with the name of the step; the log has it either way."""
    folder = make_folder(WITH_CODE, {"user.py": "def change(block):\n    print('seen')\n    return block\n"})
    quiet = folder.kflow("run", "w.yaml")
    shown = folder.kflow("run", "w.yaml", "--force", "--only", "changed", "--output")
    log = folder.path.parent / "store" / "runs" / folder.records()[0].id / "logs" / "changed.log"

    assert "seen" not in quiet.stdout
    assert "    changed | seen\n" in shown.stdout
    assert "seen" in log.read_text()


def test_a_part_of_a_workflow(make_folder: MakeFolder) -> None:
    """Steps up to one, one alone that lacks what it needs, and one again by force with what hangs on it."""
    folder = make_folder()
    alone = folder.kflow("run", "w.yaml", "--only", "unit")
    first = folder.kflow("run", "w.yaml", "--until", "x")
    after_first = folder.statuses()
    rest = folder.kflow("run", "w.yaml", "--only", "unit")
    again = folder.kflow("run", "w.yaml", "--from", "x", "--force")

    assert alone.returncode == 2
    assert "step 'unit' needs 'digits', which is not chosen and has no result to reuse" in alone.stderr
    assert (first.returncode, rest.returncode, again.returncode) == (0, 0, 0)
    assert after_first == {"digits": "run", "x": "run", "labels": "not run", "y": "not run", "unit": "not run"}
    assert folder.statuses() == {"digits": "reused", "x": "run", "unit": "run", "labels": "not run", "y": "not run"}
    assert folder.records()[0].steps["x"].reason == "forced"


def test_a_journal_tells_what_a_killed_run_had_done(make_folder: MakeFolder) -> None:
    """However much of its last line is there: nothing counts as done that was not, and nothing fails."""
    folder = make_folder(WITH_CODE, {"user.py": WAITING})
    runner = folder.start("run", "w.yaml", "--jobs", "1")
    wait_for(folder.path / "pid")
    runner.kill()
    runner.communicate(timeout=60)
    (journal,) = (folder.path.parent / "store" / "runs").rglob("journal.jsonl")
    whole = journal.read_bytes()

    for size in range(len(whole) + 1):
        journal.write_bytes(whole[:size])
        (record,) = folder.records()
        done = {name for name, step in record.steps.items() if step.status == "run"}
        assert record.status == "interrupted"
        assert len(done) <= whole[:size].count(b'"status":"run"')
    assert done == {"digits", "labels", "y"}


# --- surroundings --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_home")
def test_a_user_without_name_and_home(make_folder: MakeFolder) -> None:
    """As in a container with an arbitrary uid; where user namespaces are not permitted, only HOME is gone."""
    prefix = ("unshare", "--user", "--map-user=12345")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        prefix = ()
    process = make_folder().start("run", "w.yaml", prefix=prefix)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 0, out + err
    assert "light succeeded" in out


def test_a_path_with_blank_and_quotes_and_a_locale_without_utf8(make_folder: MakeFolder) -> None:
    """Names are shown as well as the terminal can, and nothing fails for them."""
    folder = make_folder(name='it\'s a "näme"')
    environ = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "KFLOW_STORE": str(folder.path / "the store ä")}
    done = folder.kflow("run", "w.yaml", **environ)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the store \\xe4" in done.stdout


def test_a_reader_that_goes_away_does_not_stop_a_run(make_folder: MakeFolder) -> None:
    """``kflow run FILE | head -1`` runs to the end, and complains about nothing."""
    folder = make_folder()
    runner = folder.start("run", "w.yaml")
    assert runner.stdout is not None
    assert runner.stderr is not None
    runner.stdout.readline()
    runner.stdout.close()

    assert runner.stderr.read() == ""
    assert runner.wait(60) == 0
    runner.stderr.close()
    assert folder.records()[0].status == "succeeded"


def test_a_damaged_input_that_was_not_chosen_can_be_made_again(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The command that the error names does so."""
    chain = """
kflow: 1
name: chain
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: 9}
  unit: {kind: normalize, x: "${x}", axis: 0}
  mean: {kind: normalize, x: "${unit}", axis: 0}
"""
    folder = make_folder(chain)
    folder.kflow("run", "w.yaml")
    fingerprint = folder.records()[0].steps["unit"].fingerprint
    (array,) = (tmp_path / "store" / "entries" / fingerprint[:2] / fingerprint).rglob("*.npy")
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(bytes(data))

    alone = folder.kflow("run", "w.yaml", "--force", "--only", "mean")
    assert alone.returncode == 1
    assert (
        "the stored result of step 'unit' was damaged or removed; a run with '--until unit' makes it again"
        in alone.stdout
    )
    assert folder.kflow("run", "w.yaml", "--until", "unit").returncode == 0
    assert folder.kflow("run", "w.yaml", "--force", "--only", "mean").returncode == 0


def test_code_that_changes_before_its_step_begins_is_not_run_under_the_old_fingerprint(make_folder: MakeFolder) -> None:
    """A plan fixes what each step is; its result would be stored as that of the code before."""
    waiting = """
kflow: 1
name: waiting
steps:
  digits: {kind: fetch, origin: digits.h5}
  slow: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 9, normalizer: wait.py:change}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 9, normalizer: deep/user.py:change, needs: [slow]}
"""
    before = "def change(block):\n    return block + 1\n"
    folder = make_folder(waiting, {"wait.py": WAITING})
    (folder.path / "deep").mkdir()
    folder.write("deep/user.py", before)
    folder.kflow("plan", "w.yaml", "-o", "plan.json")

    run = folder.start("run", "plan.json")
    wait_for(folder.path / "pid")
    folder.write("deep/user.py", before.replace("1", "99"))
    folder.write("go", "")
    told = run.communicate()[0]
    folder.write("deep/user.py", before)
    again = folder.kflow("run", "w.yaml")

    assert run.returncode == 1
    assert ": deep/user.py was changed since the step was planned; run again" in told
    assert again.returncode == 0
    assert folder.statuses() == {"digits": "reused", "slow": "reused", "x": "run"}


LIBRARY = """
kflow: 1
name: library
steps:
  slow: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: wait.py:change}
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:change, needs: [slow]}
"""


def test_a_library_in_source_is_held_to_its_fingerprint_as_code_is(make_folder: MakeFolder, tmp_path: Path) -> None:
    """One in a folder of PYTHONPATH: a change is told by a plan, and one after planning fails the step."""
    source = tmp_path / "src"
    (source / "lib").mkdir(parents=True)
    code = "from lib.core import K\n\ndef change(block):\n    return block + K\n"
    folder = make_folder(LIBRARY, {"wait.py": WAITING, "user.py": code})
    path = {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    (source / "lib" / "core.py").write_text("K = 1\n")
    folder.kflow("plan", "w.yaml", "-o", "plan.json", **path)

    run = folder.start("run", "plan.json", **path)
    wait_for(folder.path / "pid")
    (source / "lib" / "core.py").write_text("K = 2\n")
    folder.write("go", "")
    told = run.communicate()[0]
    again = folder.kflow("run", "w.yaml", **path)
    (source / "lib" / "core.py").write_text("K = 3\n")
    plan = folder.kflow("plan", "w.yaml", **path)

    assert run.returncode == 1
    assert "the library lib was changed since the step was planned; run again" in told
    assert again.returncode == 0, again.stdout
    assert re.search(r"x .*sources of lib changed", plan.stdout)
    assert not list(source.rglob("*.pyc"))


TURNS = """
kflow: 1
name: turns
steps:
  one: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, normalizer: strict.py:change, resources: {cpus: 1}}
  two: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, normalizer: divide.py:change, needs: [one]}
"""
STRICT = "import numpy as np\n\nnp.seterr(all='raise')\n\ndef change(block):\n    return block\n"
DIVIDE = (
    "import os\n\ndef change(block):\n    print(os.environ['OMP_NUM_THREADS'], 'threads')\n    return block / 0.0\n"
)


def test_code_of_one_step_changes_nothing_in_another(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Neither what its module sets up in NumPy, nor the number of threads that it asked for; and that number counts."""
    folder = make_folder(TURNS, {"strict.py": STRICT, "divide.py": DIVIDE})
    run = folder.kflow("run", "w.yaml", "--jobs", "1")
    (log,) = (tmp_path / "store" / "runs").rglob("two.log")
    folder.write("w.yaml", TURNS.replace("cpus: 1", "cpus: 2"))
    plan = folder.kflow("plan", "w.yaml")

    assert run.returncode == 0, run.stdout
    assert "4 threads" in log.read_text()
    assert "threads: 1 -> 2" in plan.stdout


TWINS = """
kflow: 1
name: twins
steps:
  one: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: slow.py:change}
  two: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: slow.py:change}
"""
SLOW = "import time\n\ndef change(block):\n    time.sleep(1)\n    return block + 1\n"


COUNTING = (
    "import numpy as np\n\nnp.done = getattr(np, 'done', 0) + 1\n\n"
    "def change(block):\n    print(np.done)\n    return block\n"
)


def test_code_of_a_step_changes_nothing_when_it_is_executed_again(make_folder: MakeFolder, tmp_path: Path) -> None:
    """A module that changes a library finds it as it was, though its own step before has changed it."""
    step = "{kind: slice_hdf5, datapath: digits.h5, dataset: labels, normalizer: user.py:change, end: %d}"
    text = f"kflow: 1\nname: again\nsteps:\n  a: {step % 3}\n  b: {step % 4}\n"
    make_folder(text, {"user.py": COUNTING}).kflow("run", "w.yaml", "--jobs", "1")
    logs = [log.read_text().split() for log in (tmp_path / "store" / "runs").rglob("*.log")]

    assert [set(words) for words in logs] == [{"1"}, {"1"}]


def test_two_steps_of_one_run_that_are_the_same_computation(make_folder: MakeFolder) -> None:
    """One of them does it, and the other names that one, as no other run is there."""
    folder = make_folder(TWINS, {"slow.py": SLOW})
    told = folder.kflow("run", "w.yaml", "--jobs", "2").stdout
    steps = folder.records()[0].steps
    done, reused = sorted(steps, key=lambda name: steps[name].status, reverse=True)

    assert (steps[done].status, steps[reused].status) == ("run", "reused")
    assert steps[reused].reason == f"the same as step {done!r} of this run"
    assert "another run" not in told
