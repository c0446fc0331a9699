"""Every state in which a power cut could leave a small run, and what is made of it: `make soak`.

    python -m tests.soak.powerloss [--jobs N] [--chances N] [SCENARIO ...]

What a run writes is recorded, with all data. After each recorded call the power goes: the disk is then laid down as a
model of it says (`powerloss_disk`), in six plain forms and some by chance. Each state is audited; a second run must end
right; and a step whose end had been written down must not be done again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kflow.run.record import read_records
from tests.soak import store_audit, strace
from tests.soak.killpoints import SCENARIOS, Scenario, put_in_place, second_run, what_is_right
from tests.soak.powerloss_disk import Disk, lay_down, take_up
from tests.soak.small_run import REPOSITORY, SmallRun

STORIES = ("first run", "damaged results")


@dataclass(frozen=True, slots=True)
class State:
    """What a power cut left, after some call."""

    scenario: Scenario
    place: int
    form: str
    call: str
    tree: dict[str, bytes | None]
    done: frozenset[str]
    """The steps whose end was on the disk."""

    def __str__(self) -> str:
        return f"{self.scenario.name}: {self.form} after call {self.place}, {self.call}"


def record(scenario: Scenario, run: SmallRun) -> tuple[dict[str, bytes | None], list[strace.Call]]:
    """Return what is on the disk before a run, and the calls by which the run changes it."""
    put_in_place(scenario, run)
    before = take_up(run.root, (run.here, run.store))
    log = run.root / "logs" / "strace"
    log.parent.mkdir()
    done = run.watched(strace.watching(log, everything=True), scenario.command, in_worker=False)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = strace.read_changes(log, run.root)
    return before, [call for call in calls if not any("/logs/strace" in path for path in call.paths)]


def list_states(scenario: Scenario, run: SmallRun, chances: int) -> list[State]:
    """Return every state that a power cut could leave, each once."""
    before, calls = record(scenario, run)
    disk = Disk(run.root)
    for path in sorted(before):
        disk.add(str(run.root / path), before[path])
    found: dict[tuple[object, ...], State] = {}
    done: frozenset[str] = frozenset()
    for place, call in enumerate(calls):
        disk.do(call)
        if call.name == "fsync" and call.paths[0].endswith("journal.jsonl"):
            node = disk.find(call.paths[0])
            assert node is not None, call
            done = _done(node.synced)
        what = f"{call.name} {call.paths[-1].removeprefix(str(run.root))}"
        for form, tree in disk.states(chances, place):
            state = State(scenario, place, form, what, tree, done)
            found.setdefault((done, *sorted(tree.items())), state)
    _, last = next(disk.states(0, 0))
    assert last == take_up(run.root, (run.here, run.store)), "the model has lost its way"
    return list(found.values())


def _done(journal: bytes) -> frozenset[str]:
    said = {note["step"]: note["state"]["status"] for note in map(json.loads, journal.splitlines())}
    return frozenset(step for step, status in said.items() if status == "run")


def judge(state: State, run: SmallRun, right: dict[str, object]) -> list[str]:
    """Lay a state down, and return what is wrong with it or with what is made of it."""
    _lay_down(state, run)
    found = []
    if state.scenario.name == "first run":
        found += [f"corrupt, before: {each}" for each in store_audit.find_faults(run.store)]
        found += _wrongly_done(run)
    if run.exported.exists() and run.exported.read_bytes() != right["export"]:
        found.append("corrupt: the user's file holds other bytes")
    found += second_run(run, right)
    if not found:
        statuses = store_audit.statuses(run.store)
        found += [f"lost: step {name!r} is done again" for name in sorted(state.done) if statuses[name] != "reused"]
    return found


def _lay_down(state: State, run: SmallRun) -> None:
    for folder in (run.here, run.store):
        shutil.rmtree(folder, ignore_errors=True)
    lay_down(state.tree, run.root)
    # It lay there long before, and its time is part of what is known of it.
    shutil.copy2(REPOSITORY / "workflows" / "data" / "digits.h5", run.here / "digits.h5")


def _wrongly_done(run: SmallRun) -> Iterator[str]:
    """Yield the steps that a record says are done, and whose result is not there."""
    there = {folder.name for folder in run.store.glob("entries/*/*")}
    for each in read_records(run.store):
        for name, step in each.steps.items():
            if step.status == "run" and step.fingerprint not in there:
                yield f"corrupt: the record says that {name!r} was run, and its result is not there"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all states, and print what came of them."""
    parser = argparse.ArgumentParser(description="the states in which a power cut could leave a run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--chances", type=int, default=3, help="states by chance after each call")
    parser.add_argument("--every", type=int, default=1, help="take each Nth state only")
    parser.add_argument("scenarios", nargs="*", default=list(STORIES), metavar="SCENARIO", help=", ".join(STORIES))
    options = parser.parse_args(arguments)
    if not strace.is_there():
        print(strace.ADVICE, file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory(prefix="kflow-soak-") as scratch:

        def judge_share(number: int) -> list[tuple[State, list[str]]]:
            """Judge each so many-th state, in a folder of its own: paths are part of what is stored."""
            run = SmallRun(Path(scratch) / f"run{number}")
            right = what_is_right(run)
            states = [
                state for name in options.scenarios for state in list_states(SCENARIOS[name], run, options.chances)
            ]
            share, judged = states[:: options.every][number :: options.jobs], []
            for state in share:
                judged.append((state, judge(state, run, right)))
                if len(judged) % 100 == 0:
                    print(f"{len(judged)} of {len(share)} states", file=sys.stderr)  # noqa: T201
            return judged

        with ThreadPoolExecutor(options.jobs) as pool:
            judged = [each for share in pool.map(judge_share, range(options.jobs)) for each in share]
    return _tell(judged)


def _tell(judged: list[tuple[State, list[str]]]) -> int:
    columns = ("states", "corrupt", "stuck", "lost", "left behind")
    counts: dict[tuple[str, str], Counter[str]] = {}
    for state, faults in judged:
        words = {fault.partition(":")[0].partition(",")[0] for fault in faults}
        key = (state.scenario.name, state.form.partition(" ")[0])
        counts.setdefault(key, Counter()).update(["states", *words])
    print(f"{'scenario':20}{'form':10}" + "".join(f"{column:>14}" for column in columns))  # noqa: T201
    for (name, form), found in [*counts.items(), (("all", ""), sum(counts.values(), Counter()))]:
        print(f"{name:20}{form:10}" + "".join(f"{found[column]:>14}" for column in columns))  # noqa: T201
    for state, faults in judged:
        if faults:
            print(f"\n{state}", *faults, sep="\n  ")  # noqa: T201
    return 1 if any(faults for _, faults in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
