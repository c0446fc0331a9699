"""What tests share: a home and a store of their own, a folder with real data, and the command line as a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from kflow.run.record import RECORD, RunRecord, read_records

DIGITS = Path(__file__).parents[1] / "workflows" / "data" / "digits.h5"

LIGHT = """
kflow: 1
name: light
params: {rows: 40, classes: 10, order: 2}
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: "${params.rows}"}
  labels: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: "${params.rows}"}
  y: {kind: encode_labels, y: "${labels}", num_classes: "${params.classes}"}
  unit: {kind: normalize, x: "${x}", axis: 0, order: "${params.order}"}
"""
"""Real data through four kinds that need no TensorFlow; the last result is computed, the others are views."""


@dataclass(frozen=True)
class Folder:
    """A folder with a workflow and its data, and the command line in it."""

    path: Path

    def write(self, name: str, text: str) -> Path:
        """Put a file there."""
        (self.path / name).write_text(text, encoding="utf-8")
        return self.path / name

    def start(self, *arguments: str, prefix: tuple[str, ...] = (), **environ: str) -> "subprocess.Popen[str]":
        """Start kflow in the folder."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "kflow", *arguments],
            cwd=self.path,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kflow(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run kflow in the folder to its end."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def records(self) -> list[RunRecord]:
        """Return the records of the store that KFLOW_STORE names, newest first."""
        return list(read_records(Path(os.environ["KFLOW_STORE"])))

    def statuses(self) -> dict[str, str]:
        """Return what the newest record says of each step."""
        return {name: step.status for name, step in self.records()[0].steps.items()}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home and a store of its own, so that nothing is written elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("KFLOW_STORE", str(tmp_path / "store"))


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take HOME away."""
    monkeypatch.delenv("HOME")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Folder]:
    """Return a function that makes a folder with digits.h5, a workflow ``w.yaml`` and other files."""

    def make(workflow: str = LIGHT, files: Mapping[str, str] | None = None, name: str = "here") -> Folder:
        folder = Folder(tmp_path / name)
        folder.path.mkdir()
        shutil.copy2(DIGITS, folder.path / "digits.h5")
        folder.write("w.yaml", workflow)
        for each, text in (files or {}).items():
            folder.write(each, text)
        return folder

    return make


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, set[str]]]:
    """Let every Python process note itself; the function returned tells module -> heavy libraries it imported.

    A worker ends by SIGKILL and so cannot tell what it imported; that it was started is noted all the same.
    """
    log = tmp_path / "spy.txt"
    folder = tmp_path / "spy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "def note():\n"
        "    heavy = {'tensorflow', 'keras', 'h5py', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "    name = sys.orig_argv[sys.orig_argv.index('-m') + 1] if '-m' in sys.orig_argv else sys.orig_argv[1]\n"
        f"    with open({str(log)!r}, 'a') as stream:\n"
        "        stream.write(' '.join([name, *heavy]) + '\\n')\n"
        "note()\n"
        "atexit.register(note)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    def read() -> dict[str, set[str]]:
        seen: dict[str, set[str]] = {}
        for line in log.read_text().splitlines():
            name, *heavy = line.split()
            seen.setdefault(name, set()).update(heavy)
        log.unlink()
        return seen

    return read


@pytest.fixture
def three_runs(tmp_path: Path) -> Path:
    """Give a store with three records, and one that cannot be read."""
    record = {
        "status": "succeeded",
        "started": "2025-01-01T00:00:00.000+00:00",
        "workflow": {"path": "w.yaml", "sha256": "0", "name": "n", "seed": 0, "params": {}, "steps": {}},
        "steps": {},
        "metrics": {"test": {"loss": "NaN", "accuracy": 0.5}},
        "versions": {},
        "platform": "",
        "devices": {},
    }
    root = tmp_path / "three"
    for name in ("20250101T000001-a-1", "20250101T000002-a-2", "20250203T000000-a-3", "20250909T000000-broken"):
        (root / "runs" / name).mkdir(parents=True)
        text = "{" if "broken" in name else json.dumps({"id": name, **record})
        (root / "runs" / name / RECORD).write_text(text)
    return root
