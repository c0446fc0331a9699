"""Batches from worker processes: real ones, that run a module written to a folder of the test's own."""

import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kflow.core import OrderedEnqueuer

MODULE = '''
import os
import random
import signal
import sys
import time

import numpy as np

from kflow.core import Sequence


class Numbers(Sequence):
    """Batches that take the longer the sooner they are needed."""

    def __init__(self, length=6, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.005 * (self.length - index))
        return np.full((2, 3), 10 * self.epochs_done + index, "float32"), np.zeros((2, 1), "float32")


class Tellers(Numbers):
    """Who makes a batch, and what is loaded there."""

    def __getitem__(self, index):
        return os.getpid(), "tensorflow" in sys.modules, "keras" in sys.modules


class Draws(Numbers):
    """Random batches from the global generators."""

    def __getitem__(self, index):
        time.sleep(0.005 * (self.length - index))
        return random.random(), np.random.random(3)


class Growing(Numbers):
    """A sequence whose hooks change it."""

    begun = 0

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.length += 1

    def __getitem__(self, index):
        return self.begun, index, self.length


class Odd(Exception):
    """Can be pickled, and not be made again."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


class Breaking(Numbers):
    """Goes wrong in the way that it is told."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def __getitem__(self, index):
        if index == 3:
            getattr(self, self.way)()
        return index

    def own(self):
        raise OSError(28, "No space left on device")

    def odd(self):
        raise Odd("this", "that")

    def leave(self):
        sys.exit("no more")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def quit(self):
        os._exit(7)

    def sleep(self):
        time.sleep(600)


class Unsendable(Numbers):
    """Gives what cannot be pickled."""

    def __getitem__(self, index):
        return lambda: index


class Holding(Numbers):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.source = open(os.devnull)
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module, where a new process finds it, too."""
    (tmp_path / "numbers_of_a_test.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numbers_of_a_test", raising=False)
    return importlib.import_module("numbers_of_a_test")


@pytest.fixture
def started():
    """A function that starts an enqueuer with processes, and waits for their end when the test is over."""
    running = []

    def start(sequence, shuffle=False, **kwargs):
        enqueuer = OrderedEnqueuer(sequence, use_multiprocessing=True, shuffle=shuffle)
        enqueuer.start(**kwargs)
        running.append(enqueuer)
        return enqueuer

    yield start
    for enqueuer in running:
        enqueuer.stop()
    assert multiprocessing.active_children() == []


def take(enqueuer, count):
    """Return so many batches."""
    batches = enqueuer.get()
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
def test_order_and_epochs_are_those_of_threads(module, started, workers):
    """Arrays come in order, whatever is ready first, and can be written to."""
    got = take(started(module.Numbers(), workers=workers), 13)

    assert [int(x[0, 0]) for x, _ in got] == [*range(6), *range(10, 16), 20]
    assert all(x.flags.writeable and x.dtype == "float32" and x.shape == (2, 3) for x, _ in got)


def test_processes_do_not_load_what_the_sequence_does_not_need(module, started):
    """The class derives from Keras's here, and there from nothing of Keras's."""
    import keras

    sequence = module.Tellers(20)

    told = take(started(sequence, workers=2), 20)

    assert isinstance(sequence, keras.utils.PyDataset)
    assert {each[1:] for each in told} == {(False, False)}
    assert os.getpid() not in {each[0] for each in told}


def test_the_hooks_run_here_and_the_processes_see_what_they_did(module, started):
    """The sequence is sent anew for each epoch, and its length is read anew."""
    sequence = module.Growing(2)

    got = take(started(sequence, workers=2), 5)

    assert got == [(1, 0, 2), (1, 1, 2), (2, 0, 3), (2, 1, 3), (2, 2, 3)]
    assert (sequence.begun, sequence.length, sequence.epochs_done) == (2, 4, 2)


def test_random_batches_do_not_depend_on_the_number_of_processes(module, started):
    """The global generators of Python and NumPy are seeded for each batch, and no two batches are alike."""
    runs = []
    for workers in (1, 3):
        random.seed(5)
        runs.append(take(started(module.Draws(), shuffle=True, workers=workers), 12))

    assert [one for one, _ in runs[0]] == [one for one, _ in runs[1]]
    assert np.array_equal([many for _, many in runs[0]], [many for _, many in runs[1]])
    assert len({one for one, _ in runs[0]}) == 12


def test_an_exception_comes_back_as_it_is(module, started):
    """Type, arguments, index, and the text of the traceback."""
    enqueuer = started(module.Breaking("own"), workers=2)
    batches = enqueuer.get()
    assert [next(batches) for _ in range(3)] == [0, 1, 2]

    with pytest.raises(OSError, match="No space left on device") as caught:
        next(batches)

    there, index = caught.value.__notes__
    assert caught.value.errno == 28
    assert index == "raised while making batch 3"
    assert there.startswith("raised in process ")
    assert 'raise OSError(28, "No space left on device")' in there
    assert not enqueuer.is_running()


@pytest.mark.parametrize(
    ("way", "expected", "text"),
    [
        ("odd", RuntimeError, "^numbers_of_a_test.Odd: this and that\n"),
        ("leave", SystemExit, "no more"),
        ("die", RuntimeError, r"^process \d+ \(Breaking worker 0\) was killed by SIGKILL \(out of memory\?\)"),
        ("quit", RuntimeError, r"^process \d+ \(Breaking worker 0\) ended with exit code 7 while it made the batch\n"),
    ],
)
def test_other_ways_to_fail(module, started, way, expected, text):
    """What cannot be made again here, what ends Python, and what ends the process."""
    enqueuer = started(module.Breaking(way))

    with pytest.raises(expected, match=text) as caught:
        take(enqueuer, 4)

    assert caught.value.__notes__[-1] == "raised while making batch 3"


def test_a_stuck_process_times_out_is_named_and_killed(module, started):
    """The error tells the process, the batch, and the line at which the process stands."""
    enqueuer = started(module.Breaking("sleep"), workers=2, timeout=1)

    with pytest.raises(TimeoutError) as caught:
        take(enqueuer, 4)

    assert "batch 3 of Breaking is not ready after 1 s: process " in str(caught.value)
    assert "(Breaking worker " in str(caught.value)
    assert "in sleep\n" in caught.value.__notes__[0]
    wait_for(lambda: not multiprocessing.active_children())


def wait_for(condition, seconds=30):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_cannot_be_pickled_is_named(module, started):
    """The sequence, by its attribute, before any process is started; or the batch."""
    holding = module.Holding()
    with pytest.raises(
        TypeError, match=r"Holding cannot be sent to worker processes: its attribute 'source' cannot be pickled"
    ):
        take(started(holding), 1)
    holding.source.close()
    with pytest.raises(Exception, match="pickle") as caught:
        take(started(module.Unsendable()), 1)

    assert caught.value.__notes__[-1] == "raised while making batch 0"


def python(code, *arguments, **kwargs):
    """Start a Python process as a shell does."""
    import kflow

    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(kflow.__file__).parents[1]), *sys.path[:1]])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *code, *arguments], env=env, **pipes, **kwargs)


PLAIN = """
from kflow.core import OrderedEnqueuer

class Squares:
    def __len__(self): return 3
    def __getitem__(self, index): return index ** 2
    def on_epoch_end(self): pass
"""

READ = """
enqueuer = OrderedEnqueuer(Squares(), use_multiprocessing=True)
enqueuer.start(workers=2)
batches = enqueuer.get()
print([next(batches) for _ in range(4)])
enqueuer.stop()
"""


def test_a_sequence_of_a_notebook_is_refused():
    """There is no file that another process could read its class from."""
    _, errors = python(["-c", PLAIN + READ]).communicate(timeout=60)

    assert "TypeError: Squares cannot be sent to worker processes: class Squares was defined in a notebook" in errors
    assert "move it into a .py file and import it; or use threads" in errors


def test_a_script_needs_its_guard(tmp_path):
    """Without it each process would do what the script does; the error says so."""
    guarded = 'if __name__ == "__main__":' + READ.replace("\n", "\n    ")
    (tmp_path / "good.py").write_text(PLAIN + guarded, encoding="utf-8")
    (tmp_path / "bad.py").write_text(PLAIN + READ, encoding="utf-8")

    good, _ = python([tmp_path / "good.py"]).communicate(timeout=60)
    bad = python([tmp_path / "bad.py"])
    _, errors = bad.communicate(timeout=60)

    assert good == "[0, 1, 4, 0]\n"
    assert bad.returncode == 1
    assert 'a script needs `if __name__ == "__main__":` around what it does' in errors


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_die_with_their_parent(tmp_path, how):
    """Idle or stuck in a batch, and however the parent ends."""
    code = """
import multiprocessing, signal, time
from kflow.core import OrderedEnqueuer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background lets its children ignore it

class Sleeper:
    def __len__(self): return 4
    def __getitem__(self, index): return time.sleep(600) if index == 3 else index
    def on_epoch_end(self): pass

if __name__ == "__main__":
    enqueuer = OrderedEnqueuer(Sleeper(), use_multiprocessing=True)
    enqueuer.start(workers=2)
    batches = enqueuer.get()
    for _ in range(3):
        next(batches)
    print(*(each.pid for each in multiprocessing.active_children()), flush=True)
    next(batches)
"""
    (tmp_path / "parent.py").write_text(code, encoding="utf-8")
    parent = python([tmp_path / "parent.py"], start_new_session=True)
    children = [int(pid) for pid in parent.stdout.readline().split()]

    parent.send_signal(how)

    parent.communicate(timeout=30)
    assert len(children) == 2
    wait_for(lambda: not any(is_alive(pid) for pid in children), seconds=10)


def is_alive(pid):
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
