"""A slice of `make soak`, and that it would find what it looks for."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak import store_audit, strace
from tests.soak.killpoints import SCENARIOS, Point, list_points, meet, put_in_place, what_is_right
from tests.soak.powerloss import judge, list_states, record
from tests.soak.powerloss_disk import Disk, lay_down
from tests.soak.small_run import SmallRun

FIRST = SCENARIOS["first run"]

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("soak")]


@dataclass(frozen=True)
class Known:
    """A small run, what it gives, and the points at which it can be disturbed."""

    run: SmallRun
    right: dict[str, object]
    points: list[Point]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Give a small run that was done once."""
    if not strace.is_there():
        pytest.skip(strace.ADVICE)
    run = SmallRun(tmp_path_factory.mktemp("soak") / "run")
    return Known(run, what_is_right(run), list_points(FIRST, run))


@pytest.mark.parametrize("share", [0.15, 0.4, 0.55, 0.7, 0.85, 0.95])
def test_a_fault_at_a_system_call(known: Known, share: float) -> None:
    """It is met where it was meant to be; nothing is corrupt or stuck, and a second run ends right."""
    verdict = meet(known.points[int(len(known.points) * share)], known.run, known.right)

    assert verdict.was_met, verdict.point
    assert verdict.faults == (), verdict.point


def test_a_power_cut(known: Known) -> None:
    """What is left is whole, and no step whose end was written down is done again."""
    states = list_states(FIRST, known.run, chances=1)
    chosen = states[len(states) // 4 :: len(states) // 3]

    assert len(chosen) == 3
    assert [judge(state, known.run, known.right) for state in chosen] == [[], [], []]


def test_a_store_that_does_not_sync_is_found_out(known: Known, tmp_path: Path) -> None:
    """Without fsync a power cut leaves entries without content, and the audit sees them."""
    before, calls = record(FIRST, known.run)
    disk = Disk(known.run.root)
    for path in sorted(before):
        disk.add(str(known.run.root / path), before[path])
    for call in calls:
        if call.name != "fsync":
            disk.do(call)
    states = dict(disk.states(0, 0))
    for form in ("all", "names"):
        (tmp_path / form).mkdir()
        lay_down(states[form], tmp_path / form)

    assert store_audit.find_faults(tmp_path / "all" / "store") == []
    assert len(store_audit.find_faults(tmp_path / "names" / "store")) > 3


def test_a_changed_byte_is_found_out(known: Known) -> None:
    """The audit computes every digest anew."""
    put_in_place(FIRST, known.run)
    known.run.kflow("run", "w.yaml")
    (page,) = known.run.store.glob("entries/*/*/page/page.txt")
    page.write_bytes(page.read_bytes()[:-1] + b"X")

    found = store_audit.find_faults(known.run.store)
    assert [fault.partition(": ")[2] for fault in found] == [
        "page/page.txt holds other bytes",
        "the output page has another digest",
    ]
