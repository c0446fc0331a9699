"""Results that are damaged, replaced or lost while a run takes them: none is kept under the fingerprint of others."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.artifacts import digest_file
from kflow.run.record import StepRecord, read_records

MakeFolder = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("kinds")

PAIR = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up}
  a: {kind: note, text: a, takes: {up: "${up}"}}
"""
TWO_TAKERS = """
kflow: 1
name: notes
params: {text: first}
steps:
  up: {kind: note, text: up, is_noisy: true}
  a: {kind: note, text: "a ${params.text}", takes: {up: "${up}"}, resources: {memory: MEMORY}}
  b: {kind: note, text: "b ${params.text}", takes: {up: "${up}"}, resources: {memory: MEMORY}}
  both: {kind: note, text: both, takes: {a: "${a}", b: "${b}"}}
"""


def stored(store: Path, step: StepRecord) -> Path:
    """Return the stored file of a note."""
    assert step.fingerprint is not None
    return store / "entries" / step.fingerprint[:2] / step.fingerprint / "file" / "note.txt"


def damage(store: Path, step: StepRecord) -> None:
    """Change a stored file, and not its size."""
    file = stored(store, step)
    file.write_bytes(b"?" * file.stat().st_size)


def wait_for(folder: Any, step: str, status: str, run: Any) -> None:
    """Wait until the newest record says so of a step, while a run goes on."""
    found = ""
    while found != status:
        assert run.poll() is None
        time.sleep(0.02)
        with contextlib.suppress(IndexError):  # there is none yet
            found = folder.statuses()[step]


def is_true(store: Path, folder: Any) -> bool:
    """Tell whether each taker of ``up`` holds, and was told of, what this holds."""
    steps = folder.records()[0].steps
    up = stored(store, steps["up"])
    takers = [steps[name] for name in ("a", "b") if name in steps]
    texts = [stored(store, step).read_text() for step in takers]
    digests = {digest for step in takers for digest in step.inputs.values()}
    return all(text.endswith(up.read_text()) for text in texts) and digests == {digest_file(up)}


@pytest.mark.parametrize("memory", ["1 MB", "900 GB"], ids=["at once", "one after the other"])
def test_a_damaged_result_that_two_steps_take_is_made_again_once(
    make_folder: MakeFolder, tmp_path: Path, memory: str
) -> None:
    """And both are made from what it holds now, though their turn came when it was thought to be whole."""
    folder = make_folder(TWO_TAKERS.replace("MEMORY", memory))
    folder.kflow("run", "w.yaml")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    done = folder.kflow("run", "w.yaml", "--set", "text=second")

    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.statuses() == dict.fromkeys(("up", "a", "b", "both"), "run")
    assert is_true(tmp_path / "store", folder)
    assert len(list((tmp_path / "store" / "damaged").iterdir())) == 1


@pytest.mark.parametrize("options", [[], ["--force"]], ids=["", "by force"])
def test_a_result_that_is_replaced_while_a_step_takes_it(
    make_folder: MakeFolder, tmp_path: Path, options: list[str]
) -> None:
    """Another run has made it anew, with other bytes: these are taken, so that two runs do not do so for ever."""
    text = """
kflow: 1
name: notes
params: {after: /}
steps:
  up: {kind: note, text: up, is_noisy: true}
  a: {kind: note, text: a, takes: {up: "${up}"}, after: "${params.after}"}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--only", "up")
    before = digest_file(stored(tmp_path / "store", folder.records()[0].steps["up"]))
    slow = folder.start("run", "w.yaml", *options, "--set", f"after={folder.path / 'go'}")
    folder.wait_until_it_runs("a")
    folder.kflow("run", "w.yaml", "--only", "up", "--force")
    folder.write("go", "")
    out, err = slow.communicate()

    assert slow.returncode == 0, out + err
    record = next(each for each in folder.records() if each.steps["a"].status == "run")
    made, up = stored(tmp_path / "store", record.steps["a"]), stored(tmp_path / "store", record.steps["up"])
    assert made.read_text() == "a" + up.read_text()
    assert list(record.steps["a"].inputs.values()) == [digest_file(up)] == [record.steps["up"].outputs["file"].digest]
    assert record.steps["up"].status == "reused"
    assert digest_file(up) != before


def test_a_result_that_is_replaced_when_nothing_takes_it_any_more(make_folder: MakeFolder) -> None:
    """The next run sees to it, and is not told by what this one has left that there is nothing to do."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up, is_noisy: true}
  a: {kind: note, text: a, takes: {up: "${up}"}}
  last: {kind: note, text: last, needs: [a], after: go}
"""
    folder = make_folder(text)
    time.sleep(0.2)  # what was written just now is not relied on anyhow
    first = folder.start("run", "w.yaml")
    folder.wait_until_it_runs("last")
    folder.kflow("run", "w.yaml", "--only", "up", "--force")
    folder.write("go", "")
    first.communicate()
    folder.kflow("run", "w.yaml")

    assert folder.statuses() == {"up": "reused", "a": "run", "last": "reused"}


def test_what_was_reused_beside_a_damaged_result_is_decided_anew(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Else the run would end with a result of two different ones, and be told to be done."""
    folder = make_folder(TWO_TAKERS.replace("a ${params.text}", "a").replace("MEMORY", "1 MB"))
    folder.kflow("run", "w.yaml")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.kflow("run", "w.yaml", "--set", "text=second")
    planned = folder.kflow("plan", "w.yaml", "--set", "text=second", "--exit-code")

    assert folder.statuses() == dict.fromkeys(("up", "a", "b", "both"), "run")
    assert is_true(tmp_path / "store", folder)
    assert planned.returncode == 0, planned.stdout


def test_a_step_that_has_read_damaged_bytes_is_done_again(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Though what it took is sound again when it ends: another step has had it made once more, with the same bytes."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up}
  a: {kind: note, text: a, takes: {up: "${up}"}, after: read, then: end}
  b: {kind: note, text: b, takes: {up: "${up}"}, needs: [first]}
  first: {kind: note, text: first, after: found}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--only", "up")
    up = folder.records()[0].steps["up"]
    run = folder.start("run", "w.yaml", "--jobs", "3")
    folder.wait_until_it_runs("a")
    time.sleep(0.3)  # it is looked at once more before the step begins
    damage(tmp_path / "store", up)
    folder.write("read", "")
    time.sleep(0.3)
    folder.write("found", "")
    wait_for(folder, "up", "run", run)
    folder.write("end", "")
    out, err = run.communicate()

    assert run.returncode == 0, out + err
    assert stored(tmp_path / "store", folder.records()[0].steps["a"]).read_text() == "aup"


def test_a_result_that_cannot_be_made_again_stops_what_takes_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    """All of it, whenever it finds out; the record does not say that the result is there."""
    text = """
kflow: 1
name: notes
params: {text: first, after: /, fails: /none}
steps:
  up: {kind: note, text: up, fails_with: "${params.fails}"}
  first: {kind: note, text: "${params.text}"}
  slow: {kind: note, text: "${params.text} slow", takes: {up: "${up}"}, after: "${params.after}"}
  a: {kind: note, text: "${params.text} a", takes: {up: "${up}"}, needs: [wait]}
  wait: {kind: note, text: "${params.text} wait", after: "${params.fails}"}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--only", "up")
    up = folder.records()[0].steps["up"]
    sets = ("text=second", f"after={folder.path / 'go'}", f"fails={folder.path / 'fails'}")
    run = folder.start("run", "w.yaml", "--keep-going", *(word for each in sets for word in ("--set", each)))
    folder.wait_until_it_runs("slow")
    damage(tmp_path / "store", up)
    folder.write("fails", "")
    wait_for(folder, "up", "failed", run)
    folder.write("go", "")
    out, err = run.communicate()

    assert (run.returncode, err) == (1, ""), out
    assert folder.statuses() == {"first": "run", "wait": "run", "up": "failed", "slow": "not run", "a": "not run"}
    assert folder.records()[0].steps["up"].outputs == {}


def test_a_step_that_was_not_chosen_and_whose_result_is_lost_fails_what_needs_it(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    """The run does not count as a success of which nothing was done."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up, to_file: up.txt}
  a: {kind: note, text: a, takes: {up: "${up}"}}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--only", "up")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    alone = folder.kflow("run", "w.yaml", "--only", "a")
    both = folder.kflow("run", "w.yaml", "--until", "a")

    assert alone.returncode == 1
    why = "it needs step 'up', which was not chosen and has no result to reuse any more"
    assert f"step 'a' (note) failed: {why}; a run with '--until a' makes both" in alone.stdout
    assert both.returncode == 0


def test_a_step_that_changes_what_it_is_given_fails(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It would be put off for ever; and nothing that it has made is kept."""
    folder = make_folder(PAIR.replace("text: a,", "text: a, spoils: true,"))
    done = folder.kflow("run", "w.yaml", "--keep-going")
    up = folder.records()[0].steps["up"]

    assert done.returncode == 1
    assert done.stdout.count("the stored result of up was damaged or removed; a is put off until it is sound") == 2
    assert "the stored result of step 'up' was changed 3 times when this step took it" in done.stdout
    assert folder.statuses() == {"up": "run", "a": "failed"}
    assert up.reason == "its stored result was damaged"
    assert not stored(tmp_path / "store", up).exists()


def test_a_result_that_was_touched_while_a_step_took_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    """HDF5 writes to a file that may be written, though it is only read; the bytes are the same."""
    folder = make_folder(PAIR.replace("text: a,", "text: a, then: end,"))
    folder.kflow("run", "w.yaml", "--only", "up")
    run = folder.start("run", "w.yaml")
    folder.wait_until_it_runs("a")
    time.sleep(0.3)  # it is looked at once more before the step begins
    stored(tmp_path / "store", folder.records()[0].steps["up"]).touch()
    folder.write("end", "")
    out, err = run.communicate()

    assert run.returncode == 0, out + err
    assert "put off" not in out


def test_a_step_that_gives_what_it_takes(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It has the fingerprint of the one before it, and does not wait for itself."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up}
  b: {kind: note, text: "", takes: {up: "${up}"}}
  c: {kind: note, text: "", takes: {up: "${b}"}}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml")
    damage(tmp_path / "store", folder.records()[0].steps["b"])
    alone = folder.kflow("run", "w.yaml", "--only", "c", "--force")
    both = folder.kflow("run", "w.yaml", "--from", "b", "--force")

    assert alone.returncode == 1
    assert "the stored result of step 'b' was damaged or removed; a run with '--until b' makes it again" in alone.stdout
    assert both.returncode == 0


def test_bytes_that_were_put_back_while_a_step_ran(make_folder: MakeFolder, tmp_path: Path) -> None:
    """From a backup, with their old time: what the step has read were others."""
    folder = make_folder(PAIR.replace("text: a,", "text: a, after: read, then: end,"))
    folder.kflow("run", "w.yaml", "--only", "up")
    up = stored(tmp_path / "store", folder.records()[0].steps["up"])
    shutil.copy2(up, folder.path / "backup")
    run = folder.start("run", "w.yaml")
    folder.wait_until_it_runs("a")
    time.sleep(0.3)  # it is looked at once more before the step begins
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.write("read", "")
    time.sleep(0.3)
    shutil.copy2(folder.path / "backup", folder.path / "again")
    (folder.path / "again").rename(up)
    folder.write("end", "")
    out, err = run.communicate()

    assert run.returncode == 0, out + err
    assert "the stored result of up was changed, and is whole again; a is put off" in out
    assert stored(tmp_path / "store", folder.records()[0].steps["a"]).read_text() == "aup"


def test_a_step_that_takes_many_damaged_results(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It is not to blame for that, however many they are."""
    steps = [f'  up{n}: {{kind: note, text: "up{n}"}}\n' for n in range(4)]
    takes = ", ".join(f'u{n}: "${{up{n}}}"' for n in range(4))
    text = f"kflow: 1\nname: notes\nsteps:\n{''.join(steps)}  a: {{kind: note, text: a, takes: {{{takes}}}}}\n"
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", *(word for n in range(4) for word in ("--only", f"up{n}")))
    for n in range(4):
        damage(tmp_path / "store", folder.records()[0].steps[f"up{n}"])
    done = folder.kflow("run", "w.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path / "store", folder.records()[0].steps["a"]).read_text() == "aup0up1up2up3"


def test_a_damaged_result_that_a_remote_has_is_pulled(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Though it was not chosen, and could not be run."""
    folder = make_folder(PAIR)
    folder.kflow("run", "w.yaml", "--only", "up", "--remote", str(tmp_path / "remote"))
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    done = folder.kflow("run", "w.yaml", "--only", "a", "--remote", str(tmp_path / "remote"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(tmp_path / "store", folder.records()[0].steps["a"]).read_text() == "aup"


def test_a_run_that_keeps_going_goes_on_pulling(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What another branch needs, and was not chosen, is not left in the remote because of a failure."""
    bad = "  bad: {kind: note, text: bad, fails_with: w.yaml}\n"
    folder = make_folder(PAIR.replace("steps:\n", f"steps:\n{bad}"))
    remote = ("--remote", str(tmp_path / "remote"))
    folder.kflow("run", "w.yaml", "--only", "up", *remote)
    chosen = ("--only", "bad", "--only", "a", "--jobs", "1", "--store", str(tmp_path / "new"))
    folder.kflow("run", "w.yaml", *chosen, *remote, "--keep-going")
    (record,) = read_records(tmp_path / "new")

    assert {name: step.status for name, step in record.steps.items()} == {"bad": "failed", "up": "reused", "a": "run"}


def test_verifying_a_step_whose_input_is_damaged_says_what_helps(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The store that is verified is not written to."""
    folder = make_folder(PAIR)
    folder.kflow("run", "w.yaml")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    whole = folder.records()[0].id
    first = folder.kflow("verify", whole, "--only", "a")
    folder.kflow("run", "w.yaml", "--only", "up", "--force")
    second = folder.kflow("verify", whole, "--only", "a")

    assert first.returncode == 1
    advice = "a run with '--only up --force' and the params of the run that is verified makes it again"
    assert f"the stored result of step 'up' was damaged or removed; {advice}" in first.stdout
    assert second.returncode == 0, second.stdout


def test_twins_that_are_forced_are_run_once(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Else the second would replace what others have taken of the first."""
    text = """
kflow: 1
name: notes
steps:
  one: {kind: note, text: up, is_noisy: true}
  two: {kind: note, text: up, is_noisy: true, needs: [c]}
  c: {kind: note, text: c, takes: {up: "${one}"}}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml")
    folder.kflow("run", "w.yaml", "--force")
    steps = folder.records()[0].steps

    assert {name: step.status for name, step in steps.items()} == {"one": "run", "c": "run", "two": "reused"}
    assert steps["two"].reason == "the same as step 'one' of this run"
    assert steps["one"].outputs == steps["two"].outputs
    assert steps["one"].outputs["file"].digest == digest_file(stored(tmp_path / "store", steps["one"]))


FOUND_LATE = """
kflow: 1
name: notes
params: {noisy: false}
steps:
  up: {kind: note, text: up, is_noisy: "${params.noisy}"}
  m: {kind: note, text: m, takes: {up: "${up}"}, after: go_m}
  a: {kind: note, text: a, takes: {m: "${m}"}, after: go_a, fails_with: fails}
  b: {kind: note, text: b, takes: {up: "${up}"}, needs: [first]}
  first: {kind: note, text: first, after: found}
"""


def test_what_was_run_is_told_as_run_though_it_was_decided_anew(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What it was made of was damaged afterwards, and made again with the same bytes."""
    folder = make_folder(FOUND_LATE, {"go_m": "", "go_a": ""})
    run = folder.start("run", "w.yaml", "--jobs", "3")
    wait_for(folder, "a", "run", run)
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.write("found", "")
    out, err = run.communicate()
    a = folder.records()[0].steps["a"]

    assert run.returncode == 0, out + err
    assert folder.statuses() == dict.fromkeys(("up", "m", "a", "first", "b"), "run")
    assert "a (note)" in out
    assert out.count("reused: made by this run, and still true") == 2
    assert a.duration is not None


def test_what_was_run_is_told_as_run_though_it_is_no_number(make_folder: MakeFolder, tmp_path: Path) -> None:
    """NaN is not equal to itself, and the same result all the same."""
    more = "  loss: {kind: measure, value: .nan, needs: [m]}\n  twin: {kind: note, text: up, needs: [loss, first]}\n"
    folder = make_folder(FOUND_LATE + more, {"go_m": "", "go_a": ""})
    run = folder.start("run", "w.yaml", "--jobs", "3")
    wait_for(folder, "a", "run", run)
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.write("found", "")
    out, err = run.communicate()

    assert run.returncode == 0, out + err
    assert folder.statuses()["loss"] == "run"


def test_a_failure_of_a_step_whose_input_counts_no_more_does_not_count(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It is done again with what its input is by then."""
    folder = make_folder(FOUND_LATE, {"go_m": ""})
    folder.kflow("run", "w.yaml", "--until", "m", "--set", "noisy=true")
    (folder.path / "go_m").unlink()
    run = folder.start("run", "w.yaml", "--jobs", "3", "--set", "noisy=true")
    folder.wait_until_it_runs("a")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.write("found", "")
    folder.wait_until_it_runs("m")
    folder.write("fails", "")
    folder.write("go_a", "")
    wait_for(folder, "a", "not run", run)
    (folder.path / "fails").unlink()
    folder.write("go_m", "")
    out, err = run.communicate()
    steps = folder.records()[0].steps

    assert run.returncode == 0, out + err
    assert list(steps["a"].inputs.values()) == [steps["m"].outputs["file"].digest]
    assert list(steps["m"].inputs.values()) == [steps["up"].outputs["file"].digest]


def test_what_was_done_stays_done_in_a_run_that_has_failed(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Nothing is made again in it, so nothing is taken back; the next run sees to the damage."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up}
  a: {kind: note, text: a, takes: {up: "${up}"}}
  bad: {kind: note, text: bad, after: fails, fails_with: fails}
  slow: {kind: note, text: slow, takes: {up: "${up}"}, then: go}
"""
    folder = make_folder(text)
    run = folder.start("run", "w.yaml", "--jobs", "3")
    wait_for(folder, "a", "run", run)
    folder.wait_until_it_runs("slow")
    time.sleep(0.3)  # it is looked at once more before the step begins
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    folder.write("fails", "")
    wait_for(folder, "bad", "failed", run)
    folder.write("go", "")
    out, err = run.communicate()
    failed = folder.statuses()
    (folder.path / "fails").unlink()
    folder.write("fails", "")
    folder.kflow("run", "w.yaml", "--keep-going")

    assert run.returncode == 1, out + err
    assert failed == {"up": "run", "a": "run", "bad": "failed", "slow": "not run"}
    assert folder.statuses() == {"up": "run", "a": "reused", "bad": "failed", "slow": "run"}


@pytest.mark.parametrize("chosen", [[], ["--only", "a", "--only", "bad"]], ids=["all", "without the lost one"])
def test_a_run_that_has_failed_waits_for_no_input(make_folder: MakeFolder, tmp_path: Path, chosen: list[str]) -> None:
    """Another run makes it anew, and may take its time; nothing is advised that would not help."""
    text = """
kflow: 1
name: notes
params: {after: /}
steps:
  up: {kind: note, text: up, after: "${params.after}"}
  a: {kind: note, text: a, takes: {up: "${up}"}, then: end}
  bad: {kind: note, text: bad, after: fails, fails_with: fails}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--only", "up")
    run = folder.start("run", "w.yaml", "--jobs", "3", *chosen)
    folder.wait_until_it_runs("a")
    time.sleep(0.3)  # it is looked at once more before the step begins
    other = folder.start("run", "w.yaml", "--only", "up", "--force", "--set", f"after={folder.path / 'go'}")
    folder.wait_until_it_runs("up")
    damage(tmp_path / "store", folder.records()[1].steps["up"])
    folder.write("end", "")
    time.sleep(0.5)
    folder.write("fails", "")
    out, err = run.communicate(timeout=60)
    is_waiting = other.poll() is None
    folder.write("go", "")
    other.communicate()

    assert run.returncode == 1, out + err
    assert "a waits for a result that it takes, which is being made anew" in out
    assert is_waiting
    assert folder.records()[1].steps["a"].status == "not run"
    assert "makes it again" not in out


def test_the_step_that_has_lost_its_result_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    """And not another one between, whose result is there."""
    text = """
kflow: 1
name: notes
steps:
  up: {kind: note, text: up, to_file: up.txt}
  mid: {kind: note, text: mid, takes: {up: "${up}"}}
  a: {kind: note, text: a, takes: {mid: "${mid}"}}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml", "--until", "mid")
    damage(tmp_path / "store", folder.records()[0].steps["up"])
    alone = folder.kflow("run", "w.yaml", "--only", "a")

    assert alone.returncode == 1
    assert "it needs step 'up', which was not chosen and has no result to reuse any more" in alone.stdout


def test_a_broken_promise_is_put_down_to_the_step_that_broke_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What ran beside it was interrupted, and says nothing of it."""
    text = """
kflow: 1
name: notes
params: {after: /}
steps:
  noisy: {kind: note, text: a, is_noisy: true}
  beside: {kind: note, text: c, after: "${params.after}"}
"""
    folder = make_folder(text)
    folder.kflow("run", "w.yaml")
    folder.kflow("lock", "w.yaml")
    environ = {"KFLOW_STORE": str(tmp_path / "new")}
    again = folder.kflow("run", "w.yaml", "--locked", "--set", f"after={folder.path / 'go'}", **environ)
    (record,) = read_records(tmp_path / "new")
    steps = record.steps

    assert again.returncode == 1
    assert "output noisy.file is" in again.stderr
    assert {name: step.status for name, step in steps.items()} == {"noisy": "run", "beside": "interrupted"}
    assert "output noisy.file is" in (steps["noisy"].error or "")
    assert steps["beside"].error is None


@pytest.mark.parametrize("waits", ["for its twin", "for another run"])
def test_a_run_that_has_failed_begins_no_step(make_folder: MakeFolder, waits: str) -> None:
    """Though one has waited since before for who makes the same, and they are done."""
    text = """
kflow: 1
name: notes
params: {after: go}
steps:
  same: {kind: note, text: same, after: "${params.after}"}
  twin: {kind: note, text: same, after: "${params.after}"}
  bad: {kind: note, text: bad, after: fails, fails_with: fails}
"""
    folder = make_folder(text)
    other = folder.start("run", "w.yaml", "--only", "same", "--set", "after=later")
    folder.wait_until_it_runs("same")
    run = folder.start("run", "w.yaml", "--jobs", "3", *(["--force"] if waits == "for its twin" else []))
    folder.wait_until_it_runs("bad")
    if waits == "for its twin":
        folder.write("later", "")
        other.wait(60)
    time.sleep(0.5)
    folder.write("fails", "")
    time.sleep(0.5)
    folder.write("go", "")
    out, err = run.communicate(timeout=60)
    folder.write("later", "")
    other.communicate()

    assert run.returncode == 1, out + err
    statuses = next(each for each in folder.records() if "bad" in each.steps and each.steps["bad"].status == "failed")
    begun = 1 if waits == "for its twin" else 0
    assert [statuses.steps[name].status for name in ("same", "twin")].count("not run") == 2 - begun
    assert out.count("starts: ") == 1 + begun


def test_a_result_that_was_moved_away_and_back_while_a_step_took_it(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The step may have read what lay there meanwhile, and is done again."""
    folder = make_folder(PAIR.replace('"${up}"}', '"${up}"}, after: go, then: end'))
    folder.kflow("run", "w.yaml", "--only", "up")
    file = stored(tmp_path / "store", folder.records()[0].steps["up"])
    run = folder.start("run", "w.yaml")
    folder.wait_until_it_runs("a")
    time.sleep(0.3)  # it is looked at once more before the step begins
    file.rename(tmp_path / "away")
    file.write_text("??")
    folder.write("go", "")
    time.sleep(0.5)
    (tmp_path / "away").replace(file)
    folder.write("end", "")
    out, err = run.communicate(timeout=60)

    assert run.returncode == 0, out + err
    assert "the stored result of up was changed, and is whole again" in out
    assert stored(tmp_path / "store", folder.records()[0].steps["a"]).read_text() == "aup"


def test_a_disk_that_spoils_what_is_stored_is_given_up_soon(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run has made itself is not made twenty times."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "sitecustomize.py").write_text("""
from kflow.store.store import Store

commit = Store.commit

def spoil(self, *given, **more):
    entry = commit(self, *given, **more)
    file = entry.folder / "file" / "note.txt"
    if file.read_text() == "up":
        file.write_text("??")
    return entry

Store.commit = spoil
""")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'disk'}:{Path(__file__).parents[2]}", prepend=":")
    folder = make_folder(PAIR)
    done = folder.kflow("run", "w.yaml")

    assert done.returncode == 1
    assert done.stdout.count("up (note)                       starts") == 3
    assert "the stored result of step 'up' was changed 3 times when this step took it" in done.stdout
