"""Counting is tested on made-up roots; choosing among real devices stands in test_parallel.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.parallel.devices import count_gpus, find_gpu_folders, visible_gpus

REPOSITORY = Path(__file__).parents[2]


def make_root(path: Path, uuids: list[str]) -> Path:
    """Write what the driver shows of each GPU."""
    (path / "proc/driver/nvidia/gpus").mkdir(parents=True)
    for number, uuid in enumerate(uuids):
        folder = path / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        folder.mkdir()
        lines = (
            "Model: \t\t Some GPU",
            "IRQ:   \t\t 7",
            f"GPU UUID: \t {uuid}",
            f"Device Minor: \t {number}",
        )
        (folder / "information").write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A machine with three GPUs, two of whose UUIDs begin alike."""
    return make_root(tmp_path_factory.mktemp("three"), ["GPU-aa11-01", "GPU-aa22-02", "GPU-bb33-03"])


def test_all_gpus_are_visible_when_nothing_is_said(three):
    """Without CUDA_VISIBLE_DEVICES each GPU of the driver is one."""
    environ = {}

    assert visible_gpus(root=three, environ=environ) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", ("0",)),
        ("2,0", ("2", "0")),
        (" 1 , 2 ", ("1", "2")),
        ("0,3,1", ("0",)),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("0,x,1", ("0",)),
        ("1,1", ()),
        ("GPU-bb", ("GPU-bb",)),
        ("GPU-aa22-02,GPU-aa11-01", ("GPU-aa22-02", "GPU-aa11-01")),
        ("GPU-aa", ()),
        ("GPU-cc,0", ()),
        ("0,GPU-aa11", ()),
        ("0,GPU-bb33-03", ("0", "GPU-bb33-03")),
        ("MIG-1234,MIG-5678", ("MIG-1234",)),
        ("²", ()),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(three, setting, expected):
    """Indices, UUIDs, beginnings of UUIDs, repetitions and nonsense have CUDA's meaning."""
    environ = {"CUDA_VISIBLE_DEVICES": setting}

    assert visible_gpus(root=three, environ=environ) == expected


@given(st.lists(st.integers(-1, 4)))
def test_a_list_of_indices_is_cut_at_the_first_wrong_one(three, indices):
    """The result is the beginning of the list up to the first wrong index, and nothing if one repeats."""
    wrong = next((place for place, index in enumerate(indices) if not 0 <= index < 3), len(indices))
    right = [str(index) for index in indices[:wrong]]
    environ = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))}

    assert visible_gpus(root=three, environ=environ) == (tuple(right) if len(set(right)) == len(right) else ())


def test_device_files_are_counted_where_the_driver_is_hidden(tmp_path):
    """Only /dev/nvidia<number> is a GPU; the control files are not."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / "dev" / name).touch()

    assert visible_gpus(root=tmp_path, environ={}) == ("0", "1")


@pytest.mark.parametrize("setting", [None, "0", "GPU-aa", "MIG-1"])
def test_a_machine_without_gpus_has_none(tmp_path, setting):
    """Whatever the environment asks for, there is nothing to see."""
    environ = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}

    assert count_gpus(root=tmp_path, environ=environ) == 0


def test_the_environment_of_the_process_is_read_by_default(three, monkeypatch):
    """Without `environ` the variable of this process counts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")

    assert count_gpus(root=three) == 2


def test_counting_does_not_load_tensorflow():
    """A scheduler may count GPUs without claiming their memory."""
    code = """
import sys
from kflow.core.parallel.devices import count_gpus
count_gpus()
print({'tensorflow', 'keras'} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("gpu", "number"), [("2", 2), ("GPU-bb", 2), ("GPU-aa22-02", 1), ("GPU-aa", None), ("3", None), ("MIG-1", None)]
)
def test_a_gpu_has_one_folder_whatever_it_is_called(three, gpu, number):
    """That is what keeps two programs apart which see the same one."""
    expected = {} if number is None else {gpu: three / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"}

    assert find_gpu_folders([gpu], root=three) == expected


def test_a_description_that_cannot_be_read_is_that_of_a_gpu(tmp_path):
    """It has its number all the same; only by its UUID it is not found."""
    root = make_root(tmp_path, ["GPU-aa11-01", "GPU-bb22-02"])
    information = root / "proc/driver/nvidia/gpus/0000:00:00.0/information"
    information.unlink()
    information.mkdir()

    assert visible_gpus(root=root, environ={}) == ("0", "1")
    assert visible_gpus(root=root, environ={"CUDA_VISIBLE_DEVICES": "GPU-bb,GPU-aa"}) == ("GPU-bb",)
