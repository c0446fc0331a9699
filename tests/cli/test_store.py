"""``kflow store`` lists, measures, verifies and collects."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeFolder = Callable[..., Any]

CHAIN = """
kflow: 1
name: chain
steps:
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 40}
  unit: {kind: normalize, x: "${x}", axis: 0}
  again: {kind: normalize, x: "${unit}", axis: 0, order: 1}
"""


@pytest.fixture
def folder(make_folder: MakeFolder) -> Any:
    """Give a folder whose workflow has been run."""
    made = make_folder(CHAIN)
    assert made.kflow("run", "w.yaml").returncode == 0
    return made


AS_A_USER = ("unshare", "--user", "--map-user=12345")
"""Before a command: rights count for it, as they do not for root."""


def _damage(folder: Any, step: str) -> str:
    """Change a byte of what a step made, and return the digest of what it had made."""
    made = folder.records()[0].steps[step]
    (path,) = (folder.path.parent / "store" / "entries" / made.fingerprint[:2]).rglob("*.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return str(made.outputs["array"].digest)


def test_the_entries_and_their_sizes(folder: Any) -> None:
    """Each entry with kind and last use; the parts of the store add up."""
    listed = folder.kflow("store", "ls").stdout.splitlines()
    sizes = folder.kflow("store", "du").stdout

    assert [line.split()[1] for line in listed[1:]].count("normalize") == 2
    assert re.search(r"^entries +[\d.]+ kB", sizes, re.MULTILINE)


def test_what_may_not_be_read_is_not_called_sound(folder: Any) -> None:
    """Nor damaged: it is told, stays where it is, and the exit code is 1."""
    made = folder.records()[0].steps["again"]
    (path,) = (folder.path.parent / "store" / "entries" / made.fingerprint[:2]).rglob("*.npy")
    path.chmod(0)

    process = folder.start("store", "verify", prefix=AS_A_USER)
    out, err = process.communicate()

    assert (process.returncode, err) == (1, "")
    assert out == (
        f"{made.fingerprint[:16]} cannot be read: {path}: Permission denied\n2 of 3 entries hold what was published\n"
    )
    assert path.exists()


def test_a_part_that_may_not_be_looked_into_is_not_called_sound(folder: Any) -> None:
    """What lies there is not seen; the rest is read."""
    made = folder.records()[0].steps["again"]
    shelf = folder.path.parent / "store" / "entries" / made.fingerprint[:2]
    shelf.chmod(0)
    processes = [folder.start("store", what, prefix=AS_A_USER) for what in ("verify", "ls")]
    (verified, _), (listed, told) = (process.communicate() for process in processes)
    shelf.chmod(0o755)

    assert [process.returncode for process in processes] == [1, 1]
    assert f"{shelf.name} cannot be read: {shelf}: Permission denied\n" in verified
    assert "2 of 3 entries hold what was published" in verified
    assert (listed, told) == ("", f"{shelf}: Permission denied; make it readable\n")


@pytest.mark.parametrize(
    ("command", "part"),
    [(("run", "w.yaml"), ""), (("plan", "w.yaml"), "entries"), (("runs",), "runs"), (("store", "verify"), "entries")],
)
def test_a_store_that_may_not_be_looked_into_is_not_taken_for_an_empty_one(
    folder: Any, command: tuple[str, ...], part: str
) -> None:
    """Which folder it is, and what to do; neither is anything run."""
    closed = folder.path.parent / "store" / part
    closed.chmod(0)
    process = folder.start(*command, prefix=AS_A_USER)
    out, err = process.communicate()
    closed.chmod(0o755)

    assert (process.returncode, out) == (1, "")
    assert err == (
        f"{closed}: Permission denied; make it readable, or name another store with --store or KFLOW_STORE\n"
    )


def test_data_that_may_not_be_read_is_to_be_made_readable(folder: Any) -> None:
    """Writing it would not help."""
    (folder.path / "digits.h5").chmod(0)
    process = folder.start("plan", "w.yaml", prefix=AS_A_USER)
    out, err = process.communicate()

    assert process.returncode in {1, 2}
    assert "Permission denied" in out + err
    assert "writable" not in out + err


@pytest.mark.parametrize("what", ["deep JSON", "a pipe"])
def test_whatever_lies_in_the_place_of_a_manifest_does_no_harm(folder: Any, what: str) -> None:
    """Every command comes to its end, and the next run makes the step again."""
    (path, *_) = (folder.path.parent / "store" / "entries").glob("*/*/manifest.json")
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    else:
        path.write_text("[" * 200_000)
    listed, planned = folder.kflow("store", "ls"), folder.kflow("plan", "w.yaml")
    ran = folder.kflow("run", "w.yaml")

    assert "unreadable" in listed.stdout
    assert "its stored result is damaged" in planned.stdout
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "bug" not in listed.stderr + planned.stderr + ran.stderr
    assert folder.kflow("store", "verify").returncode == 0


@pytest.mark.parametrize("command", [("run", "w.yaml"), ("plan", "w.yaml"), ("store", "ls")])
def test_a_store_without_a_name_is_refused(folder: Any, command: tuple[str, ...]) -> None:
    """An empty variable in a script must not make the current folder a store."""
    done = folder.kflow(*command, "--store", "")

    assert done.returncode == 2
    assert "expected a folder" in done.stderr
    assert not (folder.path / "runs").exists()


@pytest.mark.usefixtures("kinds")
def test_damage_that_a_run_makes_anew_is_left_to_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Else what that run publishes could be set aside; and nobody is told that the next one sees to it."""
    folder = make_folder(
        'kflow: 1\nname: n\nparams: {after: /}\nsteps: {up: {kind: note, text: up, after: "${params.after}"}}\n'
    )
    folder.kflow("run", "w.yaml")
    (note,) = (tmp_path / "store" / "entries").rglob("note.txt")
    note.write_text("??")
    run = folder.start("run", "w.yaml", "--force", "--set", f"after={folder.path / 'go'}")
    folder.wait_until_it_runs("up")
    verified = folder.kflow("store", "verify")
    folder.write("go", "")
    run.communicate()

    assert verified.returncode == 1
    assert "it stays, as a run is at work on it" in verified.stdout
    assert "the next run makes" not in verified.stdout
    assert note.read_text() == "up"


def test_damage_is_found_and_set_aside(folder: Any) -> None:
    """Exit code 1 with what is damaged; afterwards the store is sound, and the next run makes it again."""
    sound = folder.kflow("store", "verify")
    digest = _damage(folder, "again")
    damaged = folder.kflow("store", "verify")

    assert (sound.returncode, sound.stdout) == (0, "3 of 3 entries hold what was published\n")
    assert damaged.returncode == 1
    assert "(normalize) is damaged: array/array.npy" in damaged.stdout
    assert folder.kflow("store", "verify").returncode == 0
    folder.kflow("run", "w.yaml")
    assert folder.statuses() == {"x": "reused", "unit": "reused", "again": "run"}
    assert folder.records()[0].steps["again"].outputs["array"].digest == digest


def test_a_damaged_result_is_made_again_before_it_is_used(folder: Any) -> None:
    """The step that takes it finds the damage, and waits for the other to be done again."""
    digest = _damage(folder, "unit")
    alone = folder.kflow("run", "w.yaml", "--only", "again", "--force")
    all_ = folder.kflow("run", "w.yaml", "--from", "unit", "--force")

    assert alone.returncode == 1
    assert (
        "the stored result of step 'unit' was damaged or removed; a run with '--until unit' makes it again"
        in alone.stdout
    )
    assert all_.returncode == 0
    assert folder.records()[0].steps["unit"].outputs["array"].digest == digest


def test_a_run_mends_what_it_takes(folder: Any) -> None:
    """A changed step that takes a damaged result has it made again, with the same bytes."""
    digest = _damage(folder, "unit")
    folder.write("w.yaml", CHAIN.replace("order: 1", "order: 3"))
    done = folder.kflow("run", "w.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.statuses() == {"x": "reused", "unit": "run", "again": "run"}
    assert folder.records()[0].steps["unit"].outputs["array"].digest == digest


def test_collecting_garbage(folder: Any) -> None:
    """Nothing without a policy; a dry run says what would go; what was just used stays unless told otherwise."""
    nothing = folder.kflow("store", "gc")
    graced = folder.kflow("store", "gc", "--older-than", "1 s")
    for entry in (folder.path.parent / "store" / "entries").glob("*/*"):
        os.utime(entry, (0, 0))
    dry = folder.kflow("store", "gc", "--max-size", "1", "--dry-run")
    unreferenced = folder.kflow("store", "gc", "--unreferenced")
    real = folder.kflow("store", "gc", "--older-than", "30d")

    assert nothing.returncode == 2
    assert "say what may go" in nothing.stderr
    assert graced.stdout == "0 entries removed, 0 B\n"
    assert dry.stdout.splitlines()[-1].startswith("2 entries would be removed")
    assert unreferenced.stdout == "0 entries removed, 0 B\n"
    assert real.stdout.splitlines()[-1].startswith("3 entries removed")
    assert folder.kflow("store", "ls").stdout == "no entries\n"


@pytest.mark.parametrize("spoiled", ["cut", "newer", "of another user", "a pipe", "journal"])
def test_nothing_is_unreferenced_where_a_record_cannot_be_read(folder: Any, spoiled: str) -> None:
    """Its run may have used anything: which record it is is told, and what to do; nothing goes."""
    (record,) = (folder.path.parent / "store" / "runs").glob("*/record.json")
    text = record.read_text()
    match spoiled:
        case "cut":
            record.write_text(text[:-5])
        case "newer":
            record.write_text('{"format": 2}')
        case "of another user":
            record.chmod(0)
        case "a pipe":
            record.unlink()
            os.mkfifo(record)
        case "journal":
            record.with_name("journal.jsonl").mkdir()
    why = {
        "cut": "it is damaged",
        "newer": "it is of another version of kflow",
        "of another user": "Permission denied",
        "a pipe": "it is no file of that kind",
        "journal": "Is a directory",
    }[spoiled]

    process = folder.start("store", "gc", "--unreferenced", "--grace", "0", prefix=AS_A_USER)
    _, told = process.communicate(timeout=60)

    name = record if spoiled != "journal" else record.with_name("journal.jsonl")
    assert process.returncode == 1
    assert told.splitlines() == [
        "it cannot be told what is referenced, and nothing was removed:",
        f"  {name}: {why}",
        (
            "remove the folder of a run that you can do without, or use the kflow that wrote it; "
            "--older-than and --max-size ask no record"
        ),
    ]
    assert len(list((folder.path.parent / "store" / "entries").glob("*/*"))) == 3


@pytest.mark.parametrize("spoiled", ["dangling", "a file"])
def test_nothing_is_unreferenced_where_the_runs_are_gone(folder: Any, spoiled: str) -> None:
    """They may be on a disk that is not there now."""
    runs = folder.path.parent / "store" / "runs"
    runs.rename(runs.with_name("elsewhere"))
    if spoiled == "dangling":
        runs.symlink_to("nowhere")
    else:
        runs.touch()
    done = folder.kflow("store", "gc", "--unreferenced", "--grace", "0")

    assert done.returncode == 1
    assert f"  {runs}: " in done.stderr
    assert len(list((runs.parent / "entries").glob("*/*"))) == 3


def test_what_a_run_under_way_has_made_or_used_stays(make_folder: MakeFolder) -> None:
    """However long ago that was: a training may take days."""
    step = "{kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 3}"
    text = f"kflow: 1\nname: w\nsteps:\n  x: {step}\n  y: {step[:-1]}, normalizer: user.py:wait, needs: [x]}}\n"
    code = "def wait(block):\n    open('line').read()\n    return block\n"
    folder = make_folder(text, {"user.py": code})
    os.mkfifo(folder.path / "line")
    process = folder.start("run", "w.yaml")
    with (folder.path / "line").open("w"):  # y is under way
        gone = folder.kflow("store", "gc", "--older-than", "0", "--max-size", "0", "--grace", "0")
        process.kill()
        process.communicate()
    after = folder.kflow("store", "gc", "--older-than", "0", "--grace", "0")

    assert gone.stdout == "0 entries removed, 0 B\n"
    assert after.stdout.splitlines()[-1].startswith("1 entries removed")


def test_a_run_without_a_record_has_used_nothing(folder: Any) -> None:
    """It was killed before it wrote one; collecting goes on."""
    (folder.path.parent / "store" / "runs" / "20990101T000000-new").mkdir()

    done = folder.kflow("store", "gc", "--unreferenced", "--grace", "0")

    assert (done.returncode, done.stdout) == (0, "0 entries removed, 0 B\n")


def test_what_was_left_is_collected_and_counted(folder: Any) -> None:
    """Trainings that nobody goes on with, and what was set aside: `du` shows them, and they go."""
    store = folder.path.parent / "store"
    for part, name in (("checkpoints", "ab" * 32), ("damaged", "ab" * 8 + "-0123abcd")):
        (store / part / name).mkdir(parents=True)
        (store / part / name / "checkpoint.npz").write_bytes(bytes(2000))
        os.utime(store / part / name, (0, 0))
    sizes = folder.kflow("store", "du").stdout
    done = folder.kflow("store", "gc", "--older-than", "30d")

    assert re.search(r"^checkpoints +2.0 kB", sizes, re.MULTILINE)
    assert re.search(r"^damaged +2.0 kB", sizes, re.MULTILINE)
    assert "abababababababab (checkpoint) 2.0 kB" in done.stdout
    assert "abababababababab (damaged) 2.0 kB" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 entries, 1 checkpoints, 1 that were set aside removed, 4.0 kB"
    assert folder.kflow("store", "ls").stdout.count("\n") == 4


@pytest.mark.parametrize("wish", ["--max-size", "--older-than"])
def test_everything_may_go(folder: Any, wish: str) -> None:
    """Nothing is an amount and a length of time too, and needs no unit."""
    done = folder.kflow("store", "gc", wish, "0", "--grace", "0")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 entries removed")


@pytest.mark.parametrize("wish", [("--older-than", "soon"), ("--max-size", "much"), ("--max-size=1", "--grace=x")])
def test_a_policy_that_cannot_be_read(folder: Any, wish: tuple[str, ...]) -> None:
    """Is exit code 2."""
    assert folder.kflow("store", "gc", *wish).returncode == 2


@pytest.mark.parametrize("command", ["ls", "du", "verify"])
def test_a_store_that_was_named_must_be_there(make_folder: MakeFolder, command: str) -> None:
    """A slip of the pen must not look like a sound store."""
    done = make_folder().kflow("store", command, "--store", "tpyo")

    assert done.returncode == 2
    assert "there is no store" in done.stderr
