"""Faults at every system call of small runs that changes a file, and what is left: `make soak`.

    python -m tests.soak.killpoints [--jobs N] [SCENARIO ...]

For each scenario the calls are counted in an undisturbed run. Then it is done again for each call and each of three
faults: the process is killed there (SIGKILL), or the call fails (ENOSPC, EIO). What is left is audited, a second run
must end right with the bytes of an undisturbed one, and what it leaves is audited as well.
"""

import argparse
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kflow.store.store import Store
from kflow.store.upkeep import inspect
from tests.soak import store_audit, strace
from tests.soak.small_run import STEPS, SmallRun

FAULTS = {"KILL": "", "ENOSPC": "No space left on device", "EIO": "Input/output error"}
"""The faults, with the words of the system for them."""
_COUNTS = 5  # how often the calls are counted anew to meet a fault at its place


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to a store, and the state in which it is found."""

    name: str
    prepare: Callable[[SmallRun], None]
    command: tuple[str, ...]
    in_worker: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A fault at a system call."""

    scenario: Scenario
    call: str
    number: int
    fault: str
    where: str
    turn: int
    """Which of the calls of this name at this place it is, from 0."""

    def __str__(self) -> str:
        return f"{self.scenario.name}: {self.fault} at {self.call} {self.number} of {self.where}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a fault: nothing where it was borne as it should be."""

    point: Point
    faults: tuple[str, ...]
    was_met: bool
    is_borne: bool
    """Whether the command succeeded all the same."""


def _from_nothing(run: SmallRun) -> None:
    del run


def _complete(run: SmallRun) -> None:
    done = run.kflow("run", "w.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def _damaged(run: SmallRun) -> None:
    """Leave a flipped byte in a result that the user wants to have, and cut another short."""
    _complete(run)
    (page,) = run.store.glob("entries/*/*/page/page.txt")
    page.write_bytes(b"X" + page.read_bytes()[1:])
    (array,) = run.store.glob("entries/*/*/array/array.npy")
    array.write_bytes(array.read_bytes()[:-1])
    run.exported.unlink()


RUN = ("run", "w.yaml")
SCENARIOS = {
    each.name: each
    for each in (
        Scenario("first run", _from_nothing, RUN),
        Scenario("first run, worker", _from_nothing, RUN, in_worker=True),
        Scenario("damaged results", _damaged, RUN),
        Scenario("forced run", _complete, (*RUN, "--force", "--only", "page")),
        Scenario("verify", _damaged, ("store", "verify")),
        Scenario("gc", _complete, ("store", "gc", "--max-size", "1000", "--grace", "0")),
    )
}


def list_points(scenario: Scenario, run: SmallRun) -> list[Point]:
    """Count the calls of an undisturbed run, and return a point for each with each fault."""
    put_in_place(scenario, run)
    log = run.root / "strace.log"
    done = run.watched(strace.watching(log), scenario.command, in_worker=scenario.in_worker)
    expected = 1 if scenario.command[-1] == "verify" else 0
    assert done.returncode == expected, done.stdout + done.stderr
    calls = [
        call
        for folder in (run.store, run.here)
        for call in strace.changes(strace.read_log(log), folder)
        if folder == run.store or not any(Path(path).is_relative_to(run.store) for path in call.paths)
    ]
    if scenario.name == "first run":
        renamed = [call for call in calls if call.name.startswith("rename") and call.result == 0]
        published = [call for call in renamed if "/entries/" in call.paths[-1]]
        assert len(published) == len(STEPS), "not all happens in the thread that is watched"
    turns: Counter[tuple[str, str]] = Counter()
    points = []
    for call in calls:
        key = (call.name, _place(call, run))
        for fault in FAULTS:
            if not (fault == "KILL" and call.name == "close"):  # the same as before the next call
                points.append(Point(scenario, call.name, call.number, fault, key[1], turns[key]))
        turns[key] += 1
    return points


def _place(call: strace.Call, run: SmallRun) -> str:
    """Name what a call touches so that it is the same in every run."""
    path = call.paths[-1].removeprefix(f"{run.root}/").removesuffix("(deleted)")
    path = re.sub(r"[0-9a-f]{64}", "ENTRY", path)
    path = re.sub(r"[0-9a-f]{32}", "*", path)
    path = re.sub(r"damaged/[^/]+", "damaged/*", path)
    return re.sub(r"runs/[^/]+", "runs/RUN", path)


def put_in_place(scenario: Scenario, run: SmallRun) -> None:
    """Bring folder and store to the state that a scenario begins with."""
    template = run.root.with_name(f"{run.root.name} {scenario.name}")
    if not template.exists():
        run.lay_out()
        scenario.prepare(run)
        run.root.rename(template)
    shutil.rmtree(run.root, ignore_errors=True)
    shutil.copytree(template, run.root)


def meet(point: Point, run: SmallRun, right: dict[str, object]) -> Verdict:
    """Let a run meet a fault, and judge what is left.

    Where the fault came elsewhere, the calls are counted anew: a busy machine lets the journal be written in more or
    fewer parts, and a package that is installed meanwhile lets Python open more files.
    """
    verdict = _meet_once(point, run, right)
    same = (point.call, point.fault, point.where, point.turn)
    for _ in range(_COUNTS):
        if verdict.was_met:
            break
        for each in list_points(point.scenario, run):
            if (each.call, each.fault, each.where, each.turn) == same:
                verdict = _meet_once(each, run, right)
    return verdict


def _meet_once(point: Point, run: SmallRun, right: dict[str, object]) -> Verdict:
    scenario, log = point.scenario, run.root / "strace.log"
    put_in_place(scenario, run)
    found: list[str] = []
    prefix = strace.breaking(log, point.call, point.number, point.fault)
    try:
        done = run.watched(prefix, scenario.command, in_worker=scenario.in_worker)
    except subprocess.TimeoutExpired:
        return Verdict(point, ("stuck: the faulty run",), was_met=True, is_borne=False)
    was_met = _was_met(point, run, log, done.returncode)
    found += _faults_of_command(point, done)
    is_damaged = scenario.prepare is _damaged
    found += [f"corrupt, before: {each}" for each in store_audit.find_faults(run.store) if not is_damaged]
    found += _faults_of_export(run, right)
    found += second_run(run, right)
    return Verdict(point, tuple(found), was_met, is_borne=done.returncode == 0)


def _was_met(point: Point, run: SmallRun, log: Path, code: int) -> bool:
    """Tell whether the fault came at the call that it was meant for."""
    calls = [call for call in strace.read_log(log) if call.number == point.number and call.name == point.call]
    at_right_place = any(_place(call, run) == point.where for call in calls)
    was_killed = code == -9 or point.scenario.in_worker
    return at_right_place and (was_killed if point.fault == "KILL" else calls[0].is_injected)


def _faults_of_command(point: Point, done: "subprocess.CompletedProcess[str]") -> Iterator[str]:
    said = done.stdout + done.stderr
    if "Traceback" in said or "has a bug" in said:
        yield f"a traceback reached the user: {said[-400:]}"
    if point.fault != "KILL" or point.scenario.in_worker:
        if done.returncode not in {0, 1}:
            yield f"exit code {done.returncode}: {said[-400:]}"
        elif done.returncode == 1 and point.scenario.name != "verify" and FAULTS[point.fault] not in said:
            yield f"the reason is not told: {said[-400:]}"


def _faults_of_export(run: SmallRun, right: dict[str, object]) -> Iterator[str]:
    if run.exported.exists() and run.exported.read_bytes() != right["export"]:
        yield "corrupt: the user's file holds other bytes"


def second_run(run: SmallRun, right: dict[str, object]) -> Iterator[str]:
    """Run again, undisturbed, and yield what is not as it should be."""
    store_audit.age_litter(run.store, run.here)
    try:
        done = run.kflow("run", "w.yaml")
    except subprocess.TimeoutExpired:
        yield "stuck: the second run does not end"
        return
    if done.returncode != 0:
        yield f"stuck: the second run fails: {(done.stdout + done.stderr)[-400:]}"
        return
    if not run.exported.exists() or run.exported.read_bytes() != right["export"]:
        yield "corrupt: the second run gives the user other bytes"
    if store_audit.digests(run.store) != right["digests"]:
        yield "corrupt: the second run has other digests"
    found = [each for each in inspect(Store(run.store)) if each.damaged or each.unreadable]
    yield from (f"corrupt: 'kflow store verify' would find {each}" for each in found)
    yield from (f"corrupt, after: {each}" for each in store_audit.find_faults(run.store))
    yield from (f"left behind: {each}" for each in store_audit.litter(run.store, run.here))


def what_is_right(run: SmallRun) -> dict[str, object]:
    """Return what an undisturbed run gives."""
    run.lay_out()
    _complete(run)
    assert not store_audit.find_faults(run.store)
    return {"export": run.exported.read_bytes(), "digests": store_audit.digests(run.store)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Meet all points, and print what came of them."""
    parser = argparse.ArgumentParser(description="faults at every system call that changes a file")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="take each Nth point only")
    parser.add_argument("--call", help="take the points at this system call only")
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    options = parser.parse_args(arguments)
    if not strace.is_there():
        print(strace.ADVICE, file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory(prefix="kflow-soak-") as scratch:
        runs: queue.Queue[SmallRun] = queue.Queue()
        for number in range(options.jobs):
            runs.put(SmallRun(Path(scratch) / f"run{number}"))
        first = runs.get()
        right = what_is_right(first)
        points = [point for name in options.scenarios for point in list_points(SCENARIOS[name], first)]
        points = [point for point in points if options.call in {None, point.call}]
        runs.put(first)

        def meet_one(point: Point) -> Verdict:
            run = runs.get()
            try:
                return meet(point, run, right)
            finally:
                runs.put(run)

        chosen, verdicts = points[:: options.every], []
        with ThreadPoolExecutor(options.jobs) as pool:
            for verdict in pool.map(meet_one, chosen):
                verdicts.append(verdict)
                if len(verdicts) % 100 == 0:
                    print(f"{len(verdicts)} of {len(chosen)} points", file=sys.stderr)  # noqa: T201
    return _tell(verdicts)


def _tell(verdicts: list[Verdict]) -> int:
    print(f"{'scenario':20}{'fault':8}{'points':>8}{'met':>8}{'borne':>8}{'corrupt':>9}{'stuck':>8}{'other':>8}")  # noqa: T201
    groups: dict[tuple[str, str], Counter[str]] = {}
    for verdict in verdicts:
        counts = groups.setdefault((verdict.point.scenario.name, verdict.point.fault), Counter())
        words = {fault.partition(":")[0].partition(",")[0] for fault in verdict.faults}
        counts.update({"points": 1, "met": verdict.was_met, "borne": verdict.is_borne})
        counts.update({"corrupt": "corrupt" in words, "stuck": "stuck" in words})
        counts.update({"other": bool(words - {"corrupt", "stuck"})})
    columns = (("points", 8), ("met", 8), ("borne", 8), ("corrupt", 9), ("stuck", 8), ("other", 8))
    for (name, fault), counts in groups.items():
        print(f"{name:20}{fault:8}" + "".join(f"{counts[column]:>{width}}" for column, width in columns))  # noqa: T201
    total = sum(groups.values(), Counter())
    print(f"{'all':28}" + "".join(f"{total[column]:>{width}}" for column, width in columns))  # noqa: T201
    bad = [verdict for verdict in verdicts if verdict.faults or not verdict.was_met]
    for verdict in bad:
        print(f"\n{verdict.point}" + ("" if verdict.was_met else " (not met)"))  # noqa: T201
        for fault in verdict.faults:
            print(f"  {fault}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
