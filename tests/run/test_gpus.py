"""Steps that want GPUs, on a machine whose driver is made up: each worker sees its own ones and no others."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

STEP = '  {0}: {{kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: "user.py:{0}"{1}}}\n'
WANTS = {"none": 0, "one": 1, "other": 1, "third": 1, "both": 2}
WORKFLOW = "\nkflow: 1\nname: leases\nsteps:\n" + "".join(
    STEP.format(name, f", resources: {{gpus: {count}}}" if count else "") for name, count in WANTS.items()
)
CODE = """
import os, time
from pathlib import Path

def tell(word, name):
    with Path(__file__).with_name("log").open("a") as log:
        log.write(f"{word} {name} {os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}\\n")

def use(name, block):
    tell("begin", name)
    time.sleep(0.3)
    tell("end", name)
    return block
""" + "".join(f"\ndef {name}(block):\n    return use('{name}', block)\n" for name in WANTS)


@pytest.fixture
def three_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every Python process believe in a driver that shows three GPUs."""
    folder = tmp_path / "driver"
    for number, uuid in enumerate(["GPU-aa11-01", "GPU-bb22-02", "GPU-cc33-03"]):
        gpu = folder / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"GPU UUID: \t {uuid}\n")
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "import kflow.core.parallel.devices as devices\n"
        "for each in (devices.visible_gpus, devices.count_gpus, devices.find_gpu_folders):\n"
        "    each.__kwdefaults__['root'] = Path(__file__).parent\n"
    )
    paths = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("visible", ["GPU-cc33-03,GPU-aa11-01", "2,0,-1,1"])
def test_each_gpu_is_that_of_one_step_at_a_time(
    make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """By number or UUID, of those alone that CUDA_VISIBLE_DEVICES leaves, in a process that no other step used."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    folder = make_folder(WORKFLOW, {"user.py": CODE})
    done = folder.kflow("run", "w.yaml", "--jobs", "5")
    log = [line.split() for line in (folder.path / "log").read_text().splitlines()]

    assert done.returncode == 0, done.stdout + done.stderr
    held: set[str] = set()
    for word, name, devices, _ in log:
        gpus = set(devices.split(",")) - {"-1"}
        assert len(gpus) == WANTS[name]
        assert gpus <= set(visible.split(","))
        assert held.isdisjoint(gpus) if word == "begin" else gpus <= held
        held ^= gpus
    assert len({process for word, name, _, process in log if word == "begin" and WANTS[name]}) == 4


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(("visible", "have"), [("-1", "none"), ("MIG-1,MIG-2", "1")])
def test_more_gpus_than_there_are_is_told_before_anything_runs(
    make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, visible: str, have: str
) -> None:
    """Those that CUDA_VISIBLE_DEVICES hides do not count."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    folder = make_folder(WORKFLOW, {"user.py": CODE})
    wrong = folder.kflow("run", "w.yaml")

    assert wrong.returncode == 2
    assert f"the step wants 2 GPUs, and this machine has {have}" in wrong.stderr
    assert not (folder.path / "log").exists()


GREEDY = """
kflow: 1
name: greedy
steps:
  breaks: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:break_down}
  takes:
    {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:take, resources: {gpus: %d}}
"""
TAKE = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.05)

def take(block):
    (HERE / "has").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    wait_for("enough")
    return block

def break_down(block):
    wait_for("broken")
    raise ValueError("broken")
"""


@pytest.fixture
def holder(make_folder: Callable[..., Any], three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a run, in a store of its own, whose step has two of three GPUs until it finds a file ``enough``."""
    folder = make_folder(GREEDY % 2, {"user.py": TAKE}, "first")
    process = folder.start("run", "w.yaml", "--only", "takes", CUDA_VISIBLE_DEVICES="GPU-cc33-03,GPU-aa11-01")
    wait_for(folder.path / "has")
    monkeypatch.setenv("KFLOW_STORE", str(folder.path / "store of another"))
    yield folder
    (folder.path / "enough").touch()
    assert process.wait(60) == 0
    process.communicate()


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def read_until(stream: Any, word: str) -> None:
    """Read lines until one says something."""
    assert any(word in line for line in stream)


def test_a_step_waits_for_gpus_of_another_run(make_folder: Callable[..., Any], holder: Any) -> None:
    """Which has another store, and calls them by other names; the step gets them as soon as they are free."""
    second = make_folder(GREEDY % 3, {"user.py": TAKE}, "second")
    (second.path / "enough").touch()
    process = second.start("run", "w.yaml", "--only", "takes")
    read_until(process.stdout, "takes waits for GPUs that other runs have")
    had_before = (second.path / "has").exists()
    (holder.path / "enough").touch()
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, out + err
    assert not had_before


def test_gpus_that_nobody_has_are_had_at_once(make_folder: Callable[..., Any], holder: Any) -> None:
    """One of three is left, and it is the one that the step sees."""
    second = make_folder(GREEDY % 1, {"user.py": TAKE}, "second")
    (second.path / "enough").touch()
    done = second.kflow("run", "w.yaml", "--only", "takes")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (second.path / "has").read_text() == "1"


def test_a_wait_for_gpus_ends_with_the_run(make_folder: Callable[..., Any], holder: Any) -> None:
    """Though the other run still has them."""
    second = make_folder(GREEDY % 3, {"user.py": TAKE}, "second")
    process = second.start("run", "w.yaml", "--only", "takes")
    read_until(process.stdout, "takes waits for GPUs that other runs have")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, out + err
    assert second.records()[0].steps["takes"].status == "interrupted"


def test_a_run_that_has_failed_waits_for_no_gpus(make_folder: Callable[..., Any], holder: Any) -> None:
    """It says what has failed, and ends; the step was not run."""
    second = make_folder(GREEDY % 3, {"user.py": TAKE}, "second")
    process = second.start("run", "w.yaml", "--jobs", "2")
    read_until(process.stdout, "takes waits for GPUs that other runs have")
    (second.path / "broken").touch()
    out, err = process.communicate(timeout=60)

    assert process.returncode == 1, out + err
    assert {name: step.status for name, step in second.records()[0].steps.items()} == {
        "breaks": "failed",
        "takes": "not run",
    }


INNER = """
import subprocess, sys
from pathlib import Path

def take(block):
    here = Path(__file__).parent
    command = [sys.executable, "-m", "kflow", "run", "inner.yaml"]
    done = subprocess.run(command, cwd=here, capture_output=True, timeout=60)
    (here / "told").write_bytes(done.stdout)
    return block
"""


@pytest.mark.usefixtures("three_gpus")
def test_a_step_may_start_a_run_that_uses_its_gpus(make_folder: Callable[..., Any]) -> None:
    """That waits for none that is held for it."""
    workflow = GREEDY.replace(", normalizer: user.py:break_down", "")
    folder = make_folder(workflow % 1, {"user.py": INNER, "own.py": TAKE, "enough": ""})
    folder.write("inner.yaml", workflow.replace("user.py", "own.py") % 1)
    done = folder.kflow("run", "w.yaml", CUDA_VISIBLE_DEVICES="GPU-bb22-02")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "greedy succeeded" in (folder.path / "told").read_text()
    assert (folder.path / "has").read_text() == "GPU-bb22-02"
