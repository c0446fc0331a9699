"""Steps start in order, when all that they need is done and the machine has room for them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
    capacity = Capacity(cpus, 10, gpus)

    if capacity.admits(new, running):
        everything = [new, *running]
        assert sum(each.gpus for each in everything) <= gpus
        if running:
            assert sum(each.cpus for each in everything) <= cpus
            assert sum(each.memory for each in everything) <= 10


def test_a_number_of_jobs_takes_the_place_of_the_processors() -> None:
    """The user knows best; GPUs and memory are counted all the same."""
    capacity = Capacity(2, 100, 1, jobs=3)

    assert capacity.admits(Demand(cpus=4), [Demand(4), Demand(4)])
    assert not capacity.admits(Demand(), [Demand(), Demand(), Demand()])
    assert not capacity.admits(Demand(gpus=1), [Demand(gpus=1)])
    assert not capacity.admits(Demand(memory=60), [Demand(memory=60)])
