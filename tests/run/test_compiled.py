"""A command with nothing to do, given again: told without reading YAML, and only if nothing at all has changed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kflow.run import compiled
from kflow.signature import ABSENT, is_settled, state

KIND = '''"""Write a text to a file of the user's choice."""

from kflow.spec.base import StepOutputs, StepSpec
from kflow.spec.types import File, InputPath, OutputPath, Symbol


class Note(StepSpec, kind="note", version=1):
    """A text in a file."""

    is_light = True
    text: str
    code: Symbol
    source: InputPath
    to_file: OutputPath

    class Outputs(StepOutputs):
        """What others may reference."""

        file: File

    def exports(self):
        """Give the file its place."""
        return {"file": self.to_file}

    def run(self, context):
        """Write it."""
        path = context.workdir / "note.txt"
        path.write_text(self.text)
        return self.Outputs(file=path)
'''
WORKFLOW = """
kflow: 1
name: notes
steps:
  data: {kind: fetch, origin: data/a.txt}
  note: {kind: note, text: "${env.WORD}", code: code.py:name, source: b.txt, to_file: out/note.txt, needs: [data]}
"""
FILES = {
    "w.yaml": WORKFLOW,
    "data/a.txt": "a",
    "b.txt": "b",
    "code.py": "import near\nname = 1\n",
    "near.py": "try:\n    import perhaps\nexcept ImportError:\n    perhaps = None\n",
    "site/note_kind.py": KIND,
    "site/note_kind-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: note-kind\nVersion: 1.0\n",
    "site/note_kind-1.0.dist-info/entry_points.txt": "[kflow.adapters]\nnote = note_kind:Note\n",
}
HEAVY = ("yaml", "pydantic", "rich", "typer", "numpy", "h5py", "tensorflow", "dataclasses", "subprocess", "pathlib")
PROGRAM = f"""
import sys
from kflow.cli import main
try:
    main()
finally:
    print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


@dataclass(frozen=True)
class Place:
    """A folder with a workflow, and the command line in it."""

    path: Path

    def _run(self, code: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        around = {"WORD": "hello", "KFLOW_STORE": "store", "PYTHONPATH": os.pathsep.join(["site", *sys.path[1:]])}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.path,
            env={**os.environ, **around, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def kflow(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run kflow; the last line of standard error has the libraries that it imported."""
        return self._run(PROGRAM, *arguments, **environ)

    def is_replayed(self, *arguments: str, **environ: str) -> bool:
        """Tell whether the short way can be gone; it is gone then."""
        code = "import sys; from kflow.run.compiled import replay; sys.exit(0 if replay(sys.argv[1:]) == 0 else 9)"
        return self._run(code, *arguments, **environ).returncode == 0

    def settle(self, *arguments: str) -> None:
        """Run until there is nothing to do, and that has been compiled."""
        for _ in range(4):
            time.sleep(0.12)  # a file that was written a moment ago could be written again in the same tick
            done = self.kflow(*arguments)
            assert done.returncode == 0, done.stderr
            if self.is_replayed(*arguments):
                return
        raise AssertionError

    def record(self) -> dict[str, object]:
        """Return the newest record."""
        newest = max((self.path / "store" / "runs").iterdir())
        return dict(json.loads((newest / "record.json").read_text()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a workflow whose steps read data, code, a variable, and write a file by path."""
    for name, text in FILES.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text)
    return Place(tmp_path / "here")


def test_the_short_way_tells_and_records_what_the_long_way_does(place: Place) -> None:
    """Output, exit code and record are equal but for id and times, and no library is imported."""
    place.settle("run", "w.yaml")

    short, short_record = place.kflow("run", "w.yaml"), place.record()
    shutil.rmtree(place.path / "store" / "compiled")
    long, long_record = place.kflow("run", "w.yaml"), place.record()

    assert short.stderr == "\n"
    assert "pydantic" in long.stderr
    assert _timeless(short.stdout) == _timeless(long.stdout)
    assert "2 reused" in short.stdout
    for record in (short_record, long_record):
        assert str(record["id"]) in (short.stdout if record is short_record else long.stdout)
        for name in ("id", "started", "finished", "duration"):
            assert record.pop(name) is not None
    assert list(short_record) == list(long_record)
    assert short_record == long_record
    assert place.kflow("show", "latest").returncode == 0


def _timeless(text: str) -> str:
    return re.sub(r"\d{8}T\d+-notes-[0-9a-f]{6}|\d+\.\d s", "*", text)


def test_a_plan_without_work_takes_the_short_way(place: Place) -> None:
    """It prints the same, with the code that was asked for."""
    place.settle("run", "w.yaml")
    long = place.kflow("plan", "w.yaml", "--exit-code")

    short = place.kflow("plan", "w.yaml", "--exit-code")

    assert (short.returncode, short.stdout, short.stderr) == (0, long.stdout, "\n")
    assert "pydantic" in long.stderr


def test_the_record_of_the_short_way_has_the_state_of_git(place: Place) -> None:
    """Commit and changes are those of the moment, though nothing that a step reads has changed."""

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(place.path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (place.path / "README").write_text("x")
    git("add", "README", "w.yaml")
    git("commit", "-m", "first")
    place.settle("run", "w.yaml")
    clean = place.record()["git"]
    (place.path / "README").write_text("y")

    assert place.is_replayed("run", "w.yaml")
    assert clean == {"commit": git("rev-parse", "HEAD"), "is_dirty": False}
    assert place.record()["git"] == {"commit": git("rev-parse", "HEAD"), "is_dirty": True}


def _flip(path: Path) -> None:
    """Change a byte in place, and put the times back as far as a program can."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    """Put a copy with the same bytes and times in the place of a file."""
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


WAYS: dict[str, Callable[[Path], None]] = {
    "flip": _flip,
    "touch": os.utime,
    "replace": _replace,
    "delete": lambda path: path.unlink(),
    "mode": lambda path: path.chmod(0o600),
}
INGREDIENTS = (
    "w.yaml",
    "data/a.txt",
    "b.txt",
    "code.py",
    "near.py",
    "out/note.txt",
    "site/note_kind.py",
    "store/entries/*/*/manifest.json",
    "store/entries/*/*/file/note.txt",
)


@pytest.mark.parametrize("way", WAYS)
def test_any_change_of_any_ingredient_is_left_to_the_long_way(place: Place, way: str) -> None:
    """Each file that the outcome rests on, changed in one way: never is it taken for what it was."""
    place.settle("run", "w.yaml")
    kept = place.path.with_name("kept")
    shutil.copytree(place.path / "store" / "compiled", kept)
    wrong, tried = [], 0
    for ingredient in INGREDIENTS:
        for path in sorted(place.path.glob(ingredient)):
            whole = path.read_bytes()
            WAYS[way](path)
            tried += 1
            if place.is_replayed("run", "w.yaml"):
                wrong.append(path.name)
            path.write_bytes(whole)
            _accept(place, path)

    assert tried == len(INGREDIENTS) + 1
    assert wrong == []


def _accept(place: Place, path: Path) -> None:
    """Let the compiled command take a file, put back, for what it was: so each change is tried alone."""
    (index,) = (place.path / "store" / "compiled").iterdir()
    _, facts, record = index.read_text().split("\n", 2)
    value = {**json.loads(facts), "record": record}
    names = [*(f"{entry}/manifest.json" for entry in value["entries"]), *value["files"]]
    at = 5 * names.index(str(path.relative_to(place.path)))
    assert value["states"][at : at + 5] != list(state(path))
    value["states"][at : at + 5] = state(path)
    here = Path.cwd()
    os.chdir(place.path)
    try:
        index.unlink()
        compiled.write("store", value.pop("key"), value)
    finally:
        os.chdir(here)
    assert place.is_replayed("run", "w.yaml")


SURROUNDINGS: dict[str, Callable[[Path], dict[str, str]]] = {
    "a variable": lambda _: {"WORD": "other"},
    "a setting": lambda _: {"KFLOW_OFFLINE": "1"},
    "the GPUs": lambda _: {"CUDA_VISIBLE_DEVICES": ""},
    "the path of Python": lambda here: {"PYTHONPATH": str(here)},
    "a module that was missed": lambda here: _write(here / "perhaps.py"),
    "a package": lambda here: _write(here / "site" / "other-1.0.dist-info"),
    "another version": lambda here: _write(
        (here / "site" / "note_kind-1.0.dist-info").rename(here / "site" / "note_kind-2.0.dist-info") / "x"
    ),
    "the folder of an output": lambda here: _swap(here / "out"),
    "work that was not finished": lambda here: _write(here / "store" / "tmp" / "x"),
    "a checkpoint of what is done": lambda here: _write(
        here / "store" / "checkpoints" / next((here / "store" / "entries").glob("*/*")).name / "x"
    ),
}


def _write(path: Path) -> dict[str, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return {}


def _swap(folder: Path) -> dict[str, str]:
    """Put a link in the place of a folder, with the same files behind it."""
    other = folder.with_name("elsewhere")
    other.mkdir()
    for path in folder.iterdir():
        path.rename(other / path.name)
    folder.rmdir()
    folder.symlink_to(other)
    return {}


@pytest.mark.parametrize("what", SURROUNDINGS)
def test_other_surroundings_are_left_to_the_long_way(place: Place, what: str) -> None:
    """Variables, versions, modules that come into being, folders that become others."""
    place.settle("run", "w.yaml")

    environ = SURROUNDINGS[what](place.path)

    assert not place.is_replayed("run", "w.yaml", **environ)


def test_a_training_that_was_given_up_is_in_nobodys_way(place: Place) -> None:
    """Its checkpoint is not swept, as it may be gone on with: there is nothing to do all the same."""
    place.settle("run", "w.yaml")
    _write(place.path / "store" / "checkpoints" / ("ab" * 32) / "x")

    assert place.is_replayed("run", "w.yaml")


SWAP = '''

class Swap(StepSpec, kind="swap", version=1):
    """Let a link lead elsewhere."""

    is_light = True
    link: str
    target: str

    class Outputs(StepOutputs):
        """What others may reference."""

        file: File

    def run(self, context):
        """Do it at one stroke."""
        (context.workdir / "link").symlink_to(self.target)
        (context.workdir / "link").rename(self.link)
        (context.workdir / "done").touch()
        return self.Outputs(file=context.workdir / "done")
'''


@pytest.fixture
def swapping(place: Place) -> Place:
    """A folder as above, and the kind `swap`."""
    (place.path / "site" / "note_kind.py").write_text(KIND + SWAP)
    points = place.path / "site" / "note_kind-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "swap = note_kind:Swap\n")
    return place


def test_a_folder_of_outputs_that_became_another_during_a_run(swapping: Place) -> None:
    """By way of a link to it: the next run puts the outputs there, in the place of what is older."""
    for name, text in (("old", "hello"), ("new", "something else")):
        (swapping.path / name).mkdir()
        (swapping.path / name / "note.txt").write_text(text)
    (swapping.path / "out").symlink_to("old")
    steps = f"  swap: {{kind: swap, link: {swapping.path / 'out'}, target: new, needs: [note]}}\n"
    (swapping.path / "w.yaml").write_text(WORKFLOW + steps)
    swapping.kflow("run", "w.yaml", "--until", "note")
    time.sleep(0.12)

    codes = [swapping.kflow("run", "w.yaml").returncode for _ in range(2)]

    assert codes == [0, 0]
    assert (swapping.path / "new" / "note.txt").read_text() == "hello"


@pytest.mark.parametrize("link", ["link.yaml", "current"])
def test_a_workflow_that_became_another_while_it_was_run(swapping: Place, link: str) -> None:
    """By way of a link to it, or to its folder: what is there now is run the next time, though it is older."""
    place = swapping
    suffix = "" if link == "current" else "w.yaml"
    steps = f"{{kind: swap, link: {place.path / link}, target: {place.path / 'new' / suffix}}}"
    for name, what in (("old", steps), ("new", f"{{kind: fetch, origin: {place.path / 'b.txt'}}}")):
        (place.path / name).mkdir()
        (place.path / name / "w.yaml").write_text(f"kflow: 1\nname: {name}\nsteps:\n  step: {what}\n")
    (place.path / link).symlink_to(place.path / "old" / suffix)
    time.sleep(0.12)
    command = ("run", f"{link}/{'w.yaml' if link == 'current' else ''}".rstrip("/"))

    names = [(place.kflow(*command).returncode, place.record()["workflow"]["name"]) for _ in range(2)]

    assert names == [(0, "old"), (0, "new")]


def test_another_command_line_is_another_command(place: Place) -> None:
    """What was compiled for one stands for no other, nor for another folder, nor for another store."""
    place.settle("run", "w.yaml")
    shutil.copytree(place.path, place.path.with_name("there"), symlinks=True)

    assert not place.is_replayed("run", "w.yaml", "--jobs", "2")
    assert not place.is_replayed("plan", "w.yaml")
    assert not place.is_replayed("run", "./w.yaml")
    assert not place.is_replayed("run", "w.yaml", "--force")
    assert not place.is_replayed("run", "w.yaml", KFLOW_STORE="other")
    assert not Place(place.path.with_name("there")).is_replayed("run", "w.yaml")


def test_forced_and_partial_and_failed_runs(place: Place) -> None:
    """A forced run is never compiled; a part of a run stays that part."""
    place.settle("run", "w.yaml", "--only", "data")
    forced = [place.kflow("run", "w.yaml", "--force") for _ in range(2)]
    (place.path / "b.txt").unlink()
    failed = [place.kflow("run", "w.yaml") for _ in range(2)]

    assert [done.stdout.count("starts: forced") for done in forced] == [2, 2]
    assert [(done.returncode, "does not exist" in done.stderr) for done in failed] == [(2, True), (2, True)]
    (place.path / "b.txt").write_text("b")
    place.settle("run", "w.yaml", "--only", "data")
    assert "1 reused, 1 not run" in place.kflow("run", "w.yaml", "--only", "data").stdout


def test_a_damaged_index_is_not_believed(place: Place) -> None:
    """One bit flipped anywhere, or an end cut off: the long way is gone."""
    place.settle("run", "w.yaml")
    place.settle("plan", "w.yaml")
    (index,) = [path for path in (place.path / "store" / "compiled").iterdir() if b'"plan"' in path.read_bytes()]
    code = f"""
import random, sys
from pathlib import Path
from kflow.run.compiled import replay
index, believed = Path({str(index)!r}), 0
whole = index.read_bytes()
drawn = random.Random(7)
for place in range(0, len(whole), max(1, len(whole) // 300)):
    damaged = bytearray(whole)
    damaged[place] ^= 1 << drawn.randrange(8)
    for content in (bytes(damaged), whole[:place]):
        index.write_bytes(content)
        believed += replay(["plan", "w.yaml"]) is not None
index.write_bytes(whole)
assert replay(["plan", "w.yaml"]) == 0
sys.exit(believed)
"""
    done = place._run(code)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_store_keeps_a_few_compiled_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest twenty."""
    for number in range(25):
        compiled.write(str(tmp_path), [number], {"x": number})
        os.utime(compiled.place(str(tmp_path), [number]), (number, number))
    compiled.write(str(tmp_path), [25], {"x": 25})

    kept = [number for number in range(26) if compiled.read(str(tmp_path), [number])]

    assert kept == list(range(6, 26))


def test_when_a_file_has_settled(tmp_path: Path) -> None:
    """A file changed a moment ago could be changed again unseen; one with times in whole seconds, for longer."""
    path = tmp_path / "file"
    path.write_text("x")
    written = state(path)
    coarse = (1, 5 * 10**9, 5 * 10**9, 7, 0o100644)

    assert not is_settled(written, max(written[1:3]) + 1000)
    assert is_settled(written, max(written[1:3]) + 10**10)
    assert [is_settled(coarse, moment * 10**9) for moment in (6, 7, 9)] == [False, False, True]
    assert state(tmp_path / "nothing") == state(path / "below") == ABSENT
