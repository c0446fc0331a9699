"""A worker process is started when it is needed, and whatever becomes of it is told as what it is."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.run.process import Worker, WorkerDied, worker_environment

DIGITS = Path(__file__).parents[2] / "workflows" / "data" / "digits.h5"


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a worker, ended at the end."""
    made = Worker()
    yield made
    made.stop()


def make_task(folder: Path, body: str) -> dict[str, Any]:
    """Make a step whose normalizer is a Python function with this body."""
    number = len(list(folder.glob("staging*")))
    (folder / f"staging{number}").mkdir()
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / f"user{number}.py").write_text(
        f"import os, signal, sys, time\nfrom pathlib import Path\ndef change(block):\n{lines}\n    return block\n"
    )
    return {
        "kind": "slice_hdf5",
        "fields": {
            "datapath": str(DIGITS),
            "dataset": "labels",
            "end": 3,
            "normalizer": f"user{number}.py:change",
        },
        "root": str(folder),
        "staging": str(folder / f"staging{number}"),
        "log": str(folder / "step.log"),
        "seed": 0,
        "gpus": 0,
        "artifacts": {},
        "sources": {},
    }


def wait_until_gone(pid: int) -> bool:
    """Tell whether a process ends within ten seconds; one that nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def ignore(event: object) -> None:
    del event


def test_a_worker_is_kept_warm_between_steps(worker: Worker, tmp_path: Path) -> None:
    """Two steps are run by one process, and a third with other GPUs by another."""
    body = "with open(Path(__file__).with_name('pids'), 'a') as f: f.write(f'{os.getpid()}\\n')"

    for gpus in ((), (), ("0",)):
        assert worker.run(make_task(tmp_path, body), gpus, ignore)["event"] == "done"

    first, second, third = (set(pids) for pids in _in_three(tmp_path / "pids"))
    assert first == second != third
    assert wait_until_gone(int(first.pop()))


def _in_three(path: Path) -> list[list[str]]:
    pids = path.read_text().split()
    size = len(pids) // 3
    return [pids[:size], pids[size : 2 * size], pids[2 * size :]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed; the machine may have run out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("os._exit(3)", "ended with code 3"),
        ("sys.exit(4)", "ended with code 4"),
    ],
)
def test_a_worker_that_dies_is_told_as_what_it_is(worker: Worker, tmp_path: Path, body: str, message: str) -> None:
    """And the next step gets another one."""
    with pytest.raises(WorkerDied, match=message):
        worker.run(make_task(tmp_path, body), (), ignore)

    assert worker.run(make_task(tmp_path, "pass"), (), ignore)["event"] == "done"


def test_a_worker_that_dies_takes_what_it_forked_along(worker: Worker, tmp_path: Path) -> None:
    """A forked child holds the line to the runner open; the runner must not wait for it."""
    body = (
        "pid = os.fork()\n"
        "if pid == 0:\n    time.sleep(600)\n"
        "Path(__file__).with_name('child').write_text(str(pid))\n"
        "os._exit(5)"
    )
    began = time.monotonic()

    with pytest.raises(WorkerDied, match="code 5"):
        worker.run(make_task(tmp_path, body), (), ignore)

    assert time.monotonic() - began < 60
    assert wait_until_gone(int((tmp_path / "child").read_text()))


def test_a_worker_that_died_between_two_steps_is_replaced(worker: Worker, tmp_path: Path) -> None:
    """The next step does not fail for it."""
    body = "Path(__file__).with_name('pid').write_text(str(os.getpid()))"
    worker.run(make_task(tmp_path, body), (), ignore)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert wait_until_gone(pid)

    assert worker.run(make_task(tmp_path, "pass"), (), ignore)["event"] == "done"


def test_an_interruption_ends_the_worker_at_once(worker: Worker, tmp_path: Path) -> None:
    """Before the runner tidies up the folder that the worker writes to."""
    body = "Path(__file__).with_name('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    task = make_task(tmp_path, body)
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    global watched  # noqa: PLW0603  the signal handler of the test looks for this file
    watched = tmp_path / "pid"
    try:
        with pytest.raises(KeyboardInterrupt, match="now"):
            worker.run(task, (), ignore)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert not Path(f"/proc/{watched.read_text()}").exists()


watched = Path()


def _interrupt(number: int, frame: object) -> None:
    if watched.is_file() and watched.read_text():
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt("now")


def test_modules_in_the_current_folder_do_not_get_into_the_worker(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue.py of the user's is not the standard library's."""
    (tmp_path / "queue.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)

    assert worker.run(make_task(tmp_path, "pass"), (), ignore)["event"] == "done"


def test_a_worker_sees_only_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all unless some are given, whatever the environment says."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    assert worker_environment(())["CUDA_VISIBLE_DEVICES"] == "-1"
    assert worker_environment(("2", "3"))["CUDA_VISIBLE_DEVICES"] == "2,3"
