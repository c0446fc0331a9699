"""What tests share: a home and a store of their own, a folder with real data, and the command line as a process."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
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

KINDS = '''"""Kinds that need no library."""

import os
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from kflow.spec.base import NotFingerprinted, StepOutputs, StepSpec
from kflow.spec.types import File, Metrics, OutputPath


class Measure(StepSpec, kind="measure", version=1):
    """A number."""

    is_light = True
    value: Annotated[float, Strict()]

    class Outputs(StepOutputs):
        """What others may reference."""

        metrics: Metrics

    def run(self, context):
        """Give it."""
        return self.Outputs(metrics={"value": self.value})


class Note(StepSpec, kind="note", version=1):
    """A text, when there is a file: its own, perhaps with what is never the same, and those of files."""

    is_light = True
    text: str
    is_noisy: bool = False
    takes: dict[str, File] = Field(default_factory=dict)
    after: Annotated[str, NotFingerprinted()] = "/"
    then: Annotated[str, NotFingerprinted()] = "/"
    spoils: Annotated[bool, NotFingerprinted()] = False
    fails_with: Annotated[str | None, NotFingerprinted()] = None
    to_file: Annotated[OutputPath | None, NotFingerprinted()] = None

    class Outputs(StepOutputs):
        """What others may reference."""

        file: File

    def exports(self):
        """Give the file its place, if it has one."""
        return {"file": self.to_file} if self.to_file else {}

    def run(self, context):
        """Write it."""
        while not Path(self.after).exists():
            time.sleep(0.02)
            context.report({"event": "waiting"})  # and end with the run
        if self.fails_with and Path(self.fails_with).exists():
            raise ValueError("there is a file")
        path = context.workdir / "note.txt"
        noise = os.urandom(8).hex() if self.is_noisy else ""
        path.write_text(self.text + noise + "".join(context.path(file).read_text() for file in self.takes.values()))
        for file in self.takes.values() if self.spoils else ():
            with open(context.path(file), "r+") as stream:
                stream.write("?")
        while not Path(self.then).exists():
            time.sleep(0.02)
            context.report({"event": "waiting"})
        return self.Outputs(file=path)
'''


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

    def wait_until_it_runs(self, step: str) -> None:
        """Wait until the newest record says so."""
        for _ in range(3000):
            with contextlib.suppress(IndexError):
                if self.statuses()[step] == "running":
                    return
            time.sleep(0.02)
        raise AssertionError

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
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the kinds `measure` and `note` for the processes of a test."""
    site = tmp_path / "site"
    described = site / "light_kinds-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "light_kinds.py").write_text(KINDS)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: light-kinds\nVersion: 1.0\n")
    points = "[kflow.adapters]\nmeasure = light_kinds:Measure\nnote = light_kinds:Note\n"
    (described / "entry_points.txt").write_text(points)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


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
