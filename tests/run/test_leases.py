"""GPUs are leased to the steps of all runs on a machine, whose driver is made up here: its files are real."""

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.parallel.devices import find_gpu_folders, visible_gpus
from kflow.run.leases import HELD, Leases, held_gpus

UUIDS = ["GPU-aa11-01", "GPU-bb22-02", "GPU-cc33-03"]
SETTINGS = [None, "", "-1", "0,2", "2,1,0", "GPU-cc33-03,GPU-aa11-01", "GPU-bb", "0,GPU-bb", "MIG-1234", "1,MIG-1234,0"]


class NoneLeft(Exception):  # noqa: N818  what a wait raises here
    """There are not as many as wanted."""


def refuse(seconds: float) -> None:
    """Wait for nobody."""
    raise NoneLeft


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a root with what a driver shows of three GPUs, which kflow takes for that of this machine."""
    root = tmp_path_factory.mktemp("driver")
    for number, uuid in enumerate(UUIDS):
        folder = root / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"GPU UUID: \t {uuid}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(find_gpu_folders.__kwdefaults__, "root", root)
        yield root


def seen(driver: Path, setting: str | None) -> tuple[str, ...]:
    """Return what a run sees under a setting of CUDA_VISIBLE_DEVICES."""
    return visible_gpus(root=driver, environ={} if setting is None else {"CUDA_VISIBLE_DEVICES": setting})


def index(gpu: str) -> int | str:
    """Return which GPU is meant; a slice is its own."""
    if gpu.startswith("MIG-"):
        return gpu
    return int(gpu) if gpu.isdigit() else next(i for i, uuid in enumerate(UUIDS) if uuid.startswith(gpu))


@given(st.lists(st.sampled_from([each for each in SETTINGS if "MIG" not in (each or "")]), max_size=3), st.data())
def test_gpus_are_leased_once_and_never_more_than_there_are(
    driver: Path, settings: list[str | None], data: st.DataObject
) -> None:
    """To the steps of several runs, which call them by number or UUID, in whatever order they end."""
    runs = [Leases(seen(driver, each)) for each in settings]
    with contextlib.ExitStack() as every:
        running: list[tuple[contextlib.ExitStack, tuple[str, ...]]] = []
        for run in data.draw(st.lists(st.sampled_from(runs), max_size=12)) if runs else []:
            wanted = data.draw(st.integers(0, 4))
            held = {index(gpu) for _, gpus in running for gpu in gpus}
            free = [gpu for gpu in run.gpus if index(gpu) not in held]
            step = every.enter_context(contextlib.ExitStack())
            if wanted <= len(free):
                running.append((step, step.enter_context(run.take(wanted, refuse))))

                assert running[-1][1] == tuple(free[:wanted])
            else:
                with pytest.raises(NoneLeft):
                    step.enter_context(run.take(wanted, refuse))
                if running:
                    running.pop(data.draw(st.integers(0, len(running) - 1)))[0].close()


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_gpus_can_be_leased(driver: Path, setting: str | None) -> None:
    """One by one, until there is none left; and all of them once more."""
    leases, had = Leases(seen(driver, setting)), list[str]()
    with contextlib.ExitStack() as steps, contextlib.suppress(NoneLeft):
        while True:
            had += steps.enter_context(leases.take(1, refuse))
    with leases.take(len(leases.gpus), refuse) as again:
        assert again == tuple(had) == seen(driver, setting)


def test_steps_of_one_run_are_kept_apart_where_no_lock_can_be_had(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems grant every lock, and some containers show no file of the driver."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    leases = Leases(("0", "1"))
    with leases.take(1, refuse) as first, leases.take(1, refuse) as second:
        assert {*first, *second} == {"0", "1"}
        with pytest.raises(NoneLeft), leases.take(1, refuse):
            pass


def test_one_that_wants_several_holds_none_while_it_waits(driver: Path) -> None:
    """Two runs that each hold what the other one waits for would wait for ever."""
    one, other = Leases(("0", "1", "2")), Leases(("0", "1", "2"))
    waits = threading.Event()
    with one.take(1, refuse):

        def wait(seconds: float) -> None:
            with one.take(2, refuse):  # all the rest is free
                waits.set()
            raise NoneLeft

        with pytest.raises(NoneLeft), other.take(3, wait):
            pass

    assert waits.is_set()


def test_a_run_that_a_step_starts_has_the_gpus_of_the_step(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ever for who waits for it; those of others are locked all the same."""
    with Leases(("0", "1", "2")).take(2, refuse) as had:
        monkeypatch.setenv(HELD, held_gpus(had))
        inner = Leases(("GPU-aa11-01", "GPU-bb22-02", "2"))
        with inner.take(3, refuse) as again, pytest.raises(NoneLeft), Leases(("2",)).take(1, refuse):
            pass

    assert held_gpus(["2"]) == "0000:00:00.0,0000:01:00.0,0000:02:00.0"
    assert again == inner.gpus
