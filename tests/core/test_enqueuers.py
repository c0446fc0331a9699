import gc
import math
import random
import re
import threading
import time

import pytest

from kflow.core import GeneratorEnqueuer, OrderedEnqueuer


class Slow:
    """Batches that take the longer the sooner they are needed."""

    def __init__(self, length=6, wrong=None):
        self.length, self.wrong = length, wrong
        self.epoch, self.asked = 0, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.002 * (self.length - index))
        self.asked.append((self.epoch, index))
        if index == self.wrong:
            raise OSError(28, "No space left on device")
        return self.epoch, index

    def on_epoch_end(self):
        """Go on to the next epoch."""
        self.epoch += 1


@pytest.fixture
def started():
    """A function that starts an enqueuer which is stopped at the end of the test."""
    running = []

    def start(enqueuer, **kwargs):
        enqueuer.start(**kwargs)
        running.append(enqueuer)
        return enqueuer

    yield start
    for enqueuer in running:
        enqueuer.stop()


@pytest.mark.parametrize(("workers", "max_queue_size"), [(1, 1), (1, 20), (2, 1), (4, 4), (4, 20), (9, 5)])
def test_batches_keep_their_order_over_epochs(started, workers, max_queue_size):
    """Whatever is ready first, batch 0 of epoch 0 comes first, and epochs do not mix."""
    data = Slow()
    enqueuer = started(OrderedEnqueuer(data), workers=workers, max_queue_size=max_queue_size)

    batches = enqueuer.get()
    got = [next(batches) for _ in range(18)]

    assert got == [(epoch, index) for epoch in range(3) for index in range(6)]
    assert data.epoch == 3


def test_batches_are_made_ahead_but_not_too_far(started):
    """At most max_queue_size batches wait for their consumer."""
    data = Slow()
    enqueuer = started(OrderedEnqueuer(data), workers=2, max_queue_size=2)

    next(enqueuer.get())
    deadline = time.monotonic() + 30
    while len(data.asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)

    assert sorted(data.asked) == [(0, 0), (0, 1), (0, 2)]


class Jittered(Slow):
    """Batches that draw from the generator that also decides the order, as augmentations do."""

    def __getitem__(self, index):
        random.random()
        return super().__getitem__(index)


def test_shuffled_epochs_are_permutations_from_the_global_seed(started):
    """Each epoch has its own order, and the seed decides it, whoever draws what in how many threads."""
    runs = []
    for workers in (1, 3, 8):
        random.seed(3)
        batches = started(OrderedEnqueuer(Jittered(8), shuffle=True), workers=workers).get()
        runs.append([next(batches) for _ in range(16)])

    assert runs[0] == runs[1] == runs[2]
    assert runs[0][:8] != [(0, index) for index in range(8)]
    assert sorted(runs[0]) == [(epoch, index) for epoch in range(2) for index in range(8)]


def test_the_length_is_read_anew_for_each_epoch(started):
    """A data set may shrink when an epoch ends."""

    class Shrinking(Slow):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.length -= 2

    batches = started(OrderedEnqueuer(Shrinking(4))).get()

    assert [next(batches) for _ in range(6)] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_the_original_exception_comes_with_the_batch(started):
    """Type, arguments and traceback are those of the failure; the note tells the index."""
    enqueuer = started(OrderedEnqueuer(Slow(wrong=3)), workers=4)
    batches = enqueuer.get()
    assert [next(batches)[1] for _ in range(3)] == [0, 1, 2]

    with pytest.raises(OSError, match="No space left on device") as caught:
        next(batches)

    assert caught.value.errno == 28
    assert caught.value.__notes__ == ["raised while making batch 3"]
    assert caught.traceback[-1].name == "__getitem__"
    assert not enqueuer.is_running()


def test_the_end_of_an_iterator_comes_with_the_batch(started):
    """StopIteration would end the stream; an error that it caused tells of it."""

    class Ending(Slow):
        def __getitem__(self, index):
            return next(iter([]))

    batches = started(OrderedEnqueuer(Ending())).get()

    with pytest.raises(RuntimeError, match="__getitem__ raised StopIteration in batch 0") as caught:
        next(batches)

    assert isinstance(caught.value.__cause__, StopIteration)
    assert caught.value.__notes__ == ["raised while making batch 0"]


def test_stop_ends_the_stream_and_the_threads():
    """After stop nothing is made or given any more, and it can be started again."""
    enqueuer = OrderedEnqueuer(Slow())
    enqueuer.start(workers=3)
    batches = enqueuer.get()
    next(batches)

    enqueuer.stop()

    assert list(batches) == []
    assert not enqueuer.is_running()
    assert not any(t.name.startswith("Slow") for t in threading.enumerate())
    enqueuer.start()
    assert next(enqueuer.get()) == (0, 0)
    enqueuer.stop()
    enqueuer.stop()


def test_stop_waits_no_longer_than_told():
    """A batch that takes for ever does not hold up a stop with a timeout."""
    release = threading.Event()

    class Stuck(Slow):
        def __getitem__(self, index):
            if index:
                release.wait(30)
            return index

    enqueuer = OrderedEnqueuer(Stuck())
    enqueuer.start()
    next(enqueuer.get())
    begun = time.monotonic()

    enqueuer.stop(timeout=0.1)

    assert time.monotonic() - begun < 10
    release.set()


def test_get_goes_on_where_it_was_left(started):
    """Code that calls get() for each batch gets one after the other, as from Keras 2.1."""
    enqueuer = started(OrderedEnqueuer(Slow(3)), workers=2)

    assert [next(enqueuer.get()) for _ in range(4)] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_a_forgotten_enqueuer_ends_its_threads():
    """Nobody has to call stop()."""
    enqueuer = OrderedEnqueuer(Named())
    enqueuer.start(workers=2)
    next(enqueuer.get())

    del enqueuer
    gc.collect()

    _wait_for(lambda: not any(t.name.startswith("Named") for t in threading.enumerate()))


def test_batches_outlive_their_enqueuer():
    """A function may start an enqueuer and return nothing but its batches."""

    def start():
        enqueuer = OrderedEnqueuer(Slow(3))
        enqueuer.start(workers=2)
        return enqueuer.get()

    batches = start()
    gc.collect()

    assert [next(batches) for _ in range(4)] == [(0, 0), (0, 1), (0, 2), (1, 0)]


class Named(Slow):
    """A sequence whose threads are told from those of other tests."""


def _wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stuck_thread_times_out_and_is_named():
    """The error names batch, thread and the line that waits; batches before it were handed over."""
    release = threading.Event()

    class Stuck(Slow):
        def __getitem__(self, index):
            if index == 2:
                release.wait(60)
            return index

    enqueuer = OrderedEnqueuer(Stuck())
    enqueuer.start(workers=2, timeout=0.3)
    batches = enqueuer.get()
    assert [next(batches), next(batches)] == [0, 1]

    with pytest.raises(TimeoutError) as caught:
        next(batches)

    release.set()
    assert re.match(
        r"batch 2 of Stuck is not ready after 0\.3 s: thread 'Stuck worker [01]' is stuck", str(caught.value)
    )
    assert "release.wait(60)" in caught.value.__notes__[0]
    assert not enqueuer.is_running()


def test_a_stuck_thread_does_not_keep_python_from_ending(run_python):
    """What cannot be killed is left behind."""
    code = """
import time
from kflow.core import OrderedEnqueuer

class Stuck:
    def __len__(self): return 1
    def __getitem__(self, index): time.sleep(600)
    def on_epoch_end(self): pass

enqueuer = OrderedEnqueuer(Stuck())
enqueuer.start(timeout=0.1)
try:
    next(enqueuer.get())
except TimeoutError as error:
    raise SystemExit(3)
"""
    process = run_python(code)

    process.communicate(timeout=60)
    assert process.returncode == 3


def test_a_slow_worker_is_not_a_stuck_one(started):
    """A batch is timed from when its worker begins it, and not from when it is asked for."""

    class Steady(Slow):
        def __getitem__(self, index):
            time.sleep(0.1)
            return index

    batches = started(OrderedEnqueuer(Steady(8)), workers=1, max_queue_size=8, timeout=0.6).get()

    assert [next(batches) for _ in range(8)] == list(range(8))


def test_both_hooks_run_once_around_each_epoch(started):
    """Begin, all batches, end; on_epoch_end is not called before the first epoch."""

    class Logged(Slow):
        def on_epoch_begin(self):
            self.asked.append("begin")

        def on_epoch_end(self):
            super().on_epoch_end()
            self.asked.append("end")

    data = Logged(3)
    batches = started(OrderedEnqueuer(data), workers=1).get()

    for _ in range(6):
        next(batches)

    assert data.asked == [
        *["begin", (0, 0), (0, 1), (0, 2), "end"],
        *["begin", (1, 0), (1, 1), (1, 2), "end"],
    ]


def test_stopping_from_another_thread_frees_a_waiting_consumer():
    """A consumer that waits for a batch still in the queue is not left waiting."""
    enqueuer = OrderedEnqueuer(Slow(50))
    enqueuer.start(workers=1, max_queue_size=50)
    batches = enqueuer.get()
    next(batches)
    threading.Timer(0.05, enqueuer.stop).start()

    assert len(list(batches)) < 50


def test_none_is_skipped(started):
    """As in Keras 2.1, a batch that is None is not given."""

    class Gaps(Slow):
        def __getitem__(self, index):
            return index if index % 2 else None

    batches = started(OrderedEnqueuer(Gaps(4))).get()

    assert [next(batches) for _ in range(3)] == [1, 3, 1]
    assert list(started(GeneratorEnqueuer(iter([None, 1, None]))).get()) == [1]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_generator_is_drawn_from_in_order(started, workers):
    """One thread draws, whatever the number of workers; the stream ends with the generator."""
    enqueuer = started(GeneratorEnqueuer(index**2 for index in range(30)), workers=workers)

    assert list(enqueuer.get()) == [index**2 for index in range(30)]


def test_a_generator_s_exception_comes_with_the_batch(started):
    """The failure is the generator's own."""

    def broken():
        yield math.pi
        raise ZeroDivisionError("no data")

    batches = started(GeneratorEnqueuer(broken())).get()
    assert next(batches) == math.pi

    with pytest.raises(ZeroDivisionError, match="no data") as caught:
        next(batches)

    assert caught.value.__notes__ == ["raised while making batch 1"]


def test_a_generator_is_never_drawn_from_by_processes(started):
    """Forked copies of a generator would give each batch once per process."""
    enqueuer = GeneratorEnqueuer((index**2 for index in range(9)), use_multiprocessing=True, wait_time=0.01, seed=3)

    assert list(started(enqueuer, workers=3, max_queue_size=4).get()) == [index**2 for index in range(9)]


def test_a_stuck_generator_times_out(started):
    """The line in the generator is told."""
    release = threading.Event()

    def stuck():
        yield 0
        release.wait(60)

    batches = started(GeneratorEnqueuer(stuck()), timeout=0.3).get()
    assert next(batches) == 0

    with pytest.raises(TimeoutError, match="batch 1 of generator is not ready") as caught:
        next(batches)

    release.set()
    assert "release.wait(60)" in caught.value.__notes__[0]


def test_an_endless_generator_is_stopped():
    """Only so much is drawn ahead of the consumer."""
    drawn = []
    enqueuer = GeneratorEnqueuer(drawn.append(1) or 1 for _ in iter(int, 1))
    enqueuer.start(max_queue_size=3)
    batches = enqueuer.get()
    next(batches)

    enqueuer.stop()

    assert list(batches) == []
    assert len(drawn) <= 4


@pytest.mark.parametrize("kind", [OrderedEnqueuer, GeneratorEnqueuer])
def test_wrong_use_is_refused(kind):
    """Each misuse has its own message."""
    source = Slow() if kind is OrderedEnqueuer else iter(())
    enqueuer = kind(source)

    with pytest.raises(RuntimeError, match=rf"this {kind.__name__} does not run; call start\(\)"):
        enqueuer.get()
    with pytest.raises(ValueError, match="workers must be a whole number, at least 1, not 0"):
        enqueuer.start(workers=0)
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0, or None for the default, not 0"):
        enqueuer.start(timeout=0)
    enqueuer.start()
    with pytest.raises(RuntimeError, match=r"runs already; call stop\(\) before start"):
        enqueuer.start()
    enqueuer.stop()


def test_an_empty_sequence_is_refused(started):
    """No batches would mean an endless search for one."""
    with pytest.raises(ValueError, match="Slow has no batches: its length is 0"):
        next(started(OrderedEnqueuer(Slow(0))).get())
