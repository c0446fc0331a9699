"""A worker process is started when it is needed, and whatever becomes of it is told as what it is."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.errors import RunError
from kflow.run.process import ForkServer, Process, Seat, worker_environment
from kflow.run.workers import Worker, WorkerDied, Workers

DIGITS = Path(__file__).parents[2] / "workflows" / "data" / "digits.h5"


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a worker, ended at the end."""
    made = Worker()
    yield made
    made.stop()
    made.server.stop()


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


def is_alive(pid: int) -> bool:
    """Tell whether a process has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    """Tell whether a process ends within ten seconds."""
    for _ in range(100):
        if not is_alive(pid):
            return True
        time.sleep(0.1)
    return False


def ignore(event: object) -> None:
    del event


def test_a_worker_is_kept_warm_between_steps(tmp_path: Path) -> None:
    """One process runs what needs no GPU; what sees GPUs gets a fresh one, which ends with the step."""
    body = "Path(__file__).with_suffix('.pid').write_text(str(os.getpid()))"
    workers = Workers()

    for gpus in ((), ("0",), (), ("0",)):
        with workers.worker(gpus, None) as worker:
            assert worker.run(make_task(tmp_path, body), ignore)["event"] == "done"

    first, second, third, fourth = (int((tmp_path / f"user{i}.pid").read_text()) for i in range(4))
    assert first == third
    assert len({first, second, fourth}) == 3
    assert wait_until_gone(second)
    assert wait_until_gone(fourth)
    workers.stop()
    assert wait_until_gone(first)


def test_a_worker_with_another_number_of_threads_is_another(tmp_path: Path) -> None:
    """What does not care takes the one that is there."""
    workers = Workers()
    with workers.worker((), 2) as two:
        two.run(make_task(tmp_path, "pass"), ignore)

    with workers.worker((), None) as any_, workers.worker((), 2) as fresh, workers.worker((), 3) as three:
        assert any_ is two
        assert fresh is not two
        assert (fresh.server.seat.threads, three.server.seat.threads) == (2, 3)
    workers.stop()


def test_a_step_with_code_has_a_worker_for_itself() -> None:
    """The other steps share theirs; all come from one server, for each sort."""
    workers = Workers()
    lent = []
    for runs_code in (False, True, False, True):
        with workers.worker((), 4, runs_code=runs_code) as worker:
            lent.append(worker)
    with workers.worker((), 4, runs_code=True, has_keras=True) as with_keras, workers.worker(("0",), 4) as with_gpu:
        pass
    workers.stop()

    assert lent[0] is lent[2]
    assert len(set(map(id, lent))) == 3
    assert len({id(each.server) for each in lent}) == 1
    assert (with_keras.server.imports, lent[0].server.imports) == (("keras",), ())
    assert (with_gpu.server.seat.gpus, with_gpu.server.imports) == (("0",), ())


def test_a_worker_has_what_its_server_has_imported(tmp_path: Path) -> None:
    """It is forked, and TensorFlow has not begun to compute before: it can do so in every worker."""
    server = ForkServer(imports=("keras",))
    workers = [Worker(server) for _ in range(2)]
    body = (
        "from tensorflow.python.eager import context\n"
        "assert context.context()._context_handle is None\n"  # what seeding makes, and no device yet
        "assert len(os.listdir('/proc/self/task')) == 2, 'the one that listens, and this one'\n"
        "import keras\n"
        "assert keras.ops.sum(keras.ops.ones((3, 4))) == 12"
    )
    once = f"if hasattr(sys, 'been_here'):\n    return block\nsys.been_here = True\n{body}"

    replies = [worker.run(make_task(tmp_path, once), ignore) for worker in workers]

    assert [reply["event"] for reply in replies] == ["done", "done"], replies
    server.stop()
    processes = [worker._process for worker in workers if worker._process]
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)
    for worker in workers:
        worker.stop()


def test_a_worker_is_a_program_of_its_own_where_an_import_starts_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork would lose them, and the locks that they hold would stay locked."""
    (tmp_path / "busy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    worker = Worker(ForkServer(imports=("busy",)))
    body = "assert 'busy' not in sys.modules\nPath('worker').write_text(' '.join(sys.orig_argv))"

    reply = worker.run(make_task(tmp_path, body), ignore)

    assert reply["event"] == "done"
    assert "-m kflow.run.worker" in (tmp_path / "worker").read_text()
    worker.stop()
    worker.server.stop()


def test_functions_that_tensorflow_translates_leave_no_files(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go when the step is over, or has something to tell: a worker is killed, and comes to no exit."""
    folder = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(folder))
    worker = Worker(ForkServer(imports=("keras",)))
    body = (
        "import tensorflow as tf\n@tf.function\ndef positive(x):\n    if x > 0:\n        return x\n    return -x\n"
        "assert positive(tf.constant(-2)) == 2\nPath('made').write_text(' '.join(os.listdir(os.environ['TMPDIR'])))"
    )

    reply = worker.run(make_task(tmp_path, body), ignore)

    assert reply["event"] == "done"
    assert "__autograph_generated_file" in (tmp_path / "made").read_text()
    assert not list(folder.glob("__autograph*"))
    worker.stop()
    worker.server.stop()


def test_a_server_that_dies_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorFlow may, when it is imported on a processor that it was not made for; the next step tries again."""
    (tmp_path / "bad.py").write_text(
        "import os, sys\nprint('made for another processor', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 4)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    worker = Worker(ForkServer(imports=("bad",)))
    told = r"crashed with SIGILL; its last words: made for another processor"

    for _ in range(2):
        with pytest.raises(WorkerDied, match=told):
            worker.run(make_task(tmp_path, "pass"), ignore)
    worker.server.stop()


def test_a_run_ends_though_a_server_takes_long_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It heeds nothing meanwhile; a timeout and Ctrl-C hold all the same."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    workers = Workers()
    workers._servers[4, False] = ForkServer(imports=("slow",))
    began = time.monotonic()

    with workers.worker((), 4) as worker, pytest.raises(WorkerDied, match="timeout of 1 s"):
        worker.run(make_task(tmp_path, "pass"), ignore, 1)
    workers.stop()

    assert time.monotonic() - began < 30


def test_what_is_drawn_without_a_seed_is_different_in_each_worker(tmp_path: Path) -> None:
    """As it is in any two processes; a fork alone would give all the same. What a step computes with has a seed."""
    server = ForkServer(imports=("numpy.random",))
    code = "\nimport numpy\nPath(f'{time.time_ns()}.drawn').write_text(str(numpy.random.rand()))\n"
    for number in range(2):
        task = make_task(tmp_path, "pass")
        with (tmp_path / f"user{number}.py").open("a") as module:
            module.write(code)
        fields, sources = {"objects": {"Change": f"user{number}.py:change"}}, {f"user{number}.py": [f"user{number}.py"]}
        worker = Worker(server)
        reply = worker.run({**task, "kind": "register_objects", "fields": fields, "sources": sources}, ignore)
        worker.stop()
        assert reply["event"] == "done", reply
    server.stop()

    drawn = [file.read_text() for file in tmp_path.glob("*.drawn")]
    assert len(drawn) == len(set(drawn)) == 2


def test_the_end_of_a_step_is_told_though_the_server_was_stopped(worker: Worker, tmp_path: Path) -> None:
    """It is woken."""
    server = "int(Path(f'/proc/{os.getppid()}/stat').read_text().rpartition(')')[2].split()[1])"

    with pytest.raises(WorkerDied, match="code 3"):
        worker.run(make_task(tmp_path, f"os.kill({server}, signal.SIGSTOP)\nos._exit(3)"), ignore)


def test_workers_that_end_at_once_leave_nothing(worker: Worker) -> None:
    """Neither a process nor a descriptor, here or in the server."""
    server = worker.server
    server.fork().end()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        processes = [server.fork() for _ in range(8)]
        threads = [threading.Thread(target=process.end) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for process in processes:
            os.close(process.printed)
            assert not process.is_alive()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_step_goes_on_though_its_server_was_killed(worker: Worker, tmp_path: Path) -> None:
    """And what it has started ends with it all the same; the next step gets another server."""
    kill = "pid = int(Path(f'/proc/{os.getppid()}/stat').read_text().rpartition(')')[2].split()[1])\nos.kill(pid, 9)\n"
    once = (
        f"if not os.path.exists('killed'):\n    Path('killed').touch()\n    {kill.replace(chr(10), chr(10) + '    ')}"
    )
    reply = worker.run(make_task(tmp_path, f"{once}\n{DETACH}"), ignore)
    worker.stop()

    assert reply["event"] == "done"
    assert all(wait_until_gone(int((tmp_path / name).read_text())) for name in ("child", "daemon"))
    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


def test_a_step_that_takes_too_long_is_stopped(worker: Worker, tmp_path: Path) -> None:
    """With all that it started; the next step gets another worker."""
    body = "Path(__file__).with_name('pid').write_text(str(os.getpid()))\ntime.sleep(600)"

    with pytest.raises(WorkerDied, match=r"stopped after its timeout of 3 s"):
        worker.run(make_task(tmp_path, body), ignore, 3)

    assert wait_until_gone(int((tmp_path / "pid").read_text()))
    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


def test_each_step_has_its_own_log(worker: Worker, tmp_path: Path) -> None:
    """Also what it printed without a newline, to both streams; what it printed is told line by line if asked for."""
    told: list[Any] = []
    for text in ("one", "two"):
        once = "if os.environ.get('ONCE') == TEXT:\n    return block\nos.environ['ONCE'] = TEXT\n"
        body = once.replace("TEXT", repr(text)) + f"print('{text}\\nmore', end='')\nos.write(2, b' to stderr')"
        task = {**make_task(tmp_path, body), "log": str(tmp_path / f"{text}.log"), "echo": text == "two"}
        worker.run(task, told.append)

    assert (tmp_path / "one.log").read_text() == "one\nmore to stderr"
    assert (tmp_path / "two.log").read_text() == "two\nmore to stderr"
    assert [each["line"] for each in told] == ["two", "more to stderr"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed; the machine may have run out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(600)", "was stopped with SIGTERM"),
        ("os._exit(3)", r"ended with code 3, as if by os\._exit\(\), before the step was done"),
    ],
)
def test_a_worker_that_dies_is_told_as_what_it_is(worker: Worker, tmp_path: Path, body: str, message: str) -> None:
    """And the next step gets another one."""
    with pytest.raises(WorkerDied, match=message):
        worker.run(make_task(tmp_path, body), ignore)

    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(0)", "code of the step called sys.exit(0); it is to return, or to raise an error"),
        ("sys.exit('enough')", "code of the step called sys.exit('enough'); it is to return, or to raise an error"),
        (
            "class Odd(Exception):\n    def __str__(self): raise OSError\nraise Odd",
            "Odd: (its text cannot be told: OSError in its __str__)",
        ),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("os.closerange(1, 3)\nos.close(2)", "[Errno 9] Bad file descriptor: what is used there was closed before"),
    ],
)
def test_whatever_the_code_of_a_step_raises_is_its_failure(
    worker: Worker, tmp_path: Path, body: str, message: str
) -> None:
    """In words, with a traceback in the log; and the worker goes on."""
    reply = worker.run(make_task(tmp_path, body), ignore)
    process = worker._process

    assert (reply["event"], reply["message"]) == ("failed", message)
    assert "Traceback" in (tmp_path / "step.log").read_text()
    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"
    assert worker._process is process


@pytest.mark.parametrize(
    "body",
    [
        "os.closerange(1, 2)",
        "os.closerange(1, 3)\nopen('taken', 'w')",
        "sys.stdout.close()",
        "sys.stdout = sys.stderr = None",
    ],
)
def test_a_step_may_close_its_output(worker: Worker, tmp_path: Path, body: str) -> None:
    """What the next one prints is in its log, and nobody waits for what does not come."""
    began = time.monotonic()
    closing = worker.run(make_task(tmp_path, body), ignore)
    worker.run(make_task(tmp_path, "print('here')\nos.write(2, b'and there\\n')"), ignore)

    assert closing["event"] == "done"
    assert (tmp_path / "step.log").read_text() == "here\nand there\n" * 2  # a normalizer is called for a sample as well
    assert time.monotonic() - began < 5


def test_a_process_that_a_step_forks_may_exit(worker: Worker, tmp_path: Path) -> None:
    """It is not the step that ends there."""
    body = "if os.fork() == 0:\n    sys.exit(0)\nos.wait()"

    assert worker.run(make_task(tmp_path, body), ignore)["event"] == "done"


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
        worker.run(make_task(tmp_path, body), ignore)

    assert time.monotonic() - began < 60
    assert wait_until_gone(int((tmp_path / "child").read_text()))


DETACH = (
    "import subprocess\n"
    "daemon = '(sleep 600 & echo $! > daemon) &'\n"  # its parents end at once
    "subprocess.run(['setsid', 'sh', '-c', daemon], check=True)\n"
    "child = subprocess.Popen(['sleep', '600'], start_new_session=True, env={})\n"
    "Path('child').write_text(str(child.pid))\n"
    "while not (os.path.exists('daemon') and Path('daemon').read_text().endswith('\\n')):\n    time.sleep(0.01)\n"
)
"""What a step may do so that its children leave the session of the worker."""


@pytest.mark.parametrize("ending", ["os._exit(5)", "os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(600)", "pass"])
def test_nothing_gets_away_from_a_worker(worker: Worker, tmp_path: Path, ending: str) -> None:
    """Neither a child with a session of its own nor a daemon; however the worker ends."""
    task = make_task(tmp_path, DETACH + ending)
    with contextlib.suppress(WorkerDied):
        worker.run(task, ignore, 10)

    worker.stop()

    pids = [int((tmp_path / name).read_text()) for name in ("child", "daemon")]
    assert not any(map(is_alive, pids))


def test_a_worker_does_not_outlive_its_watchdog(worker: Worker, tmp_path: Path) -> None:
    """Somebody may kill that one, too: what it watched is ended all the same, and the next step gets another worker."""
    body = (
        f"{DETACH}Path('worker').write_text(str(os.getpid()))\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    )
    with pytest.raises(WorkerDied, match="was killed"):
        worker.run(make_task(tmp_path, body), ignore)

    assert not any(is_alive(int((tmp_path / name).read_text())) for name in ("worker", "child", "daemon"))
    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


def test_a_timeout_holds_though_the_watchdog_was_stopped(worker: Worker, tmp_path: Path) -> None:
    """A stopped process heeds no signal but to go on; then it does its work."""
    body = f"{DETACH}os.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(600)"

    with pytest.raises(WorkerDied, match="timeout of 10 s"):
        worker.run(make_task(tmp_path, body), ignore, 10)

    assert not any(is_alive(int((tmp_path / name).read_text())) for name in ("child", "daemon"))


def test_a_worker_that_died_between_two_steps_is_replaced(worker: Worker, tmp_path: Path) -> None:
    """The next step does not fail for it."""
    body = "Path(__file__).with_name('pid').write_text(str(os.getpid()))"
    worker.run(make_task(tmp_path, body), ignore)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert wait_until_gone(pid)

    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


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
            worker.run(task, ignore)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert not is_alive(int(watched.read_text()))


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

    assert worker.run(make_task(tmp_path, "pass"), ignore)["event"] == "done"


def test_a_worker_sees_only_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all unless some are given, whatever the environment says."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    assert worker_environment(Seat())["CUDA_VISIBLE_DEVICES"] == "-1"
    assert worker_environment(Seat(("2", "3")))["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize("library", ["OMP", "OPENBLAS", "MKL"])
def test_every_library_computes_with_the_threads_of_the_step(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Whatever the environment says: their number can change the last bits of a sum."""
    monkeypatch.setenv(f"{library}_NUM_THREADS", "1")

    assert worker_environment(Seat(threads=3))[f"{library}_NUM_THREADS"] == "3"


def test_asserts_in_code_hold_whatever_the_environment_says(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can change a result, and no fingerprint speaks of them."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")

    assert worker.run(make_task(tmp_path, "assert not block.size"), ignore)["event"] == "failed"


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [(None, None, "PCI_BUS_ID"), ("1,0", None, None), ("1,0", "FASTEST_FIRST", "FASTEST_FIRST")],
)
def test_numbers_of_gpus_count_in_the_order_in_which_they_were_said(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, order: str | None, expected: str | None
) -> None:
    """That of the driver where kflow counted them itself, the user's where the user said which may be used."""
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)

    assert worker_environment(Seat(("1",))).get("CUDA_DEVICE_ORDER") == expected


def test_a_worker_that_is_being_started_when_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets no step, and is ended."""
    workers = Workers()
    started: list[Process] = []
    fork = ForkServer.fork

    def start(server: ForkServer) -> Process:
        workers.stop()  # as the main thread does in the moment in which the process comes to life
        started.append(fork(server))
        return started[-1]

    monkeypatch.setattr(ForkServer, "fork", start)
    with workers.worker((), None) as worker, pytest.raises(RunError, match="the run is over"):
        worker.run(make_task(tmp_path, "Path('was-here').touch()"), ignore)

    assert started[0].wait(0) in {-signal.SIGTERM, -signal.SIGKILL}
    assert not list(tmp_path.rglob("was-here"))
