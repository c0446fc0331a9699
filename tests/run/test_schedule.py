"""Steps start in order, when all that they need is done and the machine has room for them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.parallel.devices import visible_gpus
from kflow.run.schedule import Capacity, Demand, Schedule

DEMANDS = st.builds(Demand, st.integers(1, 6), st.integers(0, 8), st.integers(0, 3))


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw steps, each of which may need earlier ones."""
    count = draw(st.integers(0, 12))
    return {
        f"s{i}": [f"s{j}" for j in draw(st.lists(st.integers(0, i - 1), max_size=4))] if i else [] for i in range(count)
    }


@given(graphs(), st.randoms(use_true_random=False))
def test_every_step_starts_once_and_after_its_needs(needs: dict[str, list[str]], random: object) -> None:
    """Whatever the order in which running steps end."""
    schedule, running, done = Schedule(needs), [], []
    while True:
        for name in schedule.ready():
            assert set(needs[name]) <= set(done)
            schedule.start(name)
            running.append(name)
        if not running:
            break
        done.append(running.pop(random.randrange(len(running))))  # type: ignore[attr-defined]
        schedule.finish(done[-1], good=True)

    assert sorted(done) == sorted(needs)


@given(graphs(), st.data())
def test_what_hangs_on_a_failure_never_starts(needs: dict[str, list[str]], data: st.DataObject) -> None:
    """And everything else does."""
    failing = set(data.draw(st.sets(st.sampled_from(sorted(needs))))) if needs else set()
    schedule, started = Schedule(needs), []
    while ready := list(schedule.ready()):
        for name in ready:
            started.append(name)
            schedule.start(name)
            schedule.finish(name, good=name not in failing)

    lost: set[str] = set()
    for name, before in needs.items():
        if (failing | lost) & set(before):
            lost.add(name)
    assert set(started) == set(needs) - lost


@given(graphs(), st.randoms(use_true_random=False))
def test_what_is_done_again_is_waited_for(needs: dict[str, list[str]], random: Any) -> None:
    """Nothing starts that takes it; in the end all is done but for what failed, and what hangs on that."""
    schedule, taken, left = Schedule(needs), {}, 8
    done: dict[str, int] = {}  # the number of times that each was done, less than zero while it is done again
    failed: set[str] = set()
    while True:
        for name in schedule.ready():
            assert set(needs[name]) <= {each for each, count in done.items() if count > 0}
            schedule.start(name)
            taken[name] = {each: done[each] for each in needs[name]}
        if not taken:
            break
        name = random.choice(sorted(taken))
        before = taken.pop(name)
        if before and left and random.random() < 0.5:
            left -= 1
            damaged = random.choice(sorted(before))
            if done[damaged] == before[damaged]:  # else it is, or was, done again already
                done[damaged] = -done[damaged]
                schedule.redo(damaged)
            schedule.put_off(name)
        elif random.random() < 0.1:
            failed.add(name)
            schedule.finish(name, good=False)
        else:
            done[name] = abs(done.get(name, 0)) + 1
            schedule.finish(name, good=True)

    lost = set(failed)
    for name, before in needs.items():
        if lost & set(before):
            lost.add(name)
    assert {name for name, count in done.items() if count > 0} >= set(needs) - lost
    assert not failed & {name for name, count in done.items() if count > 0}


@given(DEMANDS, st.lists(DEMANDS, max_size=4), st.integers(1, 8), st.integers(0, 4))
def test_the_machine_is_never_given_away_twice(new: Demand, running: list[Demand], cpus: int, gpus: int) -> None:
    """Processors, memory and GPUs suffice for all that run; only a lone step may want more than there is."""
    capacity = Capacity(cpus, 10, tuple(map(str, range(gpus))))

    if capacity.admits(new, running):
        everything = [new, *running]
        assert sum(each.gpus for each in everything) <= gpus
        if running:
            assert sum(each.cpus for each in everything) <= cpus
            assert sum(each.memory for each in everything) <= 10


def test_a_number_of_jobs_takes_the_place_of_the_processors() -> None:
    """The user knows best; GPUs and memory are counted all the same."""
    capacity = Capacity(2, 100, ("0",), jobs=3)

    assert capacity.admits(Demand(cpus=4), [Demand(4), Demand(4)])
    assert not capacity.admits(Demand(), [Demand(), Demand(), Demand()])
    assert not capacity.admits(Demand(gpus=1), [Demand(gpus=1)])
    assert not capacity.admits(Demand(memory=60), [Demand(memory=60)])


UUIDS = ["GPU-aa11-01", "GPU-bb22-02", "GPU-cc33-03"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a root with what a driver shows of three GPUs."""
    root = tmp_path_factory.mktemp("driver")
    for number, uuid in enumerate(UUIDS):
        folder = root / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"GPU UUID: \t {uuid}\n")
    return root


SETTINGS = [None, "", "-1", "0,2", "2,1,0", "GPU-cc33-03,GPU-aa11-01", "GPU-bb", "0,GPU-bb", "MIG-1234", "1,MIG-1234,0"]


@given(st.sampled_from(SETTINGS), st.data())
def test_gpus_are_leased_once_and_never_more_than_there_are(
    driver: Path, setting: str | None, data: st.DataObject
) -> None:
    """By number, UUID or name of a slice, whatever CUDA_VISIBLE_DEVICES leaves, in whatever order steps end."""
    there = visible_gpus(root=driver, environ={} if setting is None else {"CUDA_VISIBLE_DEVICES": setting})
    capacity = Capacity(4, 10, there, jobs=8)
    running: list[tuple[Demand, tuple[str, ...]]] = []

    for wanted in data.draw(st.lists(st.integers(0, 4), max_size=12)):
        demand = Demand(gpus=wanted)
        if capacity.admits(demand, [each for each, _ in running]):
            lease = capacity.lease(demand, {gpu for _, gpus in running for gpu in gpus})
            assert len(lease) == wanted
            running.append((demand, lease))
        elif running:
            running.pop(data.draw(st.integers(0, len(running) - 1)))
        leased = [gpu for _, gpus in running for gpu in gpus]
        assert len(set(leased)) == len(leased)
        assert set(leased) <= set(there)


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_gpus_can_be_leased(driver: Path, setting: str | None) -> None:
    """One by one, until there is none left."""
    there = visible_gpus(root=driver, environ={} if setting is None else {"CUDA_VISIBLE_DEVICES": setting})
    capacity = Capacity(4, 10, there, jobs=8)
    one, leased = Demand(gpus=1), list[str]()
    while capacity.admits(one, [one] * len(leased)):
        leased += capacity.lease(one, leased)

    assert tuple(leased) == there
