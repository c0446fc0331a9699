"""``kflow plan -o`` and ``kflow run PLAN``: exactly what was planned is run, or nothing, with the reason."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]
WORKFLOW = """
kflow: 1
name: two
params: {end: 40}
steps:
  digits: {kind: fetch, origin: digits.h5}
  notes: {kind: fetch, origin: notes.txt}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: "${params.end}"}
  layers: {kind: register_objects, objects: {Swish: layers.py:Swish}}
"""
FILES = {"notes.txt": "a", "layers.py": "import near\nSwish = 1\n", "near.py": "x = 1\n"}


@pytest.fixture
def folder(make_folder: MakeFolder) -> Any:
    """A folder with a workflow that reads files and code."""
    return make_folder(WORKFLOW, FILES)


def test_a_plan_is_the_same_text_each_time_and_says_what_would_be_run(folder: Any) -> None:
    """With wishes, digests, verdicts and reasons; nothing is left beside it, and no store appears."""
    wishes = ("--set", "end=30", "--until", "x")
    for name in ("one.json", "two.json"):
        assert folder.kflow("plan", "w.yaml", *wishes, "-o", name).returncode == 0

    plan = json.loads((folder.path / "one.json").read_text())
    assert (folder.path / "one.json").read_bytes() == (folder.path / "two.json").read_bytes()
    assert [plan[name] for name in ("kflow-plan", "workflow", "overrides", "seed", "params")] == [
        1,
        "w.yaml",
        ["end=30"],
        0,
        {"end": 30},
    ]
    assert plan["choice"] == {"only": [], "first": [], "last": ["x"], "is_forced": False}
    assert {name: (step["action"], step["reason"]) for name, step in plan["steps"].items()} == {
        "digits": ("run", "never run before"),
        "x": ("wait", "waits for digits"),
    }
    assert plan["steps"]["x"]["components"]["inputs"] == {"datapath": None}
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(
        [*FILES, "digits.h5", "w.yaml", "one.json", "two.json"]
    )


def test_a_plan_is_run_with_its_wishes(folder: Any) -> None:
    """The params and the choice are those of the plan, from whatever folder it is run."""
    folder.kflow("plan", "w.yaml", "--set", "end=30", "--until", "x", "-o", "plan.json")

    done = type(folder)(folder.path.parent).kflow("run", "here/plan.json")

    assert done.returncode == 0, done.stderr
    assert folder.statuses() == {"digits": "run", "notes": "not run", "x": "run", "layers": "not run"}
    assert folder.records()[0].workflow.params == {"end": 30}
    assert folder.records()[0].workflow.path == "here/w.yaml"


def _append(name: str, text: str) -> Callable[[Any, Path], None]:
    def change(folder: Any, store: Path) -> None:
        del store
        with (folder.path / name).open("a") as stream:
            stream.write(text)

    return change


def _edit(old: str, new: str) -> Callable[[Any, Path], None]:
    def change(folder: Any, store: Path) -> None:
        del store
        folder.write("w.yaml", (folder.path / "w.yaml").read_text().replace(old, new))

    return change


CHANGES: dict[str, tuple[Callable[[Any, Path], None], list[str]]] = {
    "input": (_append("notes.txt", "b"), ["step 'notes': file origin changed"]),
    "module": (_append("near.py", "y = 2\n"), ["step 'layers': code near.py changed"]),
    "comment": (_append("w.yaml", "# more\n"), ["the file w.yaml was changed"]),
    "param": (
        _edit("end: 40", "end: 50"),
        ["the file w.yaml was changed", "param end: 40 -> 50", "step 'x': end: 40 -> 50"],
    ),
    "seed": (_edit("name: two", "name: two\nseed: 3"), ["the file w.yaml was changed", "seed: 0 -> 3"]),
    "step": (
        _edit("  notes:", "  other:"),
        ["the file w.yaml was changed", "step 'other' is new", "step 'notes' is gone"],
    ),
    "store": (
        lambda _, store: shutil.rmtree(store / "entries"),
        [
            "step 'digits' was to be reused, and would be run now (its result is not in the store)",
            "step 'x' was to be reused, and waits for digits now",
        ],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_run_when_something_has_changed_since(folder: Any, tmp_path: Path, what: str) -> None:
    """The exit code is 1, every change is named, and how to plan anew."""
    change, words = CHANGES[what]
    assert folder.kflow("run", "w.yaml", "--until", "x").returncode == 0
    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    change(folder, tmp_path / "store")
    count = len(folder.records())

    done = folder.kflow("run", "plan.json")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "plan.json is not what would be run now:",
        *(f"  {each}" for each in words),
        "nothing was run; 'kflow plan w.yaml -o plan.json' plans anew",
    ]
    assert len(folder.records()) == count


PARTS: dict[str, tuple[Callable[[Any, Path], None], list[str]]] = {
    "need": (
        lambda _, store: shutil.rmtree(store / "entries"),
        [
            "step 'x' was to be run, and waits for digits now",
            "step 'x' needs 'digits', which is not chosen and has no result to reuse (its result is not in the store)",
        ],
    ),
    "step": (_edit("  x:", "  y:"), ["the file w.yaml was changed", "step 'x' is gone"]),
    "param": (_edit("{end: 40}", "{last: 40, end2: 1}"), ["the file w.yaml was changed", "param end is gone"]),
}


@pytest.mark.parametrize("what", PARTS)
def test_a_plan_of_a_part_is_refused_like_any_other(folder: Any, tmp_path: Path, what: str) -> None:
    """What its options name may be gone, or need what is gone; nobody has given such an option now."""
    change, words = PARTS[what]
    assert folder.kflow("run", "w.yaml", "--until", "x").returncode == 0
    folder.kflow("plan", "w.yaml", "--set", "end=30", "--only", "x", "-o", "plan.json")
    change(folder, tmp_path / "store")

    done = folder.kflow("run", "plan.json")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "plan.json is not what would be run now:",
        *(f"  {each}" for each in words),
        "nothing was run; 'kflow plan w.yaml --set end=30 --only x -o plan.json' plans anew",
    ]
    assert len(folder.records()) == 1


def test_a_plan_in_a_linked_folder_finds_its_workflow(folder: Any) -> None:
    """By whatever way it is named: it is from the folder that the link leads to that the workflow is found."""
    (folder.path / "far" / "plans").mkdir(parents=True)
    (folder.path / "plans").symlink_to("far/plans")
    planned = folder.kflow("plan", "w.yaml", "--until", "x", "-o", "plans/plan.json")
    done = [folder.kflow("run", f"{place}/plan.json") for place in ("plans", "far/plans")]

    assert planned.returncode == 0, planned.stderr
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    assert [record.workflow.path for record in folder.records()] == ["w.yaml", "w.yaml"]


def test_another_version_is_a_change(folder: Any) -> None:
    """Of Python or of kflow, whose steps could do something else then."""
    from kflow.plan.saved import read_plan

    folder.kflow("plan", "w.yaml", "--only", "notes", "--force", "-o", "plan.json")
    plan = read_plan((folder.path / "plan.json").read_text(), "plan.json")
    folder.write("plan.json", type(plan)(**{**_fields(plan), "versions": {"kflow": "0.0.9", "python": "3"}}).to_json())

    done = folder.kflow("run", "plan.json")

    assert done.returncode == 1
    assert "  kflow: 0.0.9 -> " in done.stderr
    assert "'kflow plan w.yaml --only notes --force -o plan.json' plans anew" in done.stderr


def _fields(plan: Any) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in type(plan).__dataclass_fields__}


def test_files_that_are_no_sound_plan(folder: Any) -> None:
    """Cut off, edited, of another version, of another folder: each is exit code 2 with what to do."""
    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    text = (folder.path / "plan.json").read_text()
    for name, content in {
        "empty.json": "",
        "head.json": text[:7],
        "cut.json": text[:-30],
        "edited.json": text.replace('"end": 40', '"end": 50'),
        "newer.json": text.replace('"kflow-plan": 1', '"kflow-plan": 2'),
    }.items():
        folder.write(name, content)
    (folder.path / "away").mkdir()
    folder.write("away/plan.json", text)

    told = {
        name: folder.kflow("run", name)
        for name in ("empty.json", "head.json", "cut.json", "edited.json", "newer.json", "away/plan.json")
    }

    assert {done.returncode for done in told.values()} == {2}
    assert ["it may be cut off" in told[name].stderr for name in ("empty.json", "head.json", "cut.json")] == [True] * 3
    assert "was changed after it was made" in told["edited.json"].stderr
    assert "another version of kflow (format 2, here 1)" in told["newer.json"].stderr
    assert "there is no away/w.yaml" in told["away/plan.json"].stderr
    assert not folder.records()


def test_what_does_not_go_together(folder: Any) -> None:
    """A plan says itself what is run; it never takes the place of the workflow."""
    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    before = (folder.path / "w.yaml").read_text()

    both = folder.kflow("run", "plan.json", "--only", "x")
    itself = folder.kflow("plan", "w.yaml", "-o", "./w.yaml")

    assert (both.returncode, itself.returncode) == (2, 2)
    assert "is a plan and says what is run" in both.stderr
    assert itself.stderr == "-o w.yaml: this is the workflow itself; name another file\n"
    assert (folder.path / "w.yaml").read_text() == before


IN_THE_WAY = {
    "digits.h5": "step 'digits' reads it",
    "link.h5": "step 'digits' reads it",
    "layers.py": "step 'layers' reads it",
    "near.py": "step 'layers' reads it",
    "w.lock.yaml": "this is the lock of the workflow",
    "other.yaml": "this file is no saved plan, and would be gone",
    "results.json": "this file is no saved plan, and would be gone",
    ".": "this names no file",
    "-": "this names no file",
    "../store/plan.json": "this is in the store",
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_a_plan_takes_the_place_of_no_other_file(folder: Any, name: str) -> None:
    """Data, code that is imported, the lock that is still to come, and whatever else holds something."""
    folder.write("other.yaml", WORKFLOW)
    folder.write("results.json", '{"accuracy": 0.9}')
    (folder.path / "link.h5").symlink_to("digits.h5")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}

    done = folder.kflow("plan", "w.yaml", "-o", name)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"-o {name}: {IN_THE_WAY[name]}; name another file\n"
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_a_plan_takes_no_place_that_a_step_writes_to(make_folder: MakeFolder) -> None:
    """Though nothing is there yet: the run would put its result in the place of the plan."""
    steps = '{model: {kind: build_model, layers: [Input: {shape: [2]}]}, save: {kind: save_model, model: "${model}", '
    folder = make_folder(f"kflow: 1\nname: saving\nsteps: {steps}filepath: here/model.keras}}}}\n")

    done = folder.kflow("plan", "w.yaml", "-o", "here/model.keras")

    assert (done.returncode, done.stderr) == (2, "-o here/model.keras: step 'save' writes it; name another file\n")
    assert not (folder.path / "here").exists()


def test_a_plan_takes_the_place_of_an_older_one_and_of_nothing(folder: Any) -> None:
    """One that is cut off is a plan, too; an empty file, as mktemp makes it, holds nothing."""
    (folder.path / "empty").touch()
    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    text = (folder.path / "plan.json").read_text()
    folder.write("cut", text[:200])

    for name in ("plan.json", "empty", "cut"):
        assert folder.kflow("plan", "w.yaml", "-o", name).returncode == 0
        assert (folder.path / name).read_text() == text


# Each step notes that it runs; the second ends its worker as long as there is a file 'plug'.
CHAIN = """
kflow: 1
name: chain
steps:
  first: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: "user.py:change"}
  second: {kind: normalize, x: "${first}", axis: 0}
  third: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 7, normalizer: "user.py:fail"}
"""
FAILING = """
from pathlib import Path

here = Path(__file__).parent

def change(block):
    return block + 1

def fail(block):
    if (Path.cwd() / "plug").exists():
        raise ValueError("not yet")
    return block
"""


@pytest.mark.parametrize("wish", [(), ("--force",)])
def test_a_plan_that_was_cut_off_is_gone_on_with(make_folder: MakeFolder, wish: tuple[str, ...]) -> None:
    """What its own run has made is reused, unless it says that all is to be made anew; the rest is as planned."""
    folder = make_folder(CHAIN, {"user.py": FAILING, "plug": ""})
    folder.kflow("plan", "w.yaml", *wish, "-o", "plan.json")
    broken = folder.kflow("run", "plan.json", "--keep-going")
    before = folder.statuses()
    (folder.path / "plug").unlink()
    again = folder.kflow("run", "plan.json")

    assert broken.returncode == 1
    assert before == {"first": "run", "second": "run", "third": "failed"}
    assert again.returncode == 0, again.stderr
    done = "run" if wish else "reused"
    assert folder.statuses() == {"first": done, "second": done, "third": "run"}
    told = "plan.json: done since it was made, and reused: first, second\n"
    assert again.stdout.startswith(told) is (not wish)


def test_what_was_made_since_from_something_else_is_not_what_was_planned(make_folder: MakeFolder) -> None:
    """A step that waited is compared in all but the inputs that were still to come."""
    folder = make_folder(CHAIN, {"user.py": FAILING})
    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    folder.write("user.py", FAILING + "\n")
    folder.kflow("run", "w.yaml")

    done = folder.kflow("run", "plan.json")

    assert done.returncode == 1
    assert "step 'first': code user.py changed" in done.stderr


def test_a_workflow_may_be_written_in_json(folder: Any) -> None:
    """It is not taken for a plan."""
    steps = {"notes": {"kind": "fetch", "origin": "notes.txt"}}
    folder.write("w.json", json.dumps({"name": "j", "kflow": 1, "steps": steps}))

    assert folder.kflow("run", "w.json").returncode == 0


def test_a_change_while_a_plan_is_run(folder: Any) -> None:
    """A step that is another when its turn comes is not run."""
    from kflow.plan.planner import Action, Verdict
    from kflow.plan.saved import read_plan

    folder.kflow("plan", "w.yaml", "-o", "plan.json")
    plan = read_plan((folder.path / "plan.json").read_text(), "plan.json")
    planned = plan.steps["x"]["components"]
    same = {**planned, "inputs": {"datapath": "1"}}
    other = {**same, "fields": {**planned["fields"], "end": 41}}

    assert plan.check_action(Action("x", Verdict.RUN, "", "1", same)) == []
    misses = plan.check_action(Action("x", Verdict.RUN, "", "2", other))
    assert str(plan.refuse(misses)) == "step 'x': end: 40 -> 41, since it was planned; plan anew"


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_plan_is_no_workflow(folder: Any, command: str) -> None:
    """It is said what it is, and not what is wrong in each of its lines."""
    folder.kflow("plan", "w.yaml", "-o", "plan.json")

    done = folder.kflow(command, "plan.json")

    assert done.returncode == 2
    assert done.stderr == "plan.json is a saved plan and no workflow; 'kflow run plan.json' runs it\n"


def test_a_plan_that_counts_on_a_remote_says_so_without_one(folder: Any) -> None:
    """What was to come from there would have to be run."""
    folder.kflow("run", "w.yaml", "--remote", "../remote")
    folder.kflow("plan", "w.yaml", "--store", "empty", "--remote", "../remote", "-o", "plan.json")

    done = folder.kflow("run", "plan.json", "--store", "empty")

    assert done.returncode == 1
    assert "the plan counts on a remote: name it with --remote" in done.stderr
    assert folder.kflow("run", "plan.json", "--store", "empty", "--remote", "../remote").returncode == 0


def test_a_plan_that_cannot_be_written_is_an_error(folder: Any) -> None:
    """The message is about the plan, not about the store."""
    done = folder.kflow("plan", "w.yaml", "-o", "w.yaml/plan.json")

    assert (done.returncode, done.stderr) == (2, "-o w.yaml/plan.json: Not a directory\n")


def test_a_path_that_is_no_utf_8_can_be_planned(make_folder: MakeFolder) -> None:
    """The plan is JSON all the same, and finds its workflow."""
    folder = make_folder("kflow: 1\nname: odd\nsteps:\n  f: {kind: fetch, origin: digits.h5}\n")
    odd = os.fsdecode(b"odd-\xff.yaml")
    (folder.path / "w.yaml").rename(folder.path / odd)
    planned = folder.kflow("plan", odd, "-o", "p.json")
    run = folder.kflow("run", "p.json")

    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads((folder.path / "p.json").read_text(encoding="utf-8"))["workflow"] == odd
    assert run.returncode == 0, run.stderr
