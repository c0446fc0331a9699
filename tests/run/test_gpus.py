"""Steps that want GPUs, on a machine whose driver is made up: each worker sees its own ones and no others."""

import os
from collections.abc import Callable
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
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import kflow.core.parallel.devices as devices\n"
        "devices._present_gpus = lambda root: ['GPU-aa11-01', 'GPU-bb22-02', 'GPU-cc33-03']\n"
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
